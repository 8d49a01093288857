"""Shamir's protocol: truncation and its bias, exact comparisons, checked openings, and what t parties see."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from tercet.errors import ProtocolError
from tercet.protocols.bitplanes import unpack_bits
from tercet.protocols.domains import Z64, decode, encode
from tercet.protocols.fourier import sigmoid, union
from tercet.protocols.gf8 import GF8
from tercet.protocols.mersenne import MERSENNE
from tercet.protocols.prg import Stream
from tercet.protocols.shamir import Shamir
from tercet.protocols.shamir_sharing import field_of
from tercet.testing.lockstep import lockstep, parties, reconstruct, share
from tercet.testing.operations import OPERATIONS, extremes, zeros

SIZES = (3, 5, 7)
FALSE_ALARM = 1e-9
ROWS = 2048


def run(n, operation, *columns, dealer=0, openings=0, domain=Z64, record=True):
    """The values of the results of `operation(protocol, *shares)` run between n parties."""
    session = parties(Shamir, n)
    shares = zip(*(share(session, column, domain=domain) for column in columns), strict=True)
    bound = [p.bind("operation", dealer=dealer, openings=openings) for p in session]
    results = lockstep([operation(p, *s) for p, s in zip(bound, shares, strict=True)], record=record).results
    return reconstruct(session, results)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("bits", [1, 16, 61])
def test_truncation_errs_by_less_than_its_bound_and_has_no_bias(n, product, bits):
    rng = np.random.default_rng(bits)
    x = rng.integers(-(2**62) + 1, 2**62, size=1 << 15) >> rng.integers(0, 30, size=1 << 15)
    x[:4] = [2**62 - 1, -(2**62) + 1, 0, -1]
    one = np.ones(x.size, dtype=np.uint64)
    got = run(
        n,
        lambda p, x, one: p.truncate(p.mul_local(x, one) if product else x, bits),
        x.view(np.uint64),
        one,
        record=False,
    ).view(np.int64)
    error = (got - (x >> bits)) - (x & (1 << bits) - 1) / 2.0**bits
    degree = n // 2
    assert np.abs(error).max() < 1 + degree / 2
    # A sum of t + 2 roundings of at most half a unit: its mean is within 6.2 standard errors of its
    # expectation, which is not quite zero because halves are rounded up.
    assert abs(error.mean() + degree * 2.0 ** -(bits + 1)) < 6.2 * np.sqrt((degree + 2) / 4 / x.size)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("dealt", "coefficient"), [(14, 12), (21, 17), (24, 24)])
def test_series_are_as_exact_as_fixed_point_allows(n, dealt, coefficient):
    """Also where coefficients are so fine that they are taken in digits."""
    series = (sigmoid(8.0, 1e-3), sigmoid(8.0, 1e-3).derivative())
    x = np.linspace(-12, 12, 301)
    words = encode(x, 16)

    def operation(p, x):
        x = x.like(x.data, scale=16)
        made = yield from p.fourier(x, series, dealt_bits=dealt, coefficient_bits=coefficient)
        return made[0].like(np.stack([one.data for one in made], axis=1))

    got = decode(run(n, operation, words), dealt + coefficient)
    for values, one, error in zip(got, series, union(*series).rounding(dealt, coefficient), strict=True):
        assert np.abs(values - one(decode(words, 16))).max() <= error + 10 * 2.0 ** -(dealt + coefficient)


def test_series_too_fine_to_hide_are_refused():
    with pytest.raises(ProtocolError, match="more than masks of 125 bits hide among 3 parties"):
        run(
            3,
            lambda p, x: p.fourier(x, (sigmoid(8.0, 1e-3),), dealt_bits=34, coefficient_bits=30),
            np.zeros(1, dtype=np.uint64),
        )


@pytest.mark.parametrize("n", SIZES)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_comparisons_are_exact_at_every_width(n, data):
    bits = data.draw(st.integers(2, 64))
    top = 2 ** (bits - 1)
    edge = st.sampled_from([0, 1, -1, top - 1, 1 - top])
    values = data.draw(st.lists(st.one_of(edge, st.integers(1 - top, top - 1)), min_size=1, max_size=70))
    x = np.array(values, dtype=np.int64)
    negative = run(n, lambda p, x: p.is_negative(x, bits), x.view(np.uint64))
    assert np.array_equal(unpack_bits(negative, x.size), x < 0)
    zero = run(n, lambda p, x: p.is_zero(x), x.view(np.uint64))
    assert np.array_equal(unpack_bits(zero, x.size), x == 0)


@pytest.mark.parametrize("n", SIZES)
def test_what_follows_on_a_sum_beyond_64_bits_is_exact(n):
    """A product may pass through integers of 100 bits and come back, as wrapping words may in a ring."""
    a = np.array([2**61, -(2**61), 2**60 + 5], dtype=np.int64).view(np.uint64)
    b = np.array([2**40, 2**40, 3], dtype=np.int64).view(np.uint64)
    got = run(n, lambda p, a, b: p.truncate(p.subtract(p.mul_local(a, b), p.mul_local(a, b)), 4), a, b)
    assert np.abs(got.view(np.int64)).max() <= 2
    product = run(n, lambda p, a, b: p.mul(a, b), a, b)
    assert np.array_equal(product, a * b)


@pytest.mark.parametrize("n", SIZES)
def test_every_party_shuffles_and_no_row_is_lost(n):
    x = np.arange(500, dtype=np.uint64)
    orders = [run(n, lambda p, x: single(p.shuffle([x])), x) for _ in range(2)]
    assert all(np.array_equal(np.sort(order), x) for order in orders)
    assert not np.array_equal(*orders)
    session = parties(Shamir, n)
    hops = session[0]._hops
    assert all(
        any(not corrupt & set(hop) for hop in hops)
        for corrupt in map(set, itertools.combinations(range(n), session[0].degree))
    ), "any t parties miss one of the permutations"


def single(operation):
    (result,) = yield from operation
    return result


def test_a_share_that_was_changed_is_caught_by_every_party():
    for party in range(5):
        session = parties(Shamir, 5)
        shares = share(session, np.arange(9, dtype=np.uint64))
        data = shares[party].data.copy()
        data[1, 3] += np.uint64(1)
        shares[party] = shares[party].like(data)
        bound = [p.bind("opening", openings=9) for p in session]
        with pytest.raises(ProtocolError, match="does not fit"):
            lockstep([p.open(x) for p, x in zip(bound, shares, strict=True)])
        with pytest.raises(ProtocolError, match="does not fit"):
            reconstruct(session, shares)


def test_a_session_needs_an_odd_number_of_parties_and_all_keys():
    with pytest.raises(ProtocolError, match="runs among 3, 5, 7 parties, not party 0 of 4"):
        Shamir(party=0, parties=4, keys={})
    with pytest.raises(ProtocolError, match="no session key with party 2"):
        Shamir(party=0, parties=3, keys={1: bytes(32)})


# -- secrecy: what t parties see together ----------------------------------------------------------------


class Watched(Shamir):
    """Notes what is announced, and this party's masks."""

    announced: list
    masks: list

    def announce(self, tag, speakers, x, mask):
        total = yield from super().announce(tag, speakers, x, mask)
        self.announced.append(total)
        return total

    def _mask(self, tag, shape):
        mask = super()._mask(tag, shape)
        self.masks.append(mask)
        return mask


