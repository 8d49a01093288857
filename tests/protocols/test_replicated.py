"""Replicated sharing: truncation never fails big, comparisons are exact, openings are checked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import PrivacyError, ProtocolError
from tercet.protocols.base import Product, gather
from tercet.protocols.bitplanes import unpack_bits
from tercet.protocols.domains import BITS, Z64, decode, encode
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import lockstep, parties, reconstruct, share


def run(operation, *columns, dealer=0, openings=0, domain=Z64, scale=0, record=True):
    """The values of the results of `operation(protocol, *shares)` run between three parties."""
    session = parties(Replicated)
    shares = zip(*(share(session, column, domain=domain, scale=scale) for column in columns), strict=True)
    bound = [p.bind("operation", dealer=dealer, openings=openings) for p in session]
    results = lockstep([operation(p, *s) for p, s in zip(bound, shares, strict=True)], record=record).results
    return reconstruct(session, results)


@pytest.mark.cases("1", "20", "61")  # hypothesis tries all widths, on fewer products
@pytest.mark.parametrize("bits", [1, 13, 16, 20, 40, 61])
def test_truncation_of_ten_million_products_is_within_one_unit(bits):
    rng = np.random.default_rng(bits)
    million = 1 << 20
    for chunk in range(10):
        spread = rng.integers(0, 30, size=(2, million))
        a, b = rng.integers(-(2**31) + 1, 2**31, size=(2, million)) >> spread
        a[:6] = [2**62 - 1, -(2**62) + 1, 0, 1, -1, 2**61]
        b[:6] = [1, 1, 1, 1, 1, -1]
        got = run(
            lambda p, x, y: p.truncate(p.mul_local(x, y), bits),
            a.view(np.uint64),
            b.view(np.uint64),
            dealer=chunk,
            record=False,
        ).view(np.int64)
        above_floor = got - ((a * b) >> bits)
        assert above_floor.min() >= 0
        assert above_floor.max() <= 1


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("bits", [1, 16, 62])
def test_truncation_at_the_extremes(bits, product):
    edge = [0, 1, -1, 2**bits, -(2**bits), 2**bits - 1, 2**62 - 1, -(2**62) + 1]
    x = np.array([value for value in edge if abs(value) < 2**62] * 500, dtype=np.int64)
    one = np.ones(x.size, dtype=np.uint64)
    got = run(
        lambda p, x, one: p.truncate(p.mul_local(x, one) if product else x, bits), x.view(np.uint64), one
    ).view(np.int64)
    assert set(np.unique(got - (x >> bits))) <= {0, 1}


@settings(max_examples=40, deadline=None)
@given(
    st.data(),
    st.integers(1, 62),
    st.sampled_from([(), (3,), (2, 5), (2, 1, 3), (0,), (4, 0)]),
    st.integers(0, 2),
)
def test_truncation_of_any_shape(data, bits, shape, dealer):
    size = int(np.prod(shape, dtype=int))
    values = data.draw(st.lists(st.integers(-(2**62) + 1, 2**62 - 1), min_size=size, max_size=size))
    x = np.array(values, dtype=np.int64).reshape(shape)
    got = run(lambda p, x: p.truncate(x, bits), x.view(np.uint64), dealer=dealer).view(np.int64)
    assert got.shape == shape
    assert np.isin(got - (x >> bits), [0, 1]).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1000, 1000), min_size=1, max_size=70),
    st.integers(8, 20),
    st.integers(8, 20),
    st.integers(0, 2),
)
def test_fixed_point_products_at_any_scale(values, one_scale, other_scale, dealer):
    x, y = np.array(values), np.array(values[::-1])
    session = parties(Replicated)
    xs, ys = (
        share(session, encode(x, one_scale), scale=one_scale),
        share(session, encode(y, other_scale), scale=other_scale),
    )
    bound = [p.bind("product", dealer=dealer) for p in session]
    results = lockstep(
        [p.truncate(p.mul_local(a, b), other_scale) for p, a, b in zip(bound, xs, ys, strict=True)]
    ).results
    assert results[0].scale == one_scale
    got = decode(reconstruct(session, results), one_scale)
    rounding = 1000 * (2.0**-one_scale + 2.0**-other_scale) + 2.0**-one_scale
    np.testing.assert_allclose(got, x * y, rtol=0, atol=rounding)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(
        [((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (2, 4)), ((), (5,)), ((0,), (0,))]
    ),
    st.sampled_from([Z64, BITS]),
    st.integers(0, 2**32),
)
def test_products_broadcast(shapes, domain, seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, 2**64, size=shape, dtype=np.uint64) for shape in shapes)
    got = run(lambda p, x, y: p.mul(x, y), x, y, domain=domain)
    np.testing.assert_array_equal(got, domain.multiply(x, y))
    linear = run(lambda p, x, y: gather_one(p.subtract(p.add(x, y), y)), x, y, domain=domain)
    np.testing.assert_array_equal(linear, domain.subtract(domain.add(x, y), y))


def gather_one(share):
    yield from ()
    return share


def _edges(bits):
    around = {s * 2**k + d for k in range(bits) for s in (-1, 1) for d in (-1, 0, 1)} | {0}
    return np.array(sorted(v for v in around if abs(v) < 2 ** (bits - 1)), dtype=np.int64)


@pytest.mark.parametrize("bits", range(2, 65))
def test_signs_are_exact_at_the_edges_of_every_width(bits):
    x = _edges(bits)
    x = np.append(x, -(2**63)) if bits == 64 else x
    packed = run(lambda p, x: p.is_negative(x, bits), x.view(np.uint64), dealer=bits)
    np.testing.assert_array_equal(unpack_bits(packed, x.size), x < 0)


@pytest.mark.parametrize("dealer", range(3))
def test_zero_is_recognised_among_the_edges(dealer):
    x = np.append(np.repeat(_edges(64), 3), [0, 0, 0, -(2**63)])
    packed = run(lambda p, x: p.is_zero(x), x.view(np.uint64), dealer=dealer)
    np.testing.assert_array_equal(unpack_bits(packed, x.size), x == 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62 - 1), min_size=0, max_size=130), st.integers(0, 2))
def test_comparisons_of_any_numbers(values, dealer):
    x = np.array(values, dtype=np.int64)
    y = x[::-1].copy()
    less, equal = (
        run(lambda p, x, y, f=f: f(p, p.subtract(x, y)), x.view(np.uint64), y.view(np.uint64), dealer=dealer)
        for f in (lambda p, d: p.is_negative(d), lambda p, d: p.is_zero(d))
    )
    np.testing.assert_array_equal(unpack_bits(less, x.size), x < y)
    np.testing.assert_array_equal(unpack_bits(equal, x.size), x == y)


def test_shuffles_of_all_orders_occur():
    x = np.arange(3, dtype=np.uint64)
    seen = {tuple(shuffled(x, seed)) for seed in range(120)}
    assert len(seen) == 6  # a false alarm has a chance of 6 * (5/6)^120 < 2e-9, and the keys are fixed


@pytest.mark.parametrize("dealer", range(3))
def test_every_party_misses_one_of_the_permutations_of_a_shuffle(dealer, monkeypatch):
    drawn = [set(), set(), set()]
    stream = Replicated.stream

    def noted(self, key, tag, purpose):
        assert (key, tag, purpose) not in drawn[self.party], "a stream was drawn twice"
        drawn[self.party].add((key, tag, purpose))
        return stream(self, key, tag, purpose)

    monkeypatch.setattr(Replicated, "stream", noted)
    session = parties(Replicated)
    bound = [p.bind("shuffle", dealer=dealer) for p in session]
    lockstep(
        [p.shuffle([s]) for p, s in zip(bound, share(session, np.arange(9, dtype=np.uint64)), strict=True)]
    )
    orders = [{one for one in names if one[2] == "permutation"} for names in drawn]
    assert len(set.union(*orders)) == 3
    assert len(set.intersection(*orders)) == 0
    assert [len(known) for known in orders] == [2, 2, 2]


def shuffled(x, seed):
    session = parties(Replicated, seed=str(seed).encode())
    bound = [p.bind("shuffle") for p in session]
    results = lockstep([p.shuffle([s]) for p, s in zip(bound, share(session, x), strict=True)]).results
    return reconstruct(session, [columns[0] for columns in results]).tolist()


def test_columns_of_several_ranks_move_together():
    session = parties(Replicated)
    one, many = np.arange(100, dtype=np.uint64), np.arange(600, dtype=np.uint64).reshape(2, 3, 100)
    shares = zip(share(session, one), share(session, many, domain=BITS), strict=True)
    bound = [p.bind("shuffle") for p in session]
    results = lockstep([p.shuffle(list(s)) for p, s in zip(bound, shares, strict=True)]).results
    order, moved = (reconstruct(session, [columns[i] for columns in results]) for i in range(2))
    np.testing.assert_array_equal(moved, many[..., order.astype(np.int64)])


def test_openings_are_counted_and_checked():
    session = parties(Replicated)
    shares = share(session, np.arange(5, dtype=np.uint64))
    bound = [p.bind("allowed", openings=7) for p in session]
    result = lockstep([p.open(x) for p, x in zip(bound, shares, strict=True)])
    for words in result.results:
        np.testing.assert_array_equal(words, np.arange(5))
    with pytest.raises(PrivacyError, match="tried to open 5 words, of which its plan declares 2"):
        bound[0].open(shares[0])
    shares[1].data[0, 2] += np.uint64(1)
    tampered = [p.bind("tampered", openings=5) for p in session]
    with pytest.raises(ProtocolError, match="'tampered' failed its cross-check"):
        lockstep([p.open(x) for p, x in zip(tampered, shares, strict=True)])
    with pytest.raises(ProtocolError, match="party 1 and party 0 disagree on component 1"):
        reconstruct(session, shares)


def test_a_product_is_never_opened_nor_multiplied():
    protocol = parties(Replicated)[0].bind("product", openings=10)
    x = protocol.constant(np.ones(3, dtype=np.uint64))
    product = protocol.mul_local(x, x)
    assert isinstance(product, Product)
    with pytest.raises(ProtocolError, match="cannot be opened"):
        protocol.open(product)
    with pytest.raises(ProtocolError, match="full sharings"):
        protocol.mul_local(product, x)
    with pytest.raises(ProtocolError, match="full sharings"):
        next(protocol.is_negative(product))
    with pytest.raises(ProtocolError, match="full sharings"):
        next(protocol.shuffle([x, product]))
    with pytest.raises(ProtocolError, match="multiplied by one in Bits"):
        protocol.mul_local(x, protocol.constant(np.ones(3, dtype=np.uint64), domain=BITS))


def test_operations_side_by_side_share_rounds():
    x = np.arange(-50, 50).view(np.uint64) << np.uint64(20)
    session = parties(Replicated)
    shares = zip(share(session, x), share(session, x), strict=True)
    bound = [p.bind("both") for p in session]
    run = lockstep(
        [
            gather(p.truncate(a, 20), p.is_negative(b), p.shuffle([a]))
            for p, (a, b) in zip(bound, shares, strict=True)
        ]
    )
    assert run.rounds == 6
    cost = bound[0].cost("truncate", bound[0].spec((100,)), 20) | bound[0].cost(
        "is_negative", bound[0].spec((100,))
    )
    assert run.sent == (cost | bound[0].cost("shuffle", [bound[0].spec((100,))])).sent
    truncated = reconstruct(session, [results[0] for results in run.results]).view(np.int64)
    assert np.isin(truncated - np.arange(-50, 50), [0, 1]).all()


@pytest.mark.parametrize("wrong", [{"party": 0, "parties": 4}, {"party": 3, "parties": 3}])
def test_only_three_parties(wrong):
    with pytest.raises(ProtocolError, match="runs among 3 parties"):
        Replicated(**wrong, keys={})


def test_a_missing_key_is_named():
    with pytest.raises(ProtocolError, match="party 0 has no session key with party 2"):
        Replicated(party=0, parties=3, keys={1: bytes(32)})


@pytest.mark.parametrize("bits", [0, 63])
def test_truncation_by_too_much_is_refused(bits):
    protocol = parties(Replicated)[0].bind("x")
    with pytest.raises(ProtocolError, match="truncation by"):
        next(protocol.truncate(protocol.constant(np.zeros(3, dtype=np.uint64)), bits))
