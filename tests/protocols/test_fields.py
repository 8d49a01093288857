"""The fields of Shamir's sharing, against Python's integers and the definition of the field of eight."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.protocols.gf8 import GF8
from tercet.protocols.mersenne import MERSENNE, PRIME
from tercet.protocols.prg import Stream

EDGES = [0, 1, 2, PRIME - 1, PRIME - 2, PRIME >> 1, (PRIME >> 1) + 1, 2**63, 2**64 - 1, 2**64, 2**126]
elements = st.lists(st.one_of(st.sampled_from(EDGES), st.integers(0, PRIME - 1)), min_size=1, max_size=40)
signed = st.integers(-(2**63), 2**63 - 1)


def limbs(values, *shape):
    flat = np.array([[v & 2**64 - 1 for v in values], [v >> 64 for v in values]], dtype=np.uint64)
    return flat.reshape(2, *shape) if shape else flat


def numbers(array):
    return [int(low) + (int(high) << 64) for low, high in zip(*array.reshape(2, -1), strict=True)]


@settings(deadline=None)
@given(elements, st.randoms())
def test_mersenne_arithmetic(x, random):
    y = [random.choice([*EDGES, random.randrange(PRIME)]) for _ in x]
    a, b = limbs(x), limbs(y)
    pairs = list(zip(x, y, strict=True))
    assert numbers(MERSENNE.add(a, b)) == [(u + v) % PRIME for u, v in pairs]
    assert numbers(MERSENNE.subtract(a, b)) == [(u - v) % PRIME for u, v in pairs]
    assert numbers(MERSENNE.multiply(a, b)) == [u * v % PRIME for u, v in pairs]
    assert numbers(MERSENNE.combine(x[:1] + y[:1], [a, b])) == [
        (x[0] * u + y[0] * v) % PRIME for u, v in pairs
    ]
    assert numbers(MERSENNE.cumulate(a)) == [s % PRIME for s in itertools.accumulate(x)]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 4), st.integers(0, 6), st.sampled_from([0, 1, 3, 1030]), st.randoms(use_true_random=False)
)
def test_mersenne_sums_of_products(m, k, n, random):
    def draw(count):
        return [random.choice([PRIME - 1, random.randrange(PRIME)]) for _ in range(count)]

    x, y = draw(m * k), draw(k * n)
    a, b = limbs(x, m, k), limbs(y, k, n)
    expected = [
        sum(x[i * k + t] * y[t * n + j] for t in range(k)) % PRIME for i in range(m) for j in range(n)
    ]
    assert numbers(MERSENNE.matmul(a, b)) == expected
    assert numbers(MERSENNE.dot(a, b.swapaxes(1, 2))) == expected
    assert numbers(MERSENNE.sum(a, 0)) == [sum(x[t::k]) % PRIME for t in range(k)]
    assert numbers(MERSENNE.sum(a, -1)) == [sum(x[i * k : (i + 1) * k]) % PRIME for i in range(m)]


def test_a_sum_of_many_largest_products_is_reduced_once_and_right():
    largest = np.broadcast_to(limbs([PRIME - 1], 1, 1), (2, 1, 100_000))
    assert numbers(MERSENNE.dot(largest, largest)) == [100_000]


@given(st.lists(signed, min_size=1), st.integers(1, 126))
def test_mersenne_stands_for_signed_integers_and_divides_by_powers_of_two(values, bits):
    words = np.array(values, dtype=np.int64).view(np.uint64)
    assert numbers(MERSENNE.encode(words)) == [v % PRIME for v in values]
    assert np.array_equal(MERSENNE.decode(MERSENNE.encode(words)), words)
    positive = [v % PRIME >> 1 for v in values]
    assert numbers(MERSENNE.shift(limbs(positive), bits)) == [(v + (1 << bits - 1)) >> bits for v in positive]


@given(st.integers(-(PRIME >> 1), PRIME >> 1))
def test_integers_beyond_64_bits_are_read_modulo_2_to_the_64(value):
    (word,) = MERSENNE.decode(limbs([value % PRIME]))
    assert int(word) == value % 2**64


def bits(planes):
    return [sum((int(plane[0]) >> i & 1) << place for place, plane in enumerate(planes)) for i in range(64)]


def test_gf8_is_a_field_and_bit_slices_agree_with_it():
    nonzero = range(1, 8)
    for a, b, c in itertools.product(range(8), repeat=3):
        assert GF8.times(a, GF8.times(b, c)) == GF8.times(GF8.times(a, b), c)
        assert GF8.times(a, b ^ c) == GF8.times(a, b) ^ GF8.times(a, c)
    assert all(GF8.times(a, GF8.inverse(a)) == 1 for a in nonzero)
    x, y = np.random.default_rng(1).integers(0, 2**64, size=(2, 3, 1), dtype=np.uint64)
    assert bits(GF8.multiply(x, y)) == [GF8.times(a, b) for a, b in zip(bits(x), bits(y), strict=True)]
    for w in range(8):
        expected = [GF8.times(w, a) ^ GF8.times(5, b) for a, b in zip(bits(x), bits(y), strict=True)]
        assert bits(GF8.combine([w, 5], [x, y])) == expected


@pytest.mark.parametrize("field", [MERSENNE, GF8])
def test_interpolation_finds_polynomials_of_any_degree(field):
    stream = Stream(bytes(32), b"interpolation")
    for degree in range(7):
        coefficients = [field.uniform(stream, (5,)) for _ in range(degree + 1)]

        def at(point, coefficients=coefficients):
            powers = [1]
            for _ in coefficients[1:]:
                powers.append(field.times(powers[-1], point))
            return field.combine(powers, coefficients)

        points = tuple(range(7 - degree, 8))
        for wanted in range(8):
            found = field.interpolate(points, [at(point) for point in points], at=wanted)
            assert np.array_equal(found, at(wanted))
