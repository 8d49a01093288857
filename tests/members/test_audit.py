"""The audit log: what is appended stays, and whatever is changed afterwards is found."""

from __future__ import annotations

import os

import pytest

from tercet.errors import ConsentError, StorageError
from tercet.members import audit_lines
from tercet.members.audit import AuditLog, read_lines
from tercet.members.audit_lines import Follower, check_lines, parse
from tercet.members.keys import MemberKeys
from tercet.transports import make_identity

NODE, OTHER = (MemberKeys(make_identity(name)) for name in ("n0", "n1"))
CERTIFICATE = NODE.identity.certificate_pem


@pytest.fixture
def log(tmp_path):
    made = AuditLog(tmp_path / "audit.log", NODE)
    for number in range(4):
        made.append("runs", caller="ann\n", plan=f"plan {number}")
    return made


def verify(lines):
    return check_lines(lines, CERTIFICATE, where="the log")


def test_a_whole_log(log):
    lines = list(read_lines(log.path))
    assert verify(lines) == log.head
    assert log.head.lines == 4
    assert [parse(line)["plan"] for line in lines] == [f"plan {number}" for number in range(4)]
    assert log.lines(1, 2) == lines[1:3]
    again = AuditLog(log.path, NODE)
    again.append("runs", caller="bob")
    assert verify(read_lines(log.path)) == again.head != log.head


def test_every_change_is_found(log):
    lines = list(read_lines(log.path))
    for number, line in enumerate(lines):
        for place in range(0, len(line), 7):
            changed = line[:place] + chr(ord(line[place]) ^ 1) + line[place + 1 :]
            with pytest.raises(ConsentError, match=f"line {number + 1}"):
                verify([*lines[:number], changed, *lines[number + 1 :]])
    with pytest.raises(ConsentError, match="line 2, does not follow"):
        verify([lines[0], *lines[2:]])
    with pytest.raises(ConsentError, match="line 2, does not follow"):
        verify([lines[0], lines[0], *lines[1:]])
    with pytest.raises(ConsentError, match="line 1, does not follow"):
        verify(lines[1:])
    assert verify(lines[:3]) != log.head  # a log that was cut has an earlier head


def test_a_log_that_was_cut_since_its_head_was_noted(log):
    lines = log.path.read_text().splitlines(keepends=True)
    noted = log.head
    log.append("runs", caller="bob")
    assert AuditLog(log.path, NODE, noted=noted).head == log.head
    for left in ("", "".join(lines[:3])):
        log.path.write_text(left)
        found = left.count("\n")
        with pytest.raises(ConsentError, match=f"had 4, .* among the {found} that it has.*--log-lost"):
            AuditLog(log.path, NODE, noted=noted)
    log.path.unlink()
    other = AuditLog(log.path, NODE)
    for number in range(5):
        other.append("runs", caller="ann", plan=f"other plan {number}")
    with pytest.raises(ConsentError, match="it had 4, and the last of those is not among the 5 that it has"):
        AuditLog(log.path, NODE, noted=noted)
    anew = AuditLog(log.path, NODE, noted=noted, lost=True)
    assert verify(read_lines(log.path)) == anew.head
    told = parse(anew.lines(5, 1)[0])
    assert (told["event"], told["lines"], told["digest"]) == ("lost", 4, noted.digest)


def test_lines_that_lead_to_a_head_that_was_verified_are_checked_by_their_hashes(log, monkeypatch):
    known, verified = log.head, []
    for number in range(2):
        log.append("runs", caller="bob", plan=f"new plan {number}")
    lines = list(read_lines(log.path))

    def counted(*args):
        verified.append(parse(args[2].decode())["number"])
        return before(*args)

    before = audit_lines.verify
    monkeypatch.setattr(audit_lines, "verify", counted)

    def follow(lines):
        reading = Follower([CERTIFICATE], "the log", known=known, by_hash=True)
        return [head for _, head in reading.follow(lines)][-1]

    assert follow(lines) == log.head
    assert verified == [3, 4, 5]  # the last one that is known tells the key
    for number, line in enumerate(lines):
        for place in range(0, line.index("\t"), 7):
            changed = line[:place] + chr(ord(line[place]) ^ 1) + line[place + 1 :]
            with pytest.raises(ConsentError):
                follow([*lines[:number], changed, *lines[number + 1 :]])
    for some in (lines[1:], [*lines[:2], *lines[3:]], [lines[0], *lines]):
        with pytest.raises(ConsentError):
            follow(some)


def test_whoever_has_the_key_of_a_node_cannot_write_what_was_verified_anew(log, tmp_path):
    """All links and signatures are right, but lines lead elsewhere than to the head that is known."""
    forged = AuditLog(tmp_path / "forged.log", NODE)
    for number in range(log.head.lines + 2):
        forged.append("runs", caller="ann\n", plan=f"plan {number}")
    reading = Follower([CERTIFICATE], "the log", known=log.head, by_hash=True)
    with pytest.raises(ConsentError, match="had 4 lines when it was verified last"):
        list(reading.follow(read_lines(forged.path)))


def test_an_earlier_key_counts_no_more_after_lines_that_are_checked_by_their_hashes(log, monkeypatch):
    """The last line that is known tells which key the log has come to."""
    certificates = [CERTIFICATE, OTHER.identity.certificate_pem]
    log.renew(OTHER)
    known = log.head
    log.append("runs", caller="bob")
    reading = Follower(certificates, "the log", known=known, by_hash=True)
    assert [head for _, head in reading.follow(read_lines(log.path))][-1] == log.head
    monkeypatch.setattr(log, "_keys", NODE)  # somebody has it who can write the log
    log.append("runs", caller="mallory")
    reading = Follower(certificates, "the log", known=known, by_hash=True)
    with pytest.raises(ConsentError, match="line 7, was not signed by this node's key"):
        list(reading.follow(read_lines(log.path)))


def test_another_node_cannot_write_it(log, tmp_path):
    foreign = AuditLog(tmp_path / "other.log", OTHER)
    foreign.append("runs", caller="ann")
    with pytest.raises(ConsentError, match="was not signed by this node's key"):
        verify(read_lines(foreign.path))


def test_a_node_does_not_start_on_a_damaged_log(log):
    log.path.write_text(log.path.read_text().replace("plan 2", "plan 9"))
    with pytest.raises(ConsentError, match="line 3"):
        AuditLog(log.path, NODE)
    log.path.write_bytes(log.path.read_bytes()[:-9] + b"\xff")
    with pytest.raises(ConsentError, match="line 3"):
        AuditLog(log.path, NODE)


def test_a_full_disk_leaves_no_part_of_a_line(log, monkeypatch):
    whole, write = log.path.read_bytes(), os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:50]))
        with pytest.raises(StorageError, match=r"No space left.*make room"):
            log.append("runs")
    assert log.path.read_bytes() == whole
    log.append("runs")
    assert verify(read_lines(log.path)).lines == 5


def test_a_log_that_cannot_be_written(tmp_path):
    log = AuditLog(tmp_path / "absent" / "audit.log", NODE)
    for attempt in (lambda: log.append("runs"), log.settle):
        with pytest.raises(StorageError, match="nothing is run without it"):
            attempt()
    assert log.head.lines == 0
