"""A soak that cannot fail shows nothing: each thing that it looks for is planted here, and found."""

from __future__ import annotations

import attrs
import pytest
import trio

from tercet.errors import ConsentError, PeerLost, ProtocolError
from tercet.members.audit import AuditLog
from tercet.members.keys import MemberKeys
from tercet.protocols import registry
from tercet.protocols.base import Protocol
from tercet.testing.lockstep import parties
from tercet.transports import make_identity
from tests.soak import streams
from tests.soak.record import BOUND_S, Record, Watch, WrongResultError
from tests.soak.vitals import MOST_NEW_BYTES, MOST_NEW_FILES, Vitals, excess
from tests.soak.witness import Sent, Witness
from tests.soak.workers import NAMED
from tests.soak.world import OWNERS, World

LOST = PeerLost("party 1 is gone", peer="party 1")


async def ends_with(error):
    await trio.lowlevel.checkpoint()
    if error is not None:
        raise error


async def never_ends():
    await trio.sleep_forever()


async def call(record, awaitable):
    """One call in a session of its own; whether a new connection may mend what it ended with."""
    watch = Watch(record, "ann")
    with watch.session():
        await watch.call("join", awaitable)
    return watch.lost


@pytest.mark.parametrize("error", [None, LOST, ConsentError("the owner refuses")])
async def test_what_may_happen(error):
    record = Record()
    assert await call(record, ends_with(error)) == (error is not None)
    assert record.complaints == []
    assert record.outcomes["join"] == {type(error).__name__ if error else "right": 1}


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (ProtocolError("digests differ"), "ann, join: ProtocolError: digests differ"),
        (ZeroDivisionError("one by nothing"), "failed in an unforeseen way"),
    ],
)
async def test_errors_that_no_fault_explains(error, complaint):
    record = Record()
    await call(record, ends_with(error))
    assert complaint in record.complaints[0]


async def test_a_node_that_is_lost_in_the_calm():
    record = Record(calm=True)
    await call(record, ends_with(LOST))
    assert "party 1 is gone" in record.complaints[0]


async def test_a_call_without_end(autojump_clock):
    record = Record()
    assert not await call(record, never_ends())
    assert trio.current_time() == pytest.approx(BOUND_S)
    assert "did not end" in record.complaints[0]
    assert record.outcomes["join"] == {"HANG": 1}


async def test_a_wrong_result():
    record = Record()
    watch = Watch(record, "ann")
    with watch.session():
        await watch.call("join", ends_with(None))
        watch.refute("model", "49 rows where pandas has 50")
    assert "49 rows" in record.complaints[0]
    assert record.outcomes["join"]["WRONG"] == 1
    with pytest.raises(WrongResultError, match="nobody has uploaded"):
        World().rows_of("hospital-free", 300)


# -- audit logs ----------------------------------------------------------------------------------------------

KEYS = MemberKeys(make_identity("n0"))
ASKS = next(name for name, owner in OWNERS.items() if owner == "hospital" and name.endswith("-asks"))
RUN = {"session": "ab", "caller": "ann", "plan": "total", "digest": "cd", "reveals": ["sum (1) to analyst"]}


def complaints(tmp_path, lines, *, told=("ab",), signed=(("hospital", "ab"),)):
    log = AuditLog(tmp_path / "audit.log", KEYS)
    for event, facts in lines:
        log.append(event, **facts)
    asked = {"ab": Sent("ann", "cd", ["sum (1) to analyst"])}
    witness = Witness(asked, set(told), set(signed))
    return list(witness.complaints("n0", log.path, KEYS.identity.certificate_pem, OWNERS))


APPROVED = ("approved", {"session": "ab", "caller": "hospital"})
RAN = ("runs", RUN | {"reads": [ASKS]})


def test_an_audit_log_that_is_right(tmp_path):
    assert complaints(tmp_path, [APPROVED, RAN]) == []


@pytest.mark.parametrize(
    ("lines", "others", "complaint"),
    [
        ([APPROVED], {}, "was told a result of ab, which it never ran"),
        ([RAN], {}, "ran without the signature of hospital"),
        ([RAN, APPROVED], {}, "ran without the signature of hospital"),
        ([APPROVED, RAN], {"signed": ()}, "has signed no such approval"),
        ([APPROVED, RAN, ("runs", RUN | {"session": "ef", "reads": []})], {}, "what was sent is None"),
        ([APPROVED, ("runs", RAN[1] | {"reveals": ["age (9) to ben"]})], {}, "reveals ['age (9) to ben']"),
        ([APPROVED, ("runs", RAN[1] | {"digest": "00"})], {}, "what was sent is Sent"),
        ([APPROVED, ("runs", RAN[1] | {"caller": "ben"})], {}, "of ben reveals"),
    ],
)
def test_audit_logs_that_are_wrong(tmp_path, lines, others, complaint):
    assert any(complaint in one for one in complaints(tmp_path, lines, **others))


def test_an_audit_log_that_was_changed(tmp_path):
    complaints(tmp_path, [APPROVED, RAN])
    file = tmp_path / "audit.log"
    file.write_text(file.read_text().replace("total", "totals"))
    witness = Witness()
    (found,) = witness.complaints("n0", file, KEYS.identity.certificate_pem, OWNERS)
    assert "was not signed by this node" in found


# -- what nodes hold -----------------------------------------------------------------------------------------

USUAL = Vitals(pid=7, files=20, threads=4, resident=200 << 20, values=0, clients=0, runs=0)


@pytest.mark.parametrize(
    ("last", "complaint"),
    [
        ({}, None),
        ({"files": 20 + MOST_NEW_FILES + 1}, f"n1 has {21 + MOST_NEW_FILES} files open"),
        ({"resident": (200 << 20) + MOST_NEW_BYTES + 1}, "n1 has grown"),
        ({"pid": 8}, "not the same process"),
    ],
)
def test_what_nodes_hold_too_much_of(last, complaint):
    before = [USUAL] * 3
    found = list(excess([before, before, [USUAL, attrs.evolve(USUAL, **last), USUAL]]))
    assert [complaint in one for one in found] == ([] if complaint is None else [True])


def test_streams_that_are_drawn_twice(tmp_path, monkeypatch):
    """In whatever processes; what works out costs draws no masks."""
    monkeypatch.setenv(streams.DIRECTORY, str(tmp_path))
    monkeypatch.setattr(Protocol, "stream", Protocol.stream)
    streams.log_streams()
    key, party = bytes([1] * 32), parties(registry.get("replicated"))[0]
    for drawn in [(key, "3.0", "mask"), (key, "3.1", "mask"), (streams.NO_SESSION, "3.0", "mask")]:
        party.stream(*drawn)
    assert set(streams.drawn(tmp_path).values()) == {1}
    (tmp_path / "0.log").write_text(next(tmp_path.iterdir()).read_text())
    assert [*streams.drawn(tmp_path).values()] == [2, 2]


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("worker 1 of party 0 is lost: it was silent for 4 s", True),
        ("the workers of party 2 are started anew, with those of another party; try again", True),
        ("party 1 is without its workers: they are being started anew; try again in a moment", True),
        ("party 1 failed in an unforeseen way (KeyError: 3); its log has the traceback", False),
        ("the workers did not start", False),
    ],
)
def test_whether_a_sentence_names_workers(said, named):
    assert bool(NAMED.search(said)) == named
