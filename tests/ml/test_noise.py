"""Noise in counts is binomial, and as private as it says."""

import numpy as np
import pytest
from scipy.stats import binom, chi2

from tercet.ml.noise import COINS, DELTA, EPSILON
from tercet.plans.types import NODES

pytestmark = pytest.mark.filterwarnings("ignore::tercet.errors.FewMatchesWarning")
RUNS = 24


@pytest.fixture(scope="module")
def tables(plain):
    """Of six rows each: three keys of the first are in the second, and three of the third above 2."""
    ids = {"one": np.arange(6), "other": np.arange(6) + 3, "many": np.array([1, 2, 2, 3, 4, 4])}
    return {
        name: plain.upload(
            {"id": keys, name: keys * 1.5}, name=name, key="id", owner=name, unique=name != "many"
        )
        for name, keys in ids.items()
    }


def joined(tables):
    """A join, once more, and how many rows match."""
    return tables["one"].join(tables["other"], on="id", sizes="noisy"), 3


def grouped(tables):
    """Groups, once more, and how many there are of rows that count."""
    many = tables["many"]
    return many.filter(many["many"] > 2).groupby("id").to_table({"many": "max"}, sizes="noisy"), 3


@pytest.mark.parametrize("made", [joined, grouped])
def test_noise_is_binomial(tables, made):
    """What is told, less the true number, over 24 runs: a false alarm has a chance of 1e-6 at most.

    The sum is binomial too, of as many coins as all runs have: within the quantiles 1e-7. So are the least
    and the largest, within those of 1e-7 for all of them together. Squares of what they are off, over the
    variance, add up to chi-squared, whose tails are longer: within the quantiles 1e-7.
    """
    lake, noise, chance = tables["one"].lake, [], 1e-7
    for _ in range(RUNS):
        lake.disclosed.clear()
        table, true = made(tables)
        noise.append(len(table) - true)
        told = [one.what for one in lake.disclosed if one.to == NODES and one.what.startswith("the number")]
        assert len(told) == 1
        assert told[0].endswith("with noise of 512 coins (epsilon 0.5, delta 1e-09)")
    found = np.array(noise)
    each = chance / RUNS
    assert binom.ppf(chance, COINS * RUNS, 0.5) <= found.sum() <= binom.isf(chance, COINS * RUNS, 0.5)
    assert binom.ppf(each, COINS, 0.5) <= found.min() <= found.max() <= binom.isf(each, COINS, 0.5)
    squares = ((found - COINS / 2) ** 2).sum() / (COINS / 4)
    assert chi2.ppf(chance, RUNS) <= squares <= chi2.isf(chance, RUNS)


def test_noise_is_as_private_as_it_says():
    """Whatever is told, one row more or less changes its chance by no more than epsilon, but for delta."""
    counts = np.arange(-1, COINS + 2)
    one, other = binom.pmf(counts, COINS, 0.5), binom.pmf(counts - 1, COINS, 0.5)
    for p, q in ((one, other), (other, one)):
        assert np.maximum(p - np.exp(EPSILON) * q, 0).sum() <= DELTA
