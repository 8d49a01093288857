"""Figures by group equal pandas.groupby; what owners' minimum counts leave of them."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tercet
from tercet.errors import PlanError, SchemaError

numbers = itertools.count()
GRADES, SIDES = [1, 2, 4, 7], [0, 1]
EVERY = {"x": ["count", "sum", "mean", "var", "std", "min", "max"], "n": ["sum", "max", "var"], "b": ["mean"]}


def people(seed, rows, gaps=0.15):
    rng = np.random.default_rng(seed)
    x = rng.normal(40, 12, rows)
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "grade": rng.choice([1, 2, 7], rows),
            "side": rng.random(rows) < 0.4,
            "x": np.where(rng.random(rows) < gaps, np.nan, x),
            "n": rng.integers(-50, 4000, rows),
            "b": rng.random(rows) < 0.5,
        }
    )


def put(lake, frame, **options):
    kinds = {"grade": "integer", "side": "boolean", "x": "real", "n": "integer", "b": "boolean"}
    given = {"name": f"t{next(numbers)}", "key": "id", "owner": "o", "missing": "indicator", "types": kinds}
    return lake.upload(frame, **given, **options)


def in_pandas(frame, by, aggregates):
    """Of all categories, also those without rows."""
    levels = {"grade": GRADES, "side": SIDES}
    typed = frame.assign(**{one: pd.Categorical(frame[one].astype(int), levels[one]) for one in by})
    typed = typed.assign(b=frame["b"].astype(float))
    return typed.groupby(list(by), observed=False).agg(aggregates)


def same(found, wanted, table):
    for column, statistic in found.columns:
        place = 2.0 ** -table.column(column).schema.scale
        size = np.abs(wanted[column, statistic]).max() if len(wanted) else 0
        tolerance = {"sum": 400, "mean": 1, "min": 1, "max": 1}.get(statistic, 0) * place
        tolerance += 2e-3 * np.nan_to_num(size) if statistic in ("var", "std") else 0
        np.testing.assert_allclose(
            found[column, statistic],
            wanted[column, statistic],
            atol=tolerance,
            err_msg=f"{statistic} {column}",
        )


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from([("grade",), ("side", "grade")]))
def test_as_pandas_has_it(lake, seed, rows, by):
    frame = people(seed, rows)
    table = put(lake, frame)
    groups = table.groupby(list(by), categories={"grade": GRADES}).agg(EVERY)
    wanted = in_pandas(frame, by, EVERY)
    found = groups.to_frame()
    assert found.index.tolist() == wanted.index.tolist()
    assert list(found.columns) == list(wanted.columns)
    assert groups.counts.tolist() == in_pandas(frame, by, {"n": ["size"]})["n", "size"].tolist()
    same(found, wanted, table)


@pytest.mark.parametrize("protocol", ["shamir", "rep4"])
def test_on_other_protocols(protocol):
    frame = people(3, 60)
    aggregates = {"x": ["mean", "var", "max"], "n": "sum"}
    with tercet.local(protocol=protocol) as lake:
        table = put(lake, frame)
        groups = table.groupby("side").agg(aggregates)
        wanted = in_pandas(
            frame, ["side"], {name: np.atleast_1d(one).tolist() for name, one in aggregates.items()}
        )
        same(groups.to_frame(), wanted, table)


def test_rows_that_count(lake):
    """Those that a filter keeps, with a value in the column that groups."""
    frame = people(11, 120)
    table = put(lake, frame)
    kept = table.filter(table["n"] > 1000).assign(old=table["x"] > 40)
    some = frame[(frame.n > 1000) & frame.x.notna()].assign(old=frame.x > 40)
    found = kept.groupby("old").agg({"n": ["sum", "min"], "x": ["count"]})
    wanted = some.groupby("old").agg({"n": ["sum", "min"], "x": ["count"]})
    np.testing.assert_allclose(found.to_frame(), wanted)
    counted = kept.value_counts("grade", categories={"grade": GRADES}, to="ann").to_frame()["count"]
    kept_rows = frame[frame.n > 1000]
    assert counted.to_dict() == kept_rows.grade.value_counts().reindex(GRADES, fill_value=0).to_dict()


def test_small_groups_are_not_told(lake):
    """Cells as in a cross table; values that are missing or there too seldom; rare outcomes; single rows."""
    sizes, least = {1: 40, 2: 30, 4: 3, 7: 50}, 5
    grade = np.repeat(list(sizes), list(sizes.values()))
    rows = len(grade)
    rng = np.random.default_rng(2)
    x = rng.normal(size=rows)
    x[np.flatnonzero(grade == 1)[:2]] = np.nan  # two are missing
    x[np.flatnonzero(grade == 7)[:20]] = np.nan
    b = np.where(grade == 7, np.arange(rows) % 25 == 0, np.arange(rows) % 2 == 0)  # two ones, or half
    frame = pd.DataFrame({"id": np.arange(rows), "grade": grade, "side": b, "x": x, "n": 2 * grade, "b": b})
    table = put(lake, frame, min_count=least)
    lake.disclosed.clear()
    groups = table.groupby("grade", categories={"grade": GRADES}).agg(
        {"x": ["count", "mean", "max"], "n": "sum", "b": ["mean", "var"]}
    )
    told = {name: np.isfinite(found).tolist() for name, found in groups.values.items()}
    assert np.isfinite(groups.counts).tolist() == [True, False, False, True]  # the smallest of the others too
    assert told["x", "count"] == told["x", "mean"] == [False, False, False, True]
    assert told["n", "sum"] == [True, False, False, True]
    assert told["b", "mean"] == told["b", "var"] == [True, False, False, False]
    assert told["x", "max"] == [False] * 4
    assert groups["n", "sum"][3] == 2 * 7 * 50
    assert {one.kind for one in lake.disclosed} == {"check", "count", "figure"}
    assert "not told by a rule of owners" in str(groups)
    assert "<td>-</td>" in groups._repr_html_()


def test_what_is_asked_for_wrongly(lake):
    table = put(lake, people(1, 30))
    with pytest.raises(SchemaError, match="'n' is integer and has no public categories"):
        table.groupby("n").agg({"x": "mean"})
    with pytest.raises(PlanError, match="there is no statistic 'median' of groups; known are count, sum"):
        table.groupby("side").agg({"x": ["median"]})
    with pytest.raises(SchemaError, match="has no column 'z'"):
        table.groupby("side").agg({"z": "sum"})
    with pytest.raises(SchemaError, match="make 1040 groups, and up to 1024"):
        categories = {"grade": list(range(65)), "n": list(range(16))}
        table.groupby(["grade", "n"], categories=categories).agg({"x": "sum"})
    with pytest.raises(SchemaError, match="id is its key, and nobody may know what belongs to which"):
        table.groupby("id").agg({"x": "sum"})
    with pytest.raises(SchemaError, match="column 'id' is a key"):
        table.groupby(["id", "side"])
