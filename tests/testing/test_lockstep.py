"""The lockstep driver notices every way in which parties can fall out of step."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols.base import Round
from tercet.protocols.domains import BITS
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import lockstep, parties, reconstruct, share

WORDS = np.arange(3, dtype=np.uint64)


def say(*rounds):
    """A party that plays given rounds and returns all it heard."""
    heard = []
    for one in rounds:
        got = yield one
        heard += [got]
    return heard


def test_what_is_sent_arrives_and_is_counted():
    run = lockstep(
        [say(Round(send={1: [WORDS, WORDS[:1]]}), Round()), say(Round(recv={0: [(3,), (1,)]}), Round())]
    )
    assert (run.rounds, run.sent) == (2, (32, 0))
    np.testing.assert_array_equal(run.results[1][0][0][0], WORDS)
    np.testing.assert_array_equal(run.received(1), [0, 1, 2, 0])
    assert [(m.round, m.sender, m.words.size) for m in run.transcript[1]] == [(0, 0, 3), (0, 0, 1)]
    with pytest.raises(ValueError, match="read-only"):
        run.results[1][0][0][0][0] = 1


def test_a_measurement_keeps_no_transcript():
    run = lockstep([say(Round(send={1: [WORDS]})), say(Round(recv={0: [(3,)]}))], record=False)
    assert (run.sent, run.transcript) == ((24, 0), [[], []])


@pytest.mark.parametrize(
    ("one", "two", "complaint"),
    [
        (
            [Round(send={1: [WORDS]})],
            [Round(recv={0: [(4,)]})],
            r"round 0 party 1 expects \[\(4,\)\] from party 0",
        ),
        ([Round(send={1: [WORDS]})], [Round()], r"party 1 expects \[\] from party 0, but gets \[\(3,\)\]"),
        ([Round()], [Round(recv={0: [(3,)]})], r"but gets \[\]"),
        ([Round()], [Round(), Round()], r"parties \[0\] finished after 1 rounds"),
        ([Round(send={0: [WORDS]})], [Round()], "party 0 sends to party 0"),
        ([Round(send={2: [WORDS]})], [Round()], "party 0 sends to party 2"),
        (
            [Round(send={1: [WORDS.astype(np.int64)]})],
            [Round(recv={0: [(3,)]})],
            "party 0 sends int64 to party 1",
        ),
    ],
)
def test_falling_out_of_step(one, two, complaint):
    with pytest.raises(ProtocolError, match=complaint):
        lockstep([say(*one), say(*two)])


def test_overwriting_what_was_sent_is_caught():
    def careless():
        words = WORDS.copy()
        yield Round(send={1: [words]})
        words += np.uint64(1)

    with pytest.raises(ProtocolError, match="party 0 overwrote an array that it sent in round 0"):
        lockstep([careless(), say(Round(recv={0: [(3,)]}))])


def test_errors_of_operations_pass_through():
    def broken():
        yield Round()
        raise ProtocolError("on purpose")

    with pytest.raises(ProtocolError, match="on purpose"):
        lockstep([broken(), say(Round(), Round())])


def test_sessions_with_a_seed_repeat_and_pairs_agree():
    one, two, other = (parties(Replicated, seed=seed) for seed in (b"a", b"a", b"b"))
    assert [p.keys for p in one] == [p.keys for p in two] != [p.keys for p in other]
    assert parties(Replicated)[0].keys != parties(Replicated)[0].keys
    for a in range(3):
        for b in range(3):
            assert a == b or one[a].keys[b] == one[b].keys[a]


@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3)])
def test_share_and_reconstruct(shape):
    words = np.random.default_rng(0).integers(0, 2**64, size=shape, dtype=np.uint64)
    session = parties(Replicated)
    shares = share(session, words, domain=BITS, scale=3)
    assert {(x.shape, x.domain, x.scale) for x in shares} == {(shape, BITS, 3)}
    np.testing.assert_array_equal(reconstruct(session, shares), words)
