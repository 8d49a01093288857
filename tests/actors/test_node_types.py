"""Plans come out the same whatever plans a process has made before: only what types follow from is shared."""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet.errors import PlanError
from tercet.plans import Builder, Form, Type, node_types

ROWS = 60
RNG = np.random.default_rng(2)
COLUMN = Type(Form.RING, (3, ROWS), 8, 2.0**20)


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """As in a process that has made no plan."""
    monkeypatch.setattr(node_types, "_known", {})


def some(name="some", handle="x", rows=ROWS):
    b = Builder(name, tile_rows=64)
    x = b.input(handle, Type(Form.RING, (3, rows), 8, 2.0**20))
    (x.select([0]).squeeze() < 2).to_ring().sum().reveal("count", to="ann")
    (x * x).rescale(8).sum().store(f"{handle} squares")
    return b.plan()


def test_a_second_plan_of_a_shape_infers_nothing_and_is_the_same_but_for_handles(monkeypatch):
    first, asked = some(handle="x").to_body(), []
    plain = type(node_types.KINDS["select"]).infer
    monkeypatch.setattr(
        type(node_types.KINDS["select"]), "infer", lambda *args: (asked.append(args), plain(*args))[1]
    )
    second = some(handle="y").to_body()
    assert not asked
    assert second[0] == first[0]
    assert (first[1], second[1]) == (["x", "x squares"], ["y", "y squares"])
    some(rows=ROWS + 1)
    assert asked


def test_fits_of_tables_of_other_names_are_the_same_but_for_names_and_handles():
    """A table's name stands in the plan's, which owners and analysts read."""
    plans = []
    with tercet.local(protocol="plain") as lake:
        lake.on_result = lambda plan, result: plans.append(plan)
        for name in ("one", "two", "one"):
            data = {"id": np.arange(ROWS), "a": RNG.normal(size=ROWS), "y": np.arange(ROWS) % 2 == 0}
            table = lake.upload(data, name=name, key="id", owner="o", scales={"a": 14})
            tercet.ml.LogisticRegression(max_iter=3).fit(table, "y")
    bodies = [plan.to_body()[0].replace(b"two", b"one") for plan in plans]
    assert len(bodies) == 3 * len(set(bodies))
    assert len({tuple(plan.to_body()[1]) for plan in plans}) == len(plans)


@pytest.mark.parametrize("warm", [False, True])
def test_equal_attributes_of_other_types_are_told_apart(warm):
    """Else what is let through would hang on what others have asked for."""
    b = Builder("b")
    if warm:
        b.append("random", [], {"shape": (3, 1), "fresh": 1})
    with pytest.raises(PlanError, match=r"a value of shape \(3, True\) cannot exist"):
        Builder("c").append("random", [], {"shape": (3, True), "fresh": 1})
    with pytest.raises(PlanError, match="attribute 'fresh' is True, of type bool"):
        Builder("c").append("random", [], {"shape": (3, 1), "fresh": True})
    b.append("random", [], {"shape": (3, 1), "fresh": 1})


@pytest.mark.parametrize("warm", [False, True])
def test_what_cannot_be_is_refused_each_time(warm):
    for _ in range(1 + warm):
        b = Builder("b")
        x = b.input("x", COLUMN)
        product = b.append("mul", [x.ref, x.ref], {})
        with pytest.raises(PlanError, match="do not fit 63 bits"):
            _ = x * 2.0**50
        with pytest.raises(PlanError, match="a product that has not had its round"):
            b.append("store", [(product, 0)], {"handle": "p"})


def joined(rows):
    b = Builder("join", tile_rows=64)
    keys = [b.input(name, Type(Form.WORDS, (2, rows))) for name in "ab"]
    key = b.random_words(2)
    opened = [b.apply("prf", key, one).open("pseudonyms") for one in keys]
    b.apply(
        "take",
        b.input("x", Type(Form.RING, (rows,), 8, 2.0**20)),
        b.apply("match", *opened, rows="n"),
        table=0,
    )
    return b


def test_a_symbol_means_what_it_means_in_its_own_plan():
    assert [joined(rows).maxima["n"] for rows in (5, 9, 5)] == [5, 9, 5]
    dims = {dim for found in node_types._known.values() for one in found for dim in one.shape}
    assert "n" not in dims
    assert dims


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(node_types, "MOST_KNOWN", 8)
    b = Builder("b")
    x = b.input("x", COLUMN)
    for number in range(100):
        (x + number).bounded(2.0**21, "a" * 1000 if number % 2 else "b")
        assert len(node_types._known) <= 8
    assert not any("a" * 1000 in str(key) for key in node_types._known)
