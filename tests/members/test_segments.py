"""The audit log over many files: heads chain over them, pages cost the same, what is lost is missed."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import pytest

from tercet.errors import ConfigError, ConsentError, StorageError
from tercet.members.audit import AuditLog, log_lines
from tercet.members.audit_lines import check_lines, digest_of, lines_after, parse
from tercet.members.keys import MemberKeys
from tercet.members.seals import STRIDE, Head, Seal, seal_path, segment_path
from tercet.members.verified import Verified
from tercet.transports import make_identity

NODE = MemberKeys(make_identity("n0"))
CERTIFICATE = NODE.identity.certificate_pem
LINES = 130
"""Of a segment in these tests: two strides and a bit."""


def opened(path, **options):
    return AuditLog(path, NODE, segment_lines=LINES, **options)


def written(path, lines, **options):
    """A log of so many lines, rotated as a node does it now and then."""
    log = opened(path, **options)
    for number in range(lines):
        log.append("runs", plan=f"plan {number}")
        log.rotate()
    return log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.log"


def names(path):
    return sorted(one.name for one in path.parent.iterdir())


def test_segments_are_one_log(path):
    log = written(path, 3 * LINES + 7)
    assert names(path) == [
        *(f"audit-00000{number}.{kind}" for number in (1, 2, 3) for kind in ("log", "seal")),
        "audit.log",
    ]
    lines = list(log_lines(path))
    assert check_lines(lines, CERTIFICATE, where="it") == log.head == Head(397, log.head.digest)
    for start in (0, 1, STRIDE - 1, STRIDE, LINES - 1, LINES, 2 * LINES + 3, 396, 397, 1000):
        assert log.lines(start, 90) == lines[start : start + 90]
        assert list(log_lines(path, CERTIFICATE, start)) == lines[start:]
    again = opened(path)
    assert again.head == log.head
    again.append("runs", plan="more")
    assert check_lines(log_lines(path), CERTIFICATE, where="it") == again.head


def test_a_log_of_an_earlier_release_becomes_the_first_segment(path):
    old = AuditLog(path, NODE, segment_lines=1 << 40)
    for number in range(3 * LINES):
        old.append("runs", plan=f"plan {number}")
    lines, noted = path.read_text().splitlines(), old.head
    assert names(path) == ["audit.log"]
    log = opened(path, noted=noted)
    assert names(path) == ["audit-000001.log", "audit-000001.seal"]
    assert log.head == noted
    assert log.lines(300, 1) == lines[300:301]
    log.append("runs")
    log.settle()
    assert list(log_lines(path))[:-1] == lines
    assert opened(path, noted=noted).head == log.head


@pytest.mark.parametrize("noted", [1, LINES, LINES + 70, 2 * LINES, 2 * LINES + 5])
def test_a_head_is_known_wherever_it_was_noted(path, noted):
    log = written(path, 2 * LINES + 10)
    digest = parse(log.lines(noted, 1)[0])["before"]
    assert opened(path, noted=Head(noted, digest)).head == log.head
    with pytest.raises(ConsentError, match=f"it had {noted}, and the last of those is not among the 270"):
        opened(path, noted=Head(noted, "f" * 64))


def test_what_was_lost_is_missed_over_files(path):
    log = written(path, 2 * LINES + 10)
    noted = log.head
    path.unlink()
    with pytest.raises(ConsentError, match=r"had 270, .* the 260 that it has.*--log-lost"):
        opened(path, noted=noted)
    for kind in ("log", "seal"):
        (path.parent / f"audit-000002.{kind}").unlink()
    with pytest.raises(ConsentError, match=r"had 270, .* the 130 that it has.*--log-lost"):
        opened(path, noted=noted)
    told = parse(opened(path, noted=noted, lost=True).lines(LINES, 1)[0])
    assert (told["event"], told["lines"], told["digest"]) == ("lost", 270, noted.digest)
    opened(path, noted=Head(131, digest_of(opened(path).lines(130, 1)[0].partition("\t")[0])))


def test_a_segment_that_was_cut(path):
    log = written(path, LINES)
    segment = segment_path(path, 1)
    segment.write_bytes(segment.read_bytes()[: log.seals[0].offsets[1]])
    with pytest.raises(ConsentError, match=r"audit-000001.log has lost lines: it had 130 .*--log-lost"):
        opened(path)
    found = opened(path, lost=True)
    assert parse(found.lines(STRIDE, 1)[0])["lines"] == LINES
    assert check_lines(log_lines(path), CERTIFICATE, where="it") == found.head == opened(path).head


def test_a_segment_in_the_middle_is_gone(path):
    written(path, 3 * LINES)
    for kind in ("log", "seal"):
        (path.parent / f"audit-000002.{kind}").rename(path.parent / f"aside.{kind}")
        (path.parent / f"audit-000003.{kind}").rename(path.parent / f"audit-000002.{kind}")
    for lost in (False, True):
        with pytest.raises(ConsentError, match=r"audit-000002.seal was changed"):
            opened(path, lost=lost)
    (path.parent / "audit-000002.seal").unlink()
    with pytest.raises(ConsentError, match=r"audit-000002.log, line 131, does not follow the line before"):
        opened(path)


def test_a_changed_line_of_a_segment_is_found_by_whoever_audits(path):
    log = written(path, 2 * LINES)
    segment = segment_path(path, 1)
    segment.write_text(segment.read_text().replace("plan 77", "plan 99"))
    opened(path)  # which looks at seals
    with pytest.raises(ConsentError, match="line 78, was not signed"):
        check_lines(log_lines(path), CERTIFICATE, where="it")
    with pytest.raises(ConsentError, match="line 78, was not signed"):
        check_lines(log.lines(0), CERTIFICATE, where="it")


def test_a_changed_seal(path):
    written(path, 2 * LINES)
    seal = seal_path(path, 1)
    whole = seal.read_text()
    for place in range(0, len(whole), 11):
        seal.write_text(whole[:place] + chr(ord(whole[place]) ^ 1) + whole[place + 1 :])
        with pytest.raises(ConsentError, match=r"audit-000001.seal was changed.*it is made again"):
            opened(path)
    seal.unlink()
    head = opened(path).head
    assert json.loads(seal.read_text().partition("\t")[0]) == json.loads(whole.partition("\t")[0])
    assert head.lines == 2 * LINES


def test_a_node_that_ends_while_it_seals(path, monkeypatch):
    log = written(path, LINES - 1)
    log.append("runs")
    with monkeypatch.context() as broken:
        broken.setattr(Seal, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(StorageError, match="make room"):
            log.rotate()
    assert names(path) == ["audit-000001.log"]
    log.append("runs", plan="after")
    assert parse(log.lines(LINES, 5)[0])["plan"] == "after"
    again = opened(path)
    assert names(path) == ["audit-000001.log", "audit-000001.seal", "audit.log"]
    assert again.head == log.head


def test_pages_are_bounded_in_bytes(path):
    log = opened(path)
    for _ in range(20):
        log.append("runs", plan="x" * 1000)
    assert len(log.lines(0, most_bytes=5000)) in (3, 4)
    assert len(log.lines(3, most_bytes=10)) == 1
    pages, start = 0, 0
    while page := log.lines(start, most_bytes=5000):
        start, pages = start + len(page), pages + 1
    assert (start, pages >= 5) == (20, True)


def test_those_who_have_verified_go_on_from_there(path, tmp_path):
    log = written(path, LINES + 20)
    noted = Verified.beside(tmp_path / "aud.key")
    assert noted.head(CERTIFICATE) == Head()
    noted.remember({CERTIFICATE: log.head, "another": Head(3, "a" * 64)})
    known = Verified.beside(tmp_path / "aud.key").head(CERTIFICATE)
    assert known == log.head
    log.append("runs", plan="new")

    def new():
        return lines_after(known, log_lines(path, CERTIFICATE, known.lines - 1), where="the log")

    assert [parse(line)["plan"] for line in new()] == ["new"]
    assert check_lines(new(), CERTIFICATE, where="it", since=known) == log.head
    assert check_lines(log_lines(path), CERTIFICATE, where="it", known=known) == log.head
    # A node that has made another log, with its own key, and as long a one.
    for one in path.parent.glob("audit*.*"):
        if one.suffix in (".log", ".seal"):
            one.unlink()
    written(path, LINES + 30)
    with pytest.raises(ConsentError, match="had 150 lines when it was verified last, and the last of those"):
        list(new())
    with pytest.raises(ConsentError, match="had 150 lines when it was verified last"):
        check_lines(log_lines(path), CERTIFICATE, where="it", known=known)
    noted.path.write_text("[]")
    with pytest.raises(ConfigError, match="remove it, and verify them"):
        noted.head(CERTIFICATE)


def bytes_read(function):
    """What a call gives, and the bytes that this process has read meanwhile, from files and wherever."""
    io = Path("/proc/self/io")

    def read():
        return int(io.read_text().split()[1])

    if not io.exists():
        pytest.skip("this system does not count what is read")
    read()
    before = read()
    found = function()
    return found, read() - before - len(io.read_text())


def costs_of_pages(path, lines):
    """Bytes that are read for a page near the beginning, in the middle and at the end."""
    log, least = opened(path), []
    for start in (100, lines // 2 + 30, lines - 300):
        page, read = bytes_read(lambda start=start: log.lines(start))
        assert [parse(line)["number"] for line in page] == list(range(start, start + 256))
        least.append(read / sum(len(line) for line in page))
    return least


def test_a_page_costs_the_same_anywhere(path):
    written(path, 20 * LINES)
    costs = costs_of_pages(path, 20 * LINES)
    assert max(costs) < 2


def unsigned(path, lines):
    """A log of many lines that nobody has signed, under seals as they should be."""
    head, before, number, segment = Head(), Head(), 1, 1 << 14
    while head.lines < lines:
        offsets, size = array("Q"), 0
        with segment_path(path, number).open("w") as file:
            for place in range(segment):
                if place % STRIDE == 0:
                    offsets.append(size)
                text = json.dumps({"before": head.digest, "number": head.lines})
                size += file.write(f"{text}\t{'0' * 128}\n")
                head = Head(head.lines + 1, digest_of(text))
        Seal(number, before, head, size, offsets).write(path, NODE)
        before, number = head, number + 1


@pytest.mark.scale
def test_a_page_costs_the_same_among_ten_million_lines(path):
    unsigned(path, 10_000_000)
    log, read = bytes_read(lambda: opened(path))
    assert log.head.lines >= 10_000_000
    size = sum(one.stat().st_size for one in path.parent.iterdir())
    assert read < size / 200  # a node that starts reads seals
    assert max(costs_of_pages(path, log.head.lines)) < 2
