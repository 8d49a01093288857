"""Matching: the same rows as in plain Python, whatever the parts."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.actors.scratch import Scratch
from tercet.plans.matching import Matches, first_places, hash_columns, new_key


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
    found = Matches.of(lists, part=part).everywhere()
    columns = [[tuple(column) for column in one.T.tolist()] for one in lists]
    everywhere = set(columns[0]).intersection(*columns[1:])
    assert found[0].tolist() == [place for place, column in enumerate(columns[0]) if column in everywhere]
    for one, places in zip(columns, found, strict=True):
        assert [one[place] for place in places] == [columns[0][place] for place in found[0]]


@pytest.mark.parametrize("part", [5, 1 << 20])
def test_what_is_as_long_as_a_list_lies_in_the_scratch(tmp_path, part):
    lists = lists_of(3, [400, 300])
    allocate = Scratch(tmp_path, above=0).empty
    found = Matches.of(lists, allocate, part=part)
    assert Scratch.holds(found.found)
    assert Scratch.holds(found.everywhere(allocate))
    np.testing.assert_array_equal(found.everywhere(), Matches.of(lists).everywhere())


@pytest.mark.parametrize("part", [5, 1 << 20])
@pytest.mark.parametrize("repeats", [0, 1, 399])
def test_columns_that_occur_twice_are_counted(repeats, part):
    other, listed = lists_of(4, [400, 400])
    listed[:, :repeats] = listed[:, 399:]
    assert Matches.of([other, listed], part=part).repeats == [0, repeats]
    assert Matches.of([listed, other], part=part).repeats == [repeats, 0]
    firsts = [0, *range(max(repeats, 1), 400 - bool(repeats))]
    assert first_places(listed, part=part).tolist() == firsts


def test_a_list_of_one_and_the_same_takes_no_longer_than_another():
    """Looking for a free slot behind all that are alike would take the square of their number."""
    listed = np.full((2, 1 << 20), 7, dtype=np.uint64)
    assert Matches.of([listed, listed[:, :1]]).repeats == [(1 << 20) - 1, 0]


def test_the_hash_is_siphash():
    """Python hashes bytes by SipHash-1-3 since 3.11, under a key that follows from PYTHONHASHSEED."""
    seed, key = 7, bytearray()
    while len(key) < 16:  # as in bootstrap_hash.c
        seed = (seed * 214013 + 2531011) & 0xFFFFFFFF
        key.append(seed >> 16 & 0xFF)
    script = "import sys; print(*[hash(bytes([n] * 8) + b'abcdefgh') for n in range(20)])"
    script += "; print(sys.hash_info.algorithm)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    told = done.stdout.split()
    if told.pop() != "siphash13":
        pytest.skip("this Python hashes otherwise")
    words = np.frombuffer(b"".join(bytes([n] * 8) + b"abcdefgh" for n in range(20)), dtype=np.uint64)
    listed = np.ascontiguousarray(words.reshape(20, 2).T)
    found = np.empty(20, dtype=np.uint64)
    hash_columns(np.frombuffer(bytes(key), dtype=np.uint64), listed, found)
    assert found.view(np.int64).tolist() == [int(one) for one in told]


@pytest.mark.parametrize("part", [1 << 12, 1 << 20])
def test_words_that_are_alike_in_most_bits_take_no_longer(part):
    """Whoever picks words with equal low or high bits does not know where they go."""
    rows = 1 << 18
    count = np.arange(rows, dtype=np.uint64)
    for shift in (0, 40):  # all of one slot, or of one part, were these bits the hash
        alike = np.stack([count << np.uint64(shift), np.zeros_like(count)])
        assert _longest_wait(alike, part) < 200
        matches = Matches.of([alike, alike[:, ::-1]], part=part)
        assert matches.repeats == [0, 0]
        np.testing.assert_array_equal(matches.found[0], np.arange(rows)[::-1])


def _longest_wait(listed, part):
    """Taken slots that follow each other in a table, at most half full: O(log n) of them."""
    key, hashed = new_key(), np.empty(listed.shape[1], dtype=np.uint64)
    hash_columns(key, listed, hashed)
    bits = (listed.shape[1] // part).bit_length()
    sizes = np.bincount((hashed >> np.uint64(64 - bits)).astype(int)) if bits else [listed.shape[1]]
    assert max(sizes) < 1.5 * listed.shape[1] / 2**bits + 100
    slots = np.sort(hashed & np.uint64(2 * listed.shape[1] - 1)).astype(np.int64)
    end = longest = start = -1
    for slot in slots.tolist():  # linear probing: each goes to the first free slot from its own on
        start = slot if slot > end else start
        end = max(end + 1, slot)
        longest = max(longest, end - start)
    return longest
