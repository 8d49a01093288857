"""The share interface: operations that share rounds, names of streams, costs, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import ProtocolError
from tercet.protocols.base import Cost, Round, Share, align, gather
from tercet.protocols.domains import BITS, Z64
from tercet.protocols.plain import Plain
from tercet.protocols.prg import session_key
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import lockstep, parties, reconstruct, share


def talk(party, rounds, base):
    """Two parties exchange `rounds` arrays, each of another length; returns what the peer said."""
    heard = []
    for step in range(rounds):
        words = np.full(step + 1, base + 10 * step + party, dtype=np.uint64)
        got = yield Round(send={1 - party: [words]}, recv={1 - party: [(step + 1,)]})
        heard.append(int(got[1 - party][0][0]))
    return heard


def test_gather_takes_as_many_rounds_as_the_longest():
    run = lockstep(
        [gather(talk(p, 1, 100), gather(talk(p, 3, 200), talk(p, 0, 0)), talk(p, 2, 300)) for p in range(2)]
    )
    assert run.rounds == 3
    assert run.results[0] == [[101], [[201, 211, 221], []], [301, 311]]
    assert run.results[1] == [[100], [[200, 210, 220], []], [300, 310]]
    assert run.sent == (80, 80)


def test_gather_of_nothing_takes_no_round():
    assert lockstep([gather(), gather()]).rounds == 0


def test_costs_in_sequence_and_side_by_side():
    a, b = Cost(2, (1, 2)), Cost(3, (10, 20))
    assert a + b == Cost(5, (11, 22))
    assert a | b == Cost(3, (11, 22))
    assert (a + b).total == 33


names = st.text(alphabet="a1/:", min_size=1, max_size=6)


@given(names, names, st.integers(1, 12), st.integers(1, 12), st.sampled_from(["a", "1", "1/a", "deal"]))
def test_no_two_streams_share_a_name(one, two, m, n, purpose):
    tags = []
    for operation, drawn in ((one, m), (two, n)):
        protocol = Plain(party=0, parties=1, keys={}).bind(operation)
        tags.append([protocol.tag() for _ in range(drawn)][-1])
    others = [f"{tags[1]}/{other}" for other in ("a", "1", "1/a", "deal")]
    assert (f"{tags[0]}/{purpose}" in others) == ((one, m) == (two, n))


def test_an_operation_is_bound_once_also_through_its_parts():
    protocol = parties(Replicated)[0]
    bound = protocol.bind("a")
    with pytest.raises(ProtocolError, match="'a' was started twice"):
        bound.bind("a")
    assert len({bound.part(dealer=i).tag() for i in range(4)}) == 4
    assert [bound.part(dealer=i).dealer for i in range(4)] == [0, 1, 2, 0]


def test_a_session_key_hangs_on_every_part():
    keys = {
        session_key(bytes(32), b"a", {0: b"b", 1: b"c"}),
        session_key(bytes(32), b"ab", {0: b"", 1: b"c"}),
        session_key(bytes(32), b"a", {0: b"b/c"}),
        session_key(bytes(32), b"a", {0: b"c", 1: b"b"}),
        session_key(bytes(32), b"a", {0: b"b", 2: b"c"}),
        session_key(bytes(31) + b"1", b"a", {0: b"b", 1: b"c"}),
    }
    assert len(keys) == 6
    assert session_key(bytes(32), b"a", {1: b"c", 0: b"b"}) in keys


def test_ranks_are_aligned_behind_the_components():
    x, y = Share(Z64, np.zeros((2, 3), np.uint64)), Share(Z64, np.zeros((2, 4, 3), np.uint64))
    assert [data.shape for data in align(x, y)] == [(2, 1, 3), (2, 4, 3)]


def test_a_public_matrix_times_a_secret_column():
    protocol = parties(Replicated)[0]
    x = Share(Z64, np.arange(6, dtype=np.uint64).reshape(2, 3))
    y = protocol.mul_public(x, np.array([[1, 1, 1], [2, 2, 2]], dtype=np.uint64), scale=4)
    np.testing.assert_array_equal(y.data[1], [[3, 4, 5], [6, 8, 10]])
    assert (y.shape, y.scale) == ((2, 3), 4)


def test_unlike_sharings_do_not_add():
    protocol = parties(Replicated)[0]
    x = protocol.constant(np.ones(3, dtype=np.uint64), scale=4)
    with pytest.raises(ProtocolError, match=r"scale 4.*scale 5"):
        protocol.add(x, protocol.constant(np.ones(3, dtype=np.uint64), scale=5))
    with pytest.raises(ProtocolError, match="Bits"):
        protocol.subtract(x, protocol.constant(np.ones(3, dtype=np.uint64), scale=4, domain=BITS))
    with pytest.raises(ProtocolError, match=r"scale 4.*scale 8"):
        protocol.add(x, protocol.mul_local(x, x))


@pytest.mark.parametrize("cls", [Plain, Replicated])
def test_a_full_sharing_joins_a_product_before_its_round(cls):
    session = parties(cls)
    x = np.arange(5, dtype=np.uint64)
    shares = share(session, x)
    bound = [p.bind("joined") for p in session]
    joined = [
        p.subtract(p.add(p.mul_local(s, s), s), p.mul_local(s, s)) for p, s in zip(bound, shares, strict=True)
    ]
    run = lockstep([p.reduce(y) for p, y in zip(bound, joined, strict=True)])
    np.testing.assert_array_equal(reconstruct(session, run.results), x)


def test_an_undeclared_cost_is_an_error():
    with pytest.raises(ProtocolError, match="declares no cost for 'bind'"):
        parties(Replicated)[0].cost("bind")


# -- comparing -----------------------------------------------------------------------------------------------


def comparing(held, name="compare"):
    session = [one.bind(name) for one in parties(Replicated, seed=b"compare")]
    return [one.compare(known) for one, known in zip(session, held, strict=True)]


def by_pair(words):
    """What each party shares with each of the others."""
    return [{b: words[min(a, b), max(a, b)] for b in range(3) if b != a} for a in range(3)]


FIVE, NONE, SCALAR = np.arange(5, dtype=np.uint64), np.zeros((2, 0), np.uint64), np.ones((), np.uint64)
PAIRS = by_pair({(0, 1): FIVE, (0, 2): NONE, (1, 2): SCALAR})


def test_a_comparison_sends_a_digest_to_each_peer_new_each_time():
    one, two = (lockstep(comparing(PAIRS, name)) for name in ("one", "two"))
    cost = parties(Replicated)[0].cost("compare", PAIRS[0])
    assert (one.rounds, one.sent) == (cost.rounds, cost.sent) == (1, (64, 64, 64))
    said = [message.words.tobytes() for ran in (one, two) for heard in ran.transcript for message in heard]
    assert len(said) == len(set(said)) == 12


@pytest.mark.parametrize(("party", "peer"), [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])
def test_a_comparison_names_who_differs(party, peer):
    held = [dict(known) for known in PAIRS]
    held[party][peer] = held[party][peer] + np.uint64(1) if held[party][peer].size else np.ones(1, np.uint64)
    with pytest.raises(ProtocolError, match=f"party {min(party, peer)} and party {max(party, peer)} hold"):
        lockstep(comparing(held))


def test_a_peer_that_sends_a_digest_back_is_noticed():
    """It knows none of the words, so it says what it has heard."""
    honest, *_ = comparing(PAIRS)
    said = next(honest).send
    with pytest.raises(ProtocolError, match="party 0 and party 1 hold different"):
        honest.send(said)
