"""Domains: what adds and multiplies, and the fixed-point code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import SchemaError
from tercet.protocols.domains import BITS, DOMAINS, Z64, decode, encode, packed_words

words = st.integers(0, 2**64 - 1)


@given(words, words)
def test_the_ring_wraps(a, b):
    x, y = np.array([a], np.uint64), np.array([b], np.uint64)
    assert int(Z64.add(x, y)[0]) == (a + b) % 2**64
    assert int(Z64.subtract(x, y)[0]) == (a - b) % 2**64
    assert int(Z64.multiply(x, y)[0]) == a * b % 2**64
    assert int(Z64.reduce_add(np.stack([x, y]), axis=0, dtype=np.uint64)[0]) == (a + b) % 2**64


@given(words, words)
def test_bits_are_a_field_each(a, b):
    x, y = np.array([a], np.uint64), np.array([b], np.uint64)
    assert int(BITS.add(x, y)[0]) == int(BITS.subtract(x, y)[0]) == a ^ b
    assert int(BITS.multiply(x, y)[0]) == a & b
    assert int(BITS.reduce_add(np.stack([x, y]), axis=0)[0]) == a ^ b


def test_domains_are_known_by_name():
    assert DOMAINS == {"Z64": Z64, "Bits": BITS}
    assert [repr(domain) for domain in DOMAINS.values()] == ["Z64", "Bits"]


@given(st.lists(st.floats(-(2.0**30), 2.0**30), max_size=20), st.integers(0, 32))
def test_the_code_is_within_half_a_unit(values, scale):
    x = np.array(values)
    code = encode(x, scale)
    assert code.dtype == np.uint64
    np.testing.assert_allclose(decode(code, scale), x, rtol=0, atol=2.0 ** -(scale + 1))


@given(st.integers(-(2**53), 2**53))
def test_whole_numbers_are_exact(value):
    assert decode(encode([float(value)], 0), 0)[0] == value


@pytest.mark.parametrize("value", [2.0**47, -(2.0**47), np.inf, -np.inf, np.nan])
def test_what_does_not_fit_is_named(value):
    with pytest.raises(SchemaError, match=f"{value} does not fit fixed point with 16 fractional bits"):
        encode([1.0, value], 16)


@pytest.mark.parametrize(("bits", "size"), [(0, 0), (1, 1), (63, 1), (64, 1), (65, 2), (1000, 16)])
def test_packed_words(bits, size):
    assert packed_words(bits) == size