def require_uniform(what, elements):
    """Chi-square of every byte of an array of field elements."""
    words = np.ascontiguousarray(np.moveaxis(elements, 0, -1)).reshape(-1, elements.shape[0])
    octets = words.view(np.uint8).reshape(len(words), -1)
    for place in range(octets.shape[1]):
        values = 128 if elements.shape[0] == MERSENNE.limbs and place == 15 else 256
        counts = np.bincount(octets[:, place], minlength=256)
        assert not counts[values:].any(), what
        expected = len(octets) / values
        statistic = float(np.sum((counts[:values] - expected) ** 2) / expected)
        assert chi2.sf(statistic, values - 1) > FALSE_ALARM, f"{what}: byte {place}"


def require_alike(what, one, two):
    """Two samples of one distribution of words: chi-square between their top bytes in eight-bit bins."""
    for shift in (0, 8, 32, 48, 54):
        counts = [
            np.bincount((words >> np.uint64(shift) & np.uint64(255)).astype(int), minlength=256)
            for words in (one, two)
        ]
        total = counts[0] + counts[1]
        statistic = float(np.sum((counts[0] - counts[1]) ** 2 / np.maximum(total, 1)))
        degrees = max(1, np.count_nonzero(total) - 1)
        assert chi2.sf(statistic, degrees) > FALSE_ALARM, (
            f"{what}: bits {shift} to {shift + 7} of the upper word"
        )


