"""Building blocks on secret numbers equal numpy's, over the whole range that they promise."""

import math

import numpy as np
import pytest

from tercet.errors import PlanError
from tercet.ml import linalg


@pytest.mark.parametrize(
    ("count", "halved"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (569, 10), (1 << 20, 20)]
)
def test_halvings(count, halved):
    assert linalg.halvings(count) == halved


@pytest.mark.parametrize("count", [1, 3, 7, 64, 569, 1000])
@pytest.mark.parametrize("size", [1.0, 2.0**20])
def test_means(compute, count, size):
    x = np.random.default_rng(count).uniform(-size, size, (4, count))
    found = compute(lambda v: linalg.mean(v.sum(), count, scale=16), 16, x)
    # The factor of the count is rounded too: by 2^-21 of the mean.
    np.testing.assert_allclose(found, x.mean(axis=1), rtol=2.0**-19, atol=3 * 2.0**-16)


@pytest.mark.parametrize(("low", "high"), [(-20, 2), (-10, 2), (0, 2), (-3, 6)])
def test_reciprocals(compute, low, high):
    x = np.concatenate([2.0 ** np.linspace(low, high - 1e-6, 97), [2.0**low, 2.0 ** (high - 1)]])
    x = np.rint(x * 2**28) / 2**28
    found = compute(lambda v: linalg.reciprocal(v, low=low, high=high, scale=28), 28, x)
    np.testing.assert_allclose(found, 1 / x, rtol=1e-5, atol=2.0**-24 * 2.0**-low)


def test_the_reciprocal_of_nothing_is_nothing(compute):
    found = compute(lambda v: linalg.reciprocal(v, low=-10, high=2, scale=28), 28, [0.0, 2.0**-11, 1.0])
    np.testing.assert_allclose(found, [0, 0, 1], atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, math.sqrt(569 / 1024)])
@pytest.mark.parametrize(("low", "high"), [(-8, 1), (-8, 2), (-8, 5)])
def test_inverse_roots(compute, low, high, factor):
    x = 4.0 ** np.linspace(low, high - 1e-6, 113)
    x = np.rint(x * 2**28) / 2**28
    found = compute(lambda v: linalg.inverse_sqrt(v, low=low, high=high, scale=20, factor=factor), 28, x)
    np.testing.assert_allclose(found, factor / np.sqrt(x), rtol=4e-6, atol=2.0**-19)


def test_the_inverse_root_of_nothing_is_nothing(compute):
    found = compute(lambda v: linalg.inverse_sqrt(v, low=-8, high=1, scale=20), 28, [0.0, 4.0**-9, 1.0])
    np.testing.assert_allclose(found, [0, 0, 1], atol=1e-5)


@pytest.mark.parametrize("least", [0.5, 1e-2, 1e-4, 2.0**-20])
def test_factors_bring_every_eigenvalue_to_one(least):
    factors = linalg.schulz_factors(least)
    x = np.geomspace(least, 1, 10_000)
    for factor in factors:
        assert factor * 16 == int(factor * 16)
        x = factor * x * (2 - x)
        assert 0 < x.min() <= x.max() < 2
    assert np.abs(x - 1).max() < 0.05
    assert len(factors) <= math.log2(1 / least) / 2 + 5  # the plain iteration takes twice as many


def positive_definite(size, least, seed):
    """A matrix with eigenvalues from `least` to 1/4."""
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return rotation * np.geomspace(least, 0.25, size) @ rotation.T


@pytest.mark.parametrize("size", [2, 5, 31])
@pytest.mark.parametrize("least", [1e-2, 1e-4])
def test_inverses_from_the_identity(compute, size, least):
    matrix, vector = positive_definite(size, least, size), np.linspace(-0.01, 0.01, size)
    factors = linalg.schulz_factors(least * 3.9)

    def invert(h, g):
        start = linalg.scaled_identity(h, 3.9, scale=16)
        return linalg.refine_inverse(h, start, g, factors=[*factors, 1.0], bound=2.0**15, scale=16)

    inverse, solution = compute(invert, 24, matrix, vector)
    exact = np.linalg.inv(matrix)
    size_of = np.abs(exact).max()
    np.testing.assert_allclose(inverse, exact, atol=3e-3 * size_of)
    np.testing.assert_allclose(solution, exact @ vector, atol=3e-3 * size_of * 0.01)


@pytest.mark.parametrize("change", [0.3, 0.9, 1.0, 1.1, 2.0, 3.5])
def test_inverses_from_that_of_a_nearby_matrix(compute, change):
    """The matrix may have grown: by nearly four, the iteration still converges."""
    old = positive_definite(8, 1e-3, 1)
    noise = np.random.default_rng(2).normal(size=8)
    new = change * old if change != 0.9 else old + 2e-4 * np.outer(noise, noise)

    def invert(h, start, g):
        return linalg.refine_inverse(
            h, start.shifted(1).rescale(17), g, factors=linalg.WARM_FACTORS, bound=2.0**12, scale=16
        )

    inverse, solution = compute(invert, 24, new, np.linalg.inv(old), np.full(8, 0.01))
    error = np.linalg.eigvals(new @ inverse).real - 1
    assert np.abs(error).max() < (1e-3 if 0.9 <= change <= 1.1 else 0.2)
    np.testing.assert_allclose(solution, inverse @ np.full(8, 0.01), atol=1e-4)


def test_no_vector_of_unknown_length(plain):
    builder = plain.builder("lengths")
    words = [builder.random_words(2, 3).open("random words") for _ in range(2)]
    matched = builder.apply("match", *words, rows="both")
    found = builder.apply("take", builder.random_words(3), matched, table=0)
    with pytest.raises(PlanError, match="no known size"):
        linalg.length(found)


def test_logarithms_are_best_near_one(compute):
    x = np.concatenate([2.0 ** np.linspace(-19.5, 0, 60), 1 - 2.0 ** np.linspace(-14, -3, 12)])
    found = compute(lambda value: linalg.logarithm(value, low=-20, scale=26), 28, x)
    stored = np.rint(np.ldexp(x, 28)) / 2.0**28
    slack = 5e-6 * np.minimum(1 - stored, 0.2) + 2.0**-22 + 2.0**-25 / stored
    assert (np.abs(found - np.log(stored)) <= slack).all()


def test_tabulated_functions_are_lines_between_knots(compute):
    knots = np.linspace(-2, 3, 21)
    x = np.concatenate([np.linspace(-4, 5, 90), knots])
    found = compute(lambda value: linalg.tabulated(value, np.tanh, knots, scale=24), 20, x)
    stored = np.rint(np.ldexp(x, 20)) / 2.0**20
    np.testing.assert_allclose(found, np.interp(stored, knots, np.tanh(knots)), atol=1e-5)
