"""Masked-opening gates in the clear: what is dealt and combined gives the function, for every mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import ProtocolError
from tercet.protocols.domains import decode
from tercet.protocols.fourier import sigmoid, softplus_tail
from tercet.protocols.gates import BitsToRing, Fourier, Truncation

WORDS = st.integers(0, 2**64 - 1)


def pass_through(gate, x, mask, halves, count):
    """The sum of both parties' summands of f(x), for one mask and given halves of what is dealt of it."""
    masked = gate.domain.add(x, mask)
    second = halves.copy()
    gate.deal(mask, second)
    out = np.empty((2, gate.results, count), dtype=np.uint64)
    gate.combine(masked, halves, out[0], first=True)
    gate.combine(masked, second, out[1], first=False)
    return out[0] + out[1]


@settings(max_examples=200)
@given(
    st.integers(1, 62),
    st.lists(
        st.tuples(
            st.integers(-(2**62) + 1, 2**62 - 1),
            st.one_of(WORDS, st.sampled_from([0, 2**63, 2**64 - 1])),
            WORDS,
        ),
        min_size=1,
        max_size=20,
    ),
)
def test_truncation_is_the_floor_or_one_more_for_every_mask(bits, rows):
    kinds = (np.int64, np.uint64, np.uint64)
    x, mask, half = (
        np.array(column, dtype=kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)
    )
    halves = np.stack([half, half[::-1]])
    got = pass_through(Truncation(bits), x.view(np.uint64), mask, halves, len(rows))
    floors = np.array([value >> bits for value, _, _ in rows])
    assert np.isin(got[0].view(np.int64) - floors, [0, 1]).all()


@pytest.mark.parametrize("bits", [-1, 0, 63, 64])
def test_truncation_by_too_much_is_refused(bits):
    with pytest.raises(ProtocolError, match=f"a truncation by {bits} bits"):
        Truncation(bits)


@given(st.integers(1, 200), st.integers(0, 2**32))
def test_bits_become_zero_and_one(count, seed):
    rng = np.random.default_rng(seed)
    size = -(-count // 64)
    x, mask = rng.integers(0, 2**64, size=(2, size), dtype=np.uint64)
    halves = rng.integers(0, 2**64, size=(1, count), dtype=np.uint64)
    gate = BitsToRing()
    assert gate.opened(count) == size
    want = [int(x[i // 64]) >> (i % 64) & 1 for i in range(count)]
    np.testing.assert_array_equal(pass_through(gate, x, mask, halves, count)[0], want)


@pytest.mark.parametrize("scale", [8, 16, 30])
def test_fourier_is_the_series_for_every_mask(scale):
    rng = np.random.default_rng(scale)
    count, dealt_bits, coefficient_bits = 4000, 20, 14
    function = sigmoid(6.0, 1e-3)
    series = (function, function.derivative())
    gate = Fourier(series, scale=scale, dealt_bits=dealt_bits, coefficient_bits=coefficient_bits)
    x = rng.integers(-(6 << scale), 6 << scale, size=count).view(np.uint64)
    mask = rng.integers(0, 2**64, size=count, dtype=np.uint64)
    halves = rng.integers(0, 2**64, size=(gate.dealt, count), dtype=np.uint64)
    got = decode(pass_through(gate, x, mask, halves, count), dealt_bits + coefficient_bits)
    for values, one in zip(got, series, strict=True):
        np.testing.assert_allclose(values, one(decode(x, scale)), rtol=0, atol=1e-3)
    np.testing.assert_allclose(got[0], 1 / (1 + np.exp(-decode(x, scale))), rtol=0, atol=2e-3)


def test_a_period_outside_the_ring_is_refused():
    with pytest.raises(ProtocolError, match=r"a period of 2\^6[0-9] ring units"):
        Fourier([softplus_tail(6.0, 1e-2)], scale=62, dealt_bits=20, coefficient_bits=14)
