"""Key hashing agrees with hashlib over the documented bytes, and finds duplicates."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import SchemaError
from tercet.ml import row_keys
from tercet.ml.row_keys import (
    Duplicate,
    Text,
    encode_text,
    find_duplicate,
    find_duplicate_in_parts,
    hash_keys,
)
from tercet.ml.schema import Spot

integers = st.integers(-(2**63), 2**63 - 1)
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@pytest.fixture(autouse=True, scope="module", params=[0, row_keys.FEW_ROWS])
def ways(request):
    """By kernels, and row by row."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(row_keys, "FEW_ROWS", request.param)
        hash_keys({"k": np.arange(9)}, table="t")  # which loads the kernels
        yield


def reference(*components: int | str) -> tuple[int, int]:
    """The documented bytes of one key, hashed by the standard library."""
    message = b""
    for value in components:
        is_text = isinstance(value, str)
        body = value.encode() if is_text else value.to_bytes(8, "little", signed=True)
        message += (b"s" if is_text else b"i") + len(body).to_bytes(4, "little") + body
    digest = hashlib.blake2b(message, digest_size=16, person=b"tercet-key-v1").digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def column(values: list[int] | list[str], kind: str) -> np.ndarray | Text:
    return Text.of(values) if kind == "string" else np.array(values, np.int64)


def pairs(hashes: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(map(int, pair)) for pair in hashes.T]


@given(st.lists(integers, max_size=20))
def test_integer_keys_are_hashlibs(values):
    assert pairs(hash_keys({"k": np.array(values, np.int64)}, table="t")) == [reference(v) for v in values]


@given(st.lists(strings, max_size=8))
def test_string_keys_are_hashlibs(values):
    assert pairs(hash_keys({"k": Text.of(values)}, table="t")) == [reference(v) for v in values]


@pytest.mark.parametrize("size", [0, 1, 122, 123, 124, 250, 251, 252, 1000, 100_000])
def test_strings_around_the_edges_of_a_block(size):
    text = "é" * (size // 2) + "x" * (size % 2)
    assert pairs(hash_keys({"k": Text.of(["a", text, "b"])}, table="t"))[1] == reference(text)


@given(st.data(), st.lists(st.sampled_from(["integer", "string"]), min_size=1, max_size=4), st.integers(0, 5))
def test_composite_keys_are_hashlibs(data, kinds, rows):
    values = [
        data.draw(st.lists(strings if kind == "string" else integers, min_size=rows, max_size=rows))
        for kind in kinds
    ]
    columns = {f"k{i}": column(part, kind) for i, (part, kind) in enumerate(zip(values, kinds, strict=True))}
    expected = [reference(*row) for row in zip(*values, strict=True)]
    assert pairs(hash_keys(columns, table="t")) == expected


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64, ">i4"])
def test_the_width_of_an_integer_does_not_matter(dtype):
    hashes = hash_keys({"k": np.array([7, 100], dtype)}, table="t")
    assert hashes.dtype == np.uint64
    assert hashes.shape == (2, 2)
    assert pairs(hashes) == [reference(7), reference(100)]


def test_values_that_are_different_keys():
    keys = [
        [7],
        ["7"],
        ["7 "],
        ["é"],
        ["e\u0301"],
        ["A"],
        ["a"],
        [""],
        ["\0"],
        ["ab", "c"],
        ["a", "bc"],
        ["abc"],
    ]
    hashes = set()
    for components in keys:
        parts = [column([part], "string" if isinstance(part, str) else "integer") for part in components]
        hashes.update(pairs(hash_keys({str(i): part for i, part in enumerate(parts)}, table="t")))
    assert len(hashes) == len(keys)


def test_read_only_and_strided_columns():
    values = np.arange(20, dtype=np.int32)[::3]
    values.flags.writeable = False
    assert pairs(hash_keys({"k": values}, table="t")) == [reference(int(v)) for v in values]


def test_an_unsigned_key_beyond_63_bits_is_refused():
    values = np.array([1, 2**63 - 1, 2**63], np.uint64)
    with pytest.raises(SchemaError, match=r'"t", column "k", row 2 .*9223372036854775808 .*"k": "string"'):
        hash_keys({"k": values}, table="t")
    assert pairs(hash_keys({"k": values[:2]}, table="t"))[1] == reference(2**63 - 1)


def test_other_keys_are_refused():
    with pytest.raises(SchemaError, match=r'"t", column "k": it holds float64'):
        hash_keys({"k": np.ones(2)}, table="t")


def test_a_lone_surrogate_is_refused_with_its_row():
    with pytest.raises(SchemaError, match=r'"t", column "k", row 1 .*Unicode'):
        encode_text(["fine é", "\ud800"], Spot("t", "k"))


@given(st.lists(strings, max_size=10))
def test_text_gives_its_strings_back(values):
    text = Text.of(values)
    assert [text.at(i) for i in range(text.rows)] == values


@given(st.lists(st.integers(0, 12), max_size=12))
def test_duplicates_as_a_search_by_hand_finds_them(values):
    first = {}
    repeats = [(first.setdefault(v, i), i) for i, v in enumerate(values) if first.setdefault(v, i) != i]
    found = find_duplicate(hash_keys({"k": np.array(values, np.int64)}, table="t"))
    assert found == (Duplicate(*repeats[0], len(repeats)) if repeats else None)


def test_hashes_that_agree_in_one_word_differ():
    hashes = np.array([[5, 5, 6, 5], [1, 2, 1, 2]], np.uint64)
    assert find_duplicate(hashes[:, :3]) is None
    assert find_duplicate(hashes[::-1, :3]) is None
    assert find_duplicate(hashes) == Duplicate(earlier=1, row=3, repeats=1)


@given(st.lists(integers, min_size=1, max_size=30), st.randoms())
def test_hashing_commutes_with_permutations(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    keys = np.array(values, np.int64)
    shuffled = hash_keys({"k": keys[order]}, table="t")
    assert np.array_equal(shuffled, hash_keys({"k": keys}, table="t")[:, order])


@given(st.lists(st.integers(0, 60), max_size=80), st.integers(1, 30))
def test_duplicates_are_found_in_parts(values, part_rows):
    hashes = hash_keys({"id": np.array(values, dtype=np.int64)}, table="t")
    found = find_duplicate_in_parts(
        lambda start, stop: hashes[:, start:stop], len(values), part_rows=part_rows
    )
    assert found == find_duplicate(hashes)
