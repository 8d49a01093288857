"""What an owner allows: the rules that nodes keep of it, and what is refused when it is said."""

from __future__ import annotations

import datetime as dt

import attrs
import pytest

from tercet import Allow
from tercet.errors import ConsentError, PlanError, SchemaError
from tercet.members.rules import Rules
from tercet.ml.schema import ColumnSchema, TableSchema

SCHEMA = TableSchema(
    "ages",
    "clinic",
    (
        ColumnSchema("id", "key", key_type="integer"),
        ColumnSchema("age", "integer"),
        ColumnSchema("bmi", "real"),
    ),
    100,
    min_count=5,
)


def test_nothing_said_is_the_strictest():
    assert Allow().rules(SCHEMA) == Rules(min_count=5)


def test_all_of_it_is_kept():
    allow = Allow(
        ["ann"],
        "approved",
        rows=True,
        days=30,
        computations=["statistics"],
        columns=["age"],
        classes=["figure"],
        receivers=["ann"],
        parameters_per_row=1,
        sizes="hidden",
        uses=3,
        until=dt.date(2027, 1, 14),
    )
    rules = allow.rules(SCHEMA)
    assert rules == Rules(
        ("ann",),
        "approved",
        5,
        rows=True,
        computations=("statistics",),
        columns=("age",),
        classes=("figure",),
        receivers=("ann",),
        parameters_per_row=1.0,
        sizes="hidden",
        uses=3,
        until=dt.datetime(2027, 1, 15, tzinfo=dt.UTC).timestamp(),
    )
    assert Rules.from_bytes(rules.to_bytes()) == rules
    left = {one.name for one in attrs.fields(Rules)} - {one.name for one in attrs.fields(Allow)}
    assert left == {"min_count"}  # which is an option of the upload itself


def test_a_column_goes_with_the_one_that_tells_where_it_is_missing():
    flag = ColumnSchema("age is missing", "boolean")
    age = ColumnSchema("age", "integer", missing="age is missing")
    schema = TableSchema("ages", "clinic", (ColumnSchema("id", "key", key_type="integer"), age, flag), 9)
    assert Allow(columns=["age"]).rules(schema).columns == ("age", "age is missing")
    assert Allow(columns=["age is missing", "age"]).rules(schema).columns == ("age is missing", "age")


def test_a_time_with_its_zone_ends_at_that_time():
    until = dt.datetime(2027, 1, 15, 9, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert Allow(until=until).rules(SCHEMA).until == 1_800_000_000


@pytest.mark.parametrize("until", [dt.datetime(2027, 1, 15), "2027-01-15", 1_800_000_000, "x" * 200])
def test_other_times_are_refused(until):
    with pytest.raises(
        ConsentError, match=r"until=.* neither a date nor a time with its zone; write dt.date"
    ):
        Allow(until=until)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"columns": ["agee"]}, "allow column 'agee', which has no values there. .*age"),
        ({"columns": ["id"]}, "the rules of table 'ages' allow column 'id', which has no values there"),
    ],
)
def test_columns_that_the_table_lacks(given, told):
    allow = Allow(**given)
    with pytest.raises(SchemaError, match=told):
        allow.rules(SCHEMA)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"plans": "some"}, PlanError, "plans='some' is not 'any' or 'approved'"),
        ({"plans": "any", "computations": ["fit"]}, ConsentError, "leave plans at 'approved'"),
        (
            {"computations": ["statistic"]},
            ConsentError,
            "no computation or group 'statistic' to allow. Did you",
        ),
        ({"classes": ["figures"]}, ConsentError, "no class of disclosures 'figures'"),
        ({"classes": "figure"}, PlanError, "classes='figure' is not a list of classes of disclosures"),
        (
            {"computations": "fit"},
            PlanError,
            r"names of computations or groups; as in \['tables'",
        ),
        ({"columns": 5}, PlanError, "columns=5 is a number, not a list of names of columns"),
        ({"receivers": "ann"}, PlanError, "receivers='ann' is not a list of names of members"),
        ({"uses": 0}, PlanError, "uses=0 is not a whole number of at least 1, or None"),
        ({"parameters_per_row": -1}, PlanError, "parameters_per_row=-1 is not a positive, finite number"),
    ],
)
def test_what_means_nothing_is_refused_at_once(given, error, told):
    with pytest.raises(error, match=told):
        Allow(**given)
