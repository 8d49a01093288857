"""Columns left out, renamed and chosen by kind, as pandas does it, and nothing computed for it."""

import numpy as np
import pandas as pd
import pytest

from tercet.errors import SchemaError

ROWS = 30
FRAME = pd.DataFrame(
    {
        "id": np.arange(ROWS),
        "age": np.arange(ROWS) + 30,
        "bmi": np.where(np.arange(ROWS) % 3 == 0, np.nan, 22.5),
        "sick": np.arange(ROWS) % 2 == 0,
        "stage": np.array(["I", "II"])[np.arange(ROWS) % 2],
        "born": np.datetime64("1960-01-01") + np.arange(ROWS).astype("m8[D]"),
    }
)


def put(lake):
    types = {"stage": "category", "born": "date"}
    return lake.upload(FRAME, name="t", key="id", owner="o", types=types, missing="indicator")


def test_columns_are_dropped(plain):
    table = put(plain)
    assert table.drop("bmi").column_names == ["age", "sick", "stage", "born"]
    assert table.drop(["age", "stage"]).column_names == ["bmi", "bmi_missing", "sick", "born"]
    with pytest.raises(SchemaError, match="'bmi_missing' tells where 'bmi' is missing; drop that too"):
        table.drop("bmi_missing")
    with pytest.raises(SchemaError, match="no column 'agee'"):
        table.drop("agee")


def test_columns_are_renamed(lake):
    table = put(lake)
    other = lake.upload(
        {"patient": np.arange(ROWS), "age": np.ones(ROWS)}, name="u", key="patient", owner="p"
    )
    lake.disclosed.clear()
    renamed = table.rename({"id": "patient", "age": "years", "bmi": "weight", "bmi_missing": "unknown"})
    assert lake.disclosed == []
    assert renamed.key_names == ("patient",)
    assert renamed.column_names == ["years", "weight", "unknown", "sick", "stage", "born"]
    assert renamed.column("weight").schema.missing == "unknown"
    joined = renamed.join(other, on="patient")
    assert sorted(joined.reveal("years")["years"]) == FRAME["age"].tolist()
    described = renamed.describe(["weight"], statistics=["mean"])["weight"]
    assert described == {"count": 20, "mean": pytest.approx(22.5)}
    swapped = table.rename({"age": "bmi", "bmi": "age"}).reveal("bmi")["bmi"]
    np.testing.assert_array_equal(swapped, FRAME["age"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"ag": "x"}, "no column 'ag'. Did you mean \"age\""),
        ({"age": "sick"}, "two columns 'sick'"),
        ({"age": "id"}, "two columns 'id'"),
        ({"age": " x"}, "no space at either end"),
        ({"age": 1}, "names\\['age'\\]=1 is a number"),
        ("age", "names='age' is text"),
    ],
)
def test_names_that_cannot_be(plain, names, message):
    with pytest.raises(SchemaError, match=message):
        put(plain).rename(names)


def test_columns_by_kind(plain):
    table = put(plain)
    assert table.select_dtypes("number").column_names == ["age", "bmi", "bmi_missing"]
    assert table.select_dtypes(["boolean", "category"]).column_names == ["bmi_missing", "sick", "stage"]
    assert table.select_dtypes(exclude=["number", "boolean"]).column_names == ["stage", "born"]
    with pytest.raises(SchemaError, match="no kind 'float'; the kinds are real"):
        table.select_dtypes("float")
    with pytest.raises(SchemaError, match="no column of these kinds: age is integer"):
        table.select_dtypes("datetime")


def test_a_condition_in_brackets_is_a_filter(plain):
    table = put(plain)
    kept = table[(table["age"] > 40) & table["sick"]]
    expected = FRAME[(FRAME["age"] > 40) & FRAME["sick"]]
    assert len(kept) == ROWS
    assert kept.describe(["age"], statistics=["mean"])["age"] == {
        "count": len(expected),
        "mean": pytest.approx(expected["age"].mean()),
    }


def test_nobody_sees_the_first_rows(plain):
    with pytest.raises(SchemaError, match=r"nobody sees its first 5 rows.*describe.*rehearse"):
        put(plain).head()
