"""Rows are ordered by secret words exactly, and what is opened does not tell which of them are equal."""

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols.bitplanes import unpack_bits
from tercet.protocols.domains import BITS
from tercet.protocols.plain import Plain
from tercet.protocols.ranking import openings
from tercet.protocols.rep4 import Rep4
from tercet.protocols.replicated import Replicated
from tercet.protocols.shamir import Shamir
from tercet.protocols.word_order import NEAR, sort_by_words, zero_words, zero_words_cost
from tercet.testing.lockstep import lockstep, parties, reconstruct, share

PROTOCOLS = [Plain, Replicated, Shamir, Rep4]


def words_of(rows, seed, *, distinct):
    """Random pairs of words, of which so many are different."""
    generator = np.random.default_rng(seed)
    pool = generator.integers(0, 1 << 64, (2, distinct), dtype=np.uint64)
    return pool[:, generator.integers(0, distinct, rows)]


def sorted_rows(cls, words, columns, name="sort", first=None):
    session = parties(cls)
    bound = [p.bind(name, openings=openings(words.shape[1])) for p in session]
    shares = [share(session, words, domain=BITS), share(session, columns)]
    each = zip(bound, *shares, strict=True)
    found = lockstep([sort_by_words(p, [x, y], first) for p, x, y in each], record=False).results
    return [reconstruct(session, [one[place] for one in found]) for place in range(2)]


@pytest.mark.parametrize("cls", PROTOCOLS)
@pytest.mark.parametrize(("rows", "distinct"), [(1, 1), (70, 20), (70, 70)])
def test_equal_words_become_neighbours_and_stay_in_order(cls, rows, distinct):
    words = words_of(rows, rows, distinct=distinct)
    found, numbers = sorted_rows(cls, words, np.arange(rows, dtype=np.uint64))
    order = np.lexsort(words)
    np.testing.assert_array_equal(found, words[:, order])
    np.testing.assert_array_equal(numbers.astype(np.int64), order)


def sides(rows, matching, seed, *, alike=0):
    """Words of two sides of so many rows each, so many of which have the same; some pairs agree in much."""
    pool = np.random.default_rng(seed).integers(0, 1 << 64, (2, 2 * rows - matching), dtype=np.uint64)
    pool[1, 1 : 2 * alike : 2] = pool[1, : 2 * alike : 2]  # the upper word, in which order shows
    return np.concatenate([pool[:, :rows], pool[:, rows - matching :]], axis=1)


@pytest.mark.parametrize("cls", PROTOCOLS)
@pytest.mark.parametrize(
    ("rows", "matching", "alike"), [(0, 0, 0), (1, 1, 0), (40, 25, 0), (40, 40, 20), (40, 0, 20)]
)
def test_two_rows_of_a_word_are_near_each_other(cls, rows, matching, alike):
    """Also where two words agree in all bits that rows are ordered by; the first side comes first."""
    words = sides(rows, matching, rows + matching, alike=alike)
    found, numbers = sorted_rows(cls, words, np.arange(2 * rows, dtype=np.uint64), first=rows)
    numbers = numbers.astype(np.int64)
    assert sorted(numbers) == list(range(2 * rows))
    np.testing.assert_array_equal(found, words[:, numbers])
    assert list(found[1]) == sorted(words[1])
    places = {number: place for place, number in enumerate(numbers)}
    apart = [places[rows + k] - places[rows - matching + k] for k in range(matching)]
    assert all(1 <= distance <= NEAR for distance in apart)
    assert not alike or not matching or max(apart) > 1


@pytest.mark.parametrize("cls", PROTOCOLS)
@pytest.mark.parametrize("rows", [1, 64, 130])
def test_where_words_are_zero(cls, rows):
    words = words_of(rows, 1, distinct=3)
    words[:, ::3] = 0
    words[0, 1::3] = 0
    session = parties(cls)
    bound = [p.bind("zero") for p in session]
    shares = share(session, words, domain=BITS)
    run = lockstep([zero_words(p, x) for p, x in zip(bound, shares, strict=True)])
    found = reconstruct(session, run.results)
    np.testing.assert_array_equal(unpack_bits(found, rows), (words == 0).all(axis=0))
    assert run.rounds == zero_words_cost(session[0], shares[0]).rounds


def test_other_values_are_refused():
    [protocol] = parties(Plain)
    with pytest.raises(ProtocolError, match="2 shared words each"):
        next(sort_by_words(protocol, [protocol.constant(np.zeros((2, 5), dtype=np.uint64))]))


@pytest.mark.parametrize("side", [None, 6])
@pytest.mark.parametrize("matching", [0, 3, 6])
def test_what_is_opened_does_not_tell_how_many_rows_match(matching, side, monkeypatch):
    """All comparisons of two lists of 6 rows: as many inversions as of a random order.

    Their mean over 1,000 sorts is within 5.3 standard errors: a false alarm has a chance of 1.2e-7 for each
    of three numbers of matches and two ways to tell rows of a word apart. If these were told apart by their
    places after the shuffle, 6 matches would be off by 13.
    """
    first = []
    opened = Plain.open

    def noting(self, x):
        words = yield from opened(self, x)
        first.append(words)
        return words

    monkeypatch.setattr(Plain, "open", noting)
    inversions, rows = [], 12
    pairs = rows * (rows - 1) // 2
    for seed in range(1000):
        listed = np.random.default_rng(seed).integers(0, 1 << 64, (2, rows - matching), dtype=np.uint64)
        words = np.concatenate([listed[:, :6], listed[:, 6 - matching :]], axis=1)
        first.clear()
        sorted_rows(Plain, words, np.arange(rows, dtype=np.uint64), f"sort {seed}", side)
        inversions.append(unpack_bits(first[0], pairs).sum())
    error = np.sqrt(rows * (rows - 1) * (2 * rows + 5) / 72 / len(inversions))
    assert abs(np.mean(inversions) - pairs / 2) < 5.3 * error