def views(protocol, n, operation, values, coalition, dealer, names=("one",)):
    """For each run on the same shares: what a coalition receives, its results, and what was announced."""
    session = parties(protocol, n)
    secrets = operation.inputs(values, ROWS)
    columns = [share(session, one.words, domain=one.domain, scale=one.scale) for one in secrets]
    shares = [[column[party] for column in columns] for party in range(n)]
    found = []
    for name in names:
        bound = [p.bind(name, dealer=dealer) for p in session]
        for p in bound:
            p.announced, p.masks = [], []
        ran = lockstep([operation.run(p, s) for p, s in zip(bound, shares, strict=True)])
        received = {
            (party, m.round, m.sender, number): m.words
            for party in coalition
            for number, m in enumerate(ran.transcript[party])
            if m.sender not in coalition and m.words.shape[0] in (2, 3) and m.words.size >= 1024
        }
        results = [[ran.results[party][i] for party in coalition] for i in range(len(ran.results[0]))]
        hidden = []
        for k, total in enumerate(bound[0].announced):
            if total.shape[0] == MERSENNE.limbs and k < len(bound[0].masks):
                for party in coalition:
                    mask = bound[party].masks[k]
                    total = total if mask is None else MERSENNE.subtract(total, mask)
                hidden.append(total)
        found.append((received, results, hidden))
    return found


def require_secret(protocol, n, operation, coalition, dealer):
    """Whatever the inputs, what a coalition sees is uniform, fresh in every run, and independent of them."""
    rng = np.random.default_rng(7)
    points = tuple(party + 1 for party in coalition)
    seen = {}
    for values in (zeros, extremes):
        first, second = views(protocol, n, operation, values, coalition, dealer, names=("one", "two"))
        received, results, hidden = first
        seen[values] = hidden
        for key, words in received.items():
            require_uniform(f"message {key}", words)
            field = MERSENNE if words.shape[0] == MERSENNE.limbs else GF8
            require_uniform(f"message {key} in two runs", field.subtract(words, second[0][key]))
        alike = [
            p for p in itertools.combinations(received, 2) if received[p[0]].shape == received[p[1]].shape
        ]
        for index in rng.permutation(len(alike))[:12]:
            pair = [received[key] for key in alike[index]]
            field = MERSENNE if pair[0].shape[0] == MERSENNE.limbs else GF8
            # Two values of one polynomial, as if its degree were less.
            weights = (
                field.weights(tuple(key[0] + 1 for key in alike[index]))
                if alike[index][0][0] != alike[index][1][0]
                else (1, 5)
            )
            require_uniform(f"messages {alike[index]} together", field.combine(weights, pair))
        for shares in results:
            field = field_of(shares[0].domain)
            if shares[0].size >= 1024:
                together = field.interpolate(points, [one.data for one in shares])
                require_uniform("the coalition's shares of the result", together)
        for k, total in enumerate(hidden):
            require_uniform(f"opening {k}, its low word", total[:1])
            fresh = MERSENNE.subtract(total, second[2][k])[:1]
            require_uniform(f"opening {k} in two runs, its low word", fresh)
    for k, (one, two) in enumerate(zip(seen[zeros], seen[extremes], strict=True)):
        require_alike(f"opening {k} of zeros and of large numbers", one[1].reshape(-1), two[1].reshape(-1))


TALKING = [
    one
    for one in OPERATIONS
    if not one.discloses and not one.name.startswith(("add", "reveal")) and one.is_fixed(1000)
]


@pytest.mark.parametrize("operation", TALKING, ids=lambda one: one.name)
@pytest.mark.parametrize(
    ("n", "coalition", "dealer"),
    [(3, (0,), 0), (3, (2,), 0), (5, (0, 1), 0), (5, (1, 4), 3)],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_t_parties_together_learn_nothing(operation, n, coalition, dealer):
    require_secret(Watched, n, operation, coalition, dealer)


class WithoutZeroSharing(Watched):
    def stream(self, key, tag, purpose):
        return Stream(bytes(32), b"zero") if purpose == "zero" else super().stream(key, tag, purpose)


class WithShortMasks(Watched):
    @property
    def _mask_bits(self):
        return 64


class WithOneDealer(Watched):
    @property
    def dealers(self):
        return (self.dealer, *super().dealers[1:])

    def _mask(self, tag, shape):
        mask = super()._mask(tag, shape)
        return mask if mask is None or self.party == self.dealer else np.zeros_like(mask)


class WithMasksOfAnotherRun(Watched):
    def own_stream(self, tag, purpose):
        return Stream(self._own_key, purpose.encode())


@pytest.mark.parametrize(
    ("defect", "coalition", "complaint"),
    [
        (WithoutZeroSharing, (2,), "message .* in two runs"),
        (WithShortMasks, (2,), "opening 0 of zeros and of large numbers"),
        (WithOneDealer, (0,), "opening 0, its low word"),
        (WithMasksOfAnotherRun, (2,), "opening 0 in two runs, its low word"),
    ],
)
def test_a_defect_is_caught(defect, coalition, complaint):
    truncate = next(one for one in OPERATIONS if one.name == "mul and truncate")
    with pytest.raises(AssertionError, match=complaint):
        require_secret(defect, 3, truncate, coalition, 0)
