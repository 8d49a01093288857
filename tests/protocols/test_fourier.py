"""Series against the functions they stand for, and the gate's two kernels against the series."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.protocols import fourier
from tercet.protocols.harmonics import combine_harmonics, deal_harmonics

SIZES = st.sampled_from([0, 1, 63, 64, 65, 511, 512, 513, 1500])
HARMONICS = st.lists(st.integers(1, 127), max_size=12, unique=True).map(sorted)


def words(rng, *shape):
    return rng.integers(0, 2**64, size=shape, dtype=np.uint64)


def sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


# ------------------------------------------------------------------------------------------------- series


@pytest.mark.parametrize(
    ("bound", "error", "period_log2", "most"),
    [(8, 4e-5, 5, 8), (24, 3e-4, 6, 12), (24, 1e-4, 6, 15), (56, 2e-4, 7, 25), (12, 1e-4, 5, 11)],
)
def test_sigmoid_is_as_near_as_it_says(bound, error, period_log2, most):
    series = fourier.sigmoid(bound, error)
    assert (series.period_log2, series.low, series.bound) == (period_log2, -bound, bound)
    assert len(series.harmonics) <= most
    assert series.coefficient_sum <= fourier.COEFFICIENT_SUM
    x = np.linspace(-bound, bound, 54_321)
    worst = np.abs(series(x) - sigmoid(x)).max()
    assert worst <= 1.01 * series.error
    assert series.error <= error


@pytest.mark.parametrize(("bound", "error", "most"), [(8, 1e-5, 5), (24, 1e-5, 11), (56, 1e-4, 21)])
def test_softplus_tail_is_as_near_as_it_says(bound, error, most):
    series = fourier.softplus_tail(bound, error)
    assert len(series.harmonics) <= most
    assert series.coefficient_sum <= fourier.COEFFICIENT_SUM
    a = np.linspace(0, bound, 54_321)
    assert np.abs(series(a) - np.log1p(np.exp(-a))).max() <= 1.01 * series.error
    assert series.error <= error


def test_derivative_belongs_to_the_series_and_slope_to_the_function():
    series = fourier.sigmoid(24, 3e-4)
    derivative, slope = series.derivative(), fourier.slope(series)
    x = np.linspace(-24, 24, 4_001)
    step = 1e-5
    np.testing.assert_allclose(derivative(x), (series(x + step) - series(x - step)) / (2 * step), atol=1e-8)
    exact = sigmoid(x) * sigmoid(-x)
    assert np.abs(slope(x) - exact).max() <= 1.01 * slope.error
    assert slope.error <= derivative.error <= 1e-3
    assert slope.harmonics == derivative.harmonics == series.harmonics
    assert np.abs(fourier.softplus_tail(8, 1e-5).derivative()(np.array([0.0])) + 0.5).max() < 1e-3


def test_coefficients_are_short_numbers():
    series = fourier.sigmoid(8, 4e-5)
    scaled = np.array(series.sin) / fourier.COEFFICIENT_QUANTUM
    np.testing.assert_array_equal(scaled, np.rint(scaled))
    assert series == fourier.sigmoid(8, 4e-5)


def test_an_unknown_function_has_no_known_error():
    series = fourier.Series("unknown", 5, (1,), (1.0,), (0.0,), 0.0, -8.0, 8.0)
    assert series.error == math.inf
    assert series(0.0) == 1.0


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="64 harmonics"):
        fourier.sigmoid(2000, 1e-3)
    with pytest.raises(ValueError, match="bound -1"):
        fourier.sigmoid(-1, 1e-3)


def test_union_puts_weights_where_they_belong():
    one = fourier.Series("one", 5, (1, 3), (0.0, 0.5), (0.25, 0.0), 0.5, -8.0, 8.0)
    two = fourier.Series("two", 5, (2, 3), (0.125, 0.0), (0.0, -0.5), -1.0, -8.0, 8.0)
    both = fourier.union(one, two)
    assert both.harmonics == (1, 2, 3)
    assert both.dealt == 6
    cosine, sine = both.weights()
    np.testing.assert_array_equal(cosine, [[0, 0, 0.5], [0, 0.125, 0]])
    np.testing.assert_array_equal(sine, [[0.25, 0, 0], [0, 0, -0.5]])
    assert both.constants(10).tolist() == [512, 2**64 - 1024]
    with pytest.raises(ValueError, match=r"\[32, 64\]"):
        fourier.union(one, fourier.Series("three", 6, (1,), (0.0,), (1.0,), 0.0, -8.0, 8.0))


# ------------------------------------------------------------------------------------------------- kernels


@settings(deadline=None)
@given(st.integers(0, 2**32), SIZES, st.integers(1, 64), HARMONICS, st.integers(0, 30))
def test_dealt_harmonics_are_rounded_cosines_and_sines(seed, n, period_bits, harmonics, dealt_bits):
    rng = np.random.default_rng(seed)
    r, half = words(rng, n), words(rng, 2 * len(harmonics), n)
    other = half.copy()
    assert deal_harmonics(r, period_bits, harmonics, dealt_bits, other) is other
    dealt = (half + other).view(np.int64).astype(np.float64)
    for i, k in enumerate(harmonics):
        # The angle is reduced in integers, so that the reference is as exact as the kernel claims to be.
        turn = np.array([int(word) * k % 2**period_bits / 2**period_bits for word in r])
        assert np.all(np.abs(dealt[2 * i] - 2.0**dealt_bits * np.cos(2 * np.pi * turn)) <= 0.51)
        assert np.all(np.abs(dealt[2 * i + 1] - 2.0**dealt_bits * np.sin(2 * np.pi * turn)) <= 0.51)


@settings(deadline=None)
@given(st.integers(0, 2**32), SIZES, st.integers(16, 40), st.integers(16, 24), st.integers(10, 20))
def test_gate_evaluates_sigmoid_and_slope_of_a_masked_value(seed, n, scale, dealt_bits, coefficient_bits):
    rng = np.random.default_rng(seed)
    series = fourier.sigmoid(8, 4e-5)
    functions = fourier.union(series, fourier.slope(series))
    x = rng.uniform(-8, 8, n)
    code = np.rint(x * 2.0**scale).astype(np.int64)
    r = words(rng, n)
    c = code.view(np.uint64) + r
    first = words(rng, functions.dealt, n)
    period_bits = scale + functions.period_log2
    second = deal_harmonics(r, period_bits, functions.harmonics, dealt_bits, first.copy())
    cosine, sine = functions.weights()
    constants = functions.constants(dealt_bits + coefficient_bits)
    at_a = combine_harmonics(
        c, first, period_bits, functions.harmonics, cosine, sine, coefficient_bits, constants
    )
    at_b = combine_harmonics(
        c, second, period_bits, functions.harmonics, cosine, sine, coefficient_bits, constants * np.uint64(0)
    )
    result = (at_a + at_b).view(np.int64) / 2.0 ** (dealt_bits + coefficient_bits)
    value = code / 2.0**scale
    exact = (sigmoid(value), sigmoid(value) * sigmoid(-value))
    rounding = functions.rounding(dealt_bits, coefficient_bits)
    for f, one in enumerate(functions.series):
        assert np.all(np.abs(result[f] - one(value)) <= rounding[f])
        assert np.all(np.abs(result[f] - exact[f]) <= 1.01 * one.error + rounding[f])


def test_gate_skips_what_a_function_does_not_use():
    rng = np.random.default_rng(3)
    odd = fourier.Series("odd", 5, (1, 3), (0.0, 0.5), (0.25, 0.0), 0.5, -8.0, 8.0)
    gap = fourier.Series("gap", 5, (2, 9), (0.125, 0.25), (0.0, -0.5), -1.0, -8.0, 8.0)
    functions = fourier.union(odd, gap)
    x = np.linspace(-8, 8, 1_000)
    code = np.rint(x * 2**20).astype(np.int64)
    r, first = words(rng, x.size), words(rng, functions.dealt, x.size)
    second = deal_harmonics(r, 25, functions.harmonics, 24, first.copy())
    c, zero = code.view(np.uint64) + r, np.zeros(2, dtype=np.uint64)
    weights = functions.weights()
    out = np.empty((2, x.size), dtype=np.uint64)
    total = combine_harmonics(c, first, 25, functions.harmonics, *weights, 20, functions.constants(44), out)
    assert total is out
    total += combine_harmonics(c, second, 25, functions.harmonics, *weights, 20, zero)
    decoded = total.view(np.int64) / 2.0**44
    for f, one in enumerate(functions.series):
        np.testing.assert_allclose(decoded[f], one(code / 2**20), atol=functions.rounding(24, 20)[f])


def test_coefficients_do_not_depend_on_where_in_a_block_an_element_is():
    # Two parties may cut their tiles alike, yet vector and remainder loops must agree to the last bit.
    rng = np.random.default_rng(5)
    c, shares = words(rng, 1_000), words(rng, 6, 1_000)
    weights = np.array([[0.3, -0.2, 0.1]])
    zero = np.zeros(1, dtype=np.uint64)
    whole = combine_harmonics(c, shares, 40, [1, 3, 5], weights, weights, 20, zero)
    for start, stop in ((0, 1), (3, 10), (500, 531), (999, 1000)):
        part = np.ascontiguousarray(shares[:, start:stop])
        alone = combine_harmonics(c[start:stop], part, 40, [1, 3, 5], weights, weights, 20, zero)
        np.testing.assert_array_equal(alone, whole[:, start:stop])


def test_kernels_refuse_what_they_cannot_do():
    r, out = np.zeros(4, dtype=np.uint64), np.zeros((2, 4), dtype=np.uint64)
    one, zero = np.ones((1, 1)), np.zeros(1, dtype=np.uint64)
    with pytest.raises(ValueError, match="positive and increasing"):
        deal_harmonics(r, 20, [0], 20, out)
    with pytest.raises(ValueError, match="2\\^65"):
        deal_harmonics(r, 65, [1], 20, out)
    with pytest.raises(ValueError, match="41 fractional bits"):
        deal_harmonics(r, 20, [1], 41, out)
    with pytest.raises(ValueError, match="out has shape"):
        deal_harmonics(r, 20, [1, 2], 20, out)
    with pytest.raises(ValueError, match="exceed 31 bits"):
        combine_harmonics(r, out, 20, [1], one, one, 31, zero)
    with pytest.raises(ValueError, match="do not fit"):
        combine_harmonics(r, out, 20, [1, 2], one, one, 10, zero)
