"""Splits take every row once, at random, and keep rows whole."""

import math

import numpy as np
import pytest


@pytest.mark.parametrize("rows", [2, 3, 7, 100, 1000])
@pytest.mark.parametrize("test_size", [0.001, 0.25, 0.5, 0.999])
def test_every_row_is_in_one_part(lake, put, rows, test_size):
    numbers = np.arange(rows)
    parts = put(np.column_stack([numbers, numbers * 2]), numbers % 2, types={"y": "boolean"}).split(
        test_size=test_size
    )
    sizes = [len(part) for part in parts]
    expected = min(rows - 1, math.ceil(test_size * rows))
    assert sizes == [rows - expected, expected]
    revealed = [part.reveal() for part in parts]
    together = {name: np.concatenate([part[name] for part in revealed]) for name in ("x0", "x1", "y")}
    np.testing.assert_array_equal(np.sort(together["x0"]), numbers)
    np.testing.assert_array_equal(together["x1"], together["x0"] * 2)
    np.testing.assert_array_equal(together["y"], together["x0"] % 2 == 1)


def test_splits_are_random(lake, put):
    """Each row is in the test half as often as not: 40 splits of 60 rows, false alarms below 1e-5."""
    table = put(np.arange(60)[:, None])
    counts = np.zeros(60)
    for _ in range(40):
        _, test = table.split(test_size=0.5)
        counts[test.reveal("x0")["x0"]] += 1
    assert np.abs(counts - 20).max() < 5.5 * np.sqrt(40 / 4)
    assert counts.std() > 1


def test_a_split_discloses_nothing(lake, put):
    lake.disclosed.clear()
    train, test = put(np.arange(10)[:, None]).split()
    assert lake.disclosed == []
    assert (len(train), len(test)) == (7, 3)
    assert train.name.endswith(".train")
    assert test.name.endswith(".test")
