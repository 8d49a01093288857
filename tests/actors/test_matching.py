"""Matching: the same rows as in plain Python, whatever the parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.actors.matching import intersect, twice
from tercet.actors.scratch import Scratch


def lists_of(seed: int, sizes: list[int]) -> list[np.ndarray]:
    """Pseudonyms of which lists share some: distinct columns of two words, in random order."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 1 << 64, (2, 400), dtype=np.uint64)
    return [keys[:, rng.permutation(400)[:size]] for size in sizes]


@settings(deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 400), min_size=1, max_size=4),
    st.sampled_from([1, 7, 100, 1 << 20]),
)
def test_rows_that_all_lists_have_in_the_order_of_the_first(seed, sizes, part):
    lists = lists_of(seed, sizes)
    found = intersect(lists, part=part)
    columns = [[tuple(column) for column in one.T.tolist()] for one in lists]
    everywhere = set(columns[0]).intersection(*columns[1:])
    assert found[0].tolist() == [place for place, column in enumerate(columns[0]) if column in everywhere]
    for one, places in zip(columns, found, strict=True):
        assert [one[place] for place in places] == [columns[0][place] for place in found[0]]


@pytest.mark.parametrize("part", [5, 1 << 20])
def test_what_is_as_long_as_a_list_lies_in_the_scratch(tmp_path, part):
    lists = lists_of(3, [400, 300])
    found = intersect(lists, Scratch(tmp_path, above=0).empty, part=part)
    assert Scratch.holds(found)
    np.testing.assert_array_equal(found, intersect(lists))


@pytest.mark.parametrize("part", [5, 1 << 20])
@pytest.mark.parametrize("repeats", [0, 1, 399])
def test_columns_that_occur_twice_are_counted(repeats, part):
    (listed,) = lists_of(4, [400])
    listed[:, :repeats] = listed[:, 399:]
    assert twice(listed, part=part) == repeats


def test_a_list_of_one_and_the_same_takes_no_longer_than_another():
    """Looking for a free slot behind all that are alike would take the square of their number."""
    listed = np.full((2, 1 << 20), 7, dtype=np.uint64)
    assert twice(listed) == (1 << 20) - 1
