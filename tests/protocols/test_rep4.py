"""Four parties: what each holds, what is sent, how truncation rounds, and who is named when somebody lies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols import joint
from tercet.protocols.domains import BITS, Z64
from tercet.protocols.rep4 import Rep4
from tercet.testing import lockstep, parties, reconstruct, share

RNG = np.random.default_rng(4)
VALUES = RNG.integers(0, 2**64, 1000, dtype=np.uint64)


def run(session, operation, *shares, name="run", dealer=0):
    bound = [protocol.bind(name, dealer=dealer) for protocol in session]
    return lockstep([operation(p, *(one[p.party] for one in shares)) for p in bound])


@pytest.mark.parametrize("wrong", [{"party": 0, "parties": 3}, {"party": 4, "parties": 4}])
def test_it_takes_four(wrong):
    with pytest.raises(ProtocolError, match="runs among 4 parties"):
        Rep4(**wrong, keys={})


def test_a_component_is_unknown_to_one_party_and_known_to_three():
    session = parties(Rep4)
    shares = share(session, VALUES)
    components = {}
    for protocol, x in zip(session, shares, strict=True):
        held = protocol.components(x.data)
        assert sorted(held) == [c for c in range(4) if c != protocol.party]
        for component, words in held.items():
            assert np.array_equal(components.setdefault(component, words), words)
    assert np.array_equal(sum(components.values()), VALUES)


def test_every_pair_shares_what_it_knows_and_roles_turn():
    for dealer in range(4):
        roles = joint.pairs(dealer)
        assert {frozenset(pair[:2]) for pair in roles} == set(
            map(frozenset, itertools.combinations(range(4), 2))
        )
        assert all(sorted(pair) == [0, 1, 2, 3] for pair in roles)
        assert not {*roles[0][:2]} & {*roles[2][:2]}
    sent = [
        Rep4(party=0, parties=4, keys={}).bind("x", dealer=d).cost("mul", *_specs()).sent for d in range(4)
    ]
    assert {sum(one) for one in zip(*sent, strict=True)} == {6 * 800 + 6 * 16}


def _specs():
    protocol = Rep4(party=0, parties=4, keys={})
    return protocol.spec((100,)), protocol.spec((100,))


def test_nobody_can_draw_the_component_that_it_lacks():
    for protocol in parties(Rep4):
        with pytest.raises(KeyError):
            protocol.draw_without(protocol.party, "tag", "purpose")


@pytest.mark.parametrize("bits", [1, 7, 20, 33, 62])
def test_a_truncation_rounds_down_or_up_without_bias(bits):
    """The integer below, or the one above with the chance of what is cut off: of 200,000, 6 deviations.

    The chance of a false alarm is below 1e-8.
    """
    session, rows = parties(Rep4), 200_000
    x = RNG.integers(-(2**62) + 1, 2**62, rows)
    ran = run(session, lambda p, s: p.truncate(s, bits), share(session, x.view(np.uint64)))
    found = reconstruct(session, ran.results).view(np.int64)
    off = found - (x >> bits)
    assert set(off.tolist()) <= {0, 1}
    chance = (x & ((1 << bits) - 1)).astype(np.float64) / 2.0**bits
    spread = np.sqrt(np.sum(chance * (1 - chance)))
    assert abs(np.sum(off - chance)) <= 6 * spread + rows * 2.0**-bits


def test_what_is_whole_stays_whole_but_for_a_chance_that_the_bits_tell():
    session = parties(Rep4)
    x = (np.arange(-5000, 5000) << 20).view(np.uint64)
    ran = run(session, lambda p, s: p.truncate(s, 20), share(session, x))
    assert np.count_nonzero(reconstruct(session, ran.results).view(np.int64) != np.arange(-5000, 5000)) <= 2


def test_products_of_unlike_sharings_are_refused():
    session = parties(Rep4)
    words, bits = share(session, VALUES), share(session, VALUES, domain=BITS)
    with pytest.raises(ProtocolError, match="cannot be multiplied"):
        session[0].mul_local(words[0], bits[0])
    assert words[0].domain is Z64


@pytest.mark.parametrize("shapes", [((4, 7), (7, 3)), ((1, 9), (9, 2)), ((9, 1), (1, 1)), ((2, 3), (3, 50))])
def test_matrices_of_all_shapes(shapes):
    session = parties(Rep4)
    a, b = (RNG.integers(0, 2**64, shape, dtype=np.uint64) for shape in shapes)
    left, right = share(session, a), share(session, b)
    flipped = share(session, np.ascontiguousarray(b.T))
    product = run(session, lambda p, x, y: p.reduce(p.matmul_local(x, y)), left, right)
    over_rows = run(session, lambda p, x, y: p.reduce(p.dot_local(x, y)), left, flipped, name="dot")
    for ran in (product, over_rows):
        assert np.array_equal(reconstruct(session, ran.results), a @ b)


def test_reduce_leaves_the_product_as_it_was():
    """A plan may use a product twice."""
    session = parties(Rep4)
    x = share(session, VALUES)
    products = [p.mul_local(s, s) for p, s in zip(session, x, strict=True)]
    before = [product.data.copy() for product in products]
    for name in ("one", "two"):
        ran = run(session, lambda p, z: p.reduce(z), products, name=name)
        assert np.array_equal(reconstruct(session, ran.results), VALUES * VALUES)
    assert all(np.array_equal(a, b.data) for a, b in zip(before, products, strict=True))


@pytest.mark.parametrize("component", [0, 1, 2])
@pytest.mark.parametrize("liar", range(4))
def test_a_result_names_two_parties_of_whom_one_lies(liar, component):
    session = parties(Rep4)
    shares = share(session, VALUES)
    changed = shares[liar].data.copy()
    changed[component, 3] += np.uint64(1)
    shares[liar] = shares[liar].like(changed)
    with pytest.raises(ProtocolError, match=rf"party {liar} (and|disagree)"):
        reconstruct(session, shares)
