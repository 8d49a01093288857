"""Groups by secret keys equal pandas.groupby, with as many rows as there are groups or as before."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml import StandardScaler
from tercet.ml.noise import COINS

numbers = itertools.count()
EVERY = {
    "id": "max",
    "cost": ["sum", "mean", "var", "min", "max", "first"],
    "visits": ["count", "sum", "var", "min"],
    "ill": ["sum", "mean"],
    "gap": ["count", "sum", "var"],
}


def claims(seed, rows, people):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, people, rows)
    return pd.DataFrame(
        {
            "patient": ids,
            "id": ids,
            "cost": rng.gamma(2, 100, rows).round(2),
            "visits": rng.integers(0, 9, rows),
            "ill": rng.random(rows) < 0.5,
            "gap": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows)),
        }
    )


def put(lake, frame, **options):
    kinds = {"id": "integer", "cost": "real", "visits": "integer", "ill": "boolean", "gap": "real"}
    given = {"key": "patient", "owner": "insurer", "missing": "indicator", "unique": False}
    given |= {"types": {name: kind for name, kind in kinds.items() if name in frame}}
    return lake.upload(frame, name=f"t{next(numbers)}", **given | options)


def in_pandas(frame, aggregates=EVERY):
    typed = frame.assign(ill=frame["ill"].astype(float))
    found = typed.groupby("patient").agg(
        {name: np.atleast_1d(one).tolist() for name, one in aggregates.items()}
    )
    found.columns = ["_".join(column) for column in found.columns]
    return found


def counting(groups):
    """The rows of a table that count, in the clear."""
    builder = groups.lake.builder("rows that count")
    groups.selected(builder).reveal("counts", to="analyst")
    counts = groups.lake.run(builder.plan()).revealed["counts"] > 0.5
    return pd.DataFrame(groups.reveal())[counts]


def same(table, found, wanted, source):
    """By the greatest `id` of a group, which is its key; numbers to within units of their stored place."""
    found = pd.DataFrame(found).sort_values("id_max", ignore_index=True)
    gone = [name for name in found if name.endswith("_var_missing")]
    for name in gone:
        of = name.removesuffix("_missing")
        np.testing.assert_array_equal(found[name].astype(bool), wanted[of].isna())
        assert (found[of][found[name].astype(bool)] == 0).all()
    wanted = wanted.fillna(dict.fromkeys(wanted, 0))
    found = found.drop(columns=gone)
    assert list(found.columns) == list(wanted.columns)
    assert len(found) == len(wanted)
    for name in found:
        column, _, statistic = name.rpartition("_")
        place = 2.0 ** -table.column(name).schema.scale
        exact = source.column(column).schema.kind != "real" and statistic not in ("mean", "var")
        off = 0 if exact else {"mean": 6, "sum": 2, "var": 3}.get(statistic, 1) * place
        np.testing.assert_allclose(
            found[name].astype(float), wanted[name].astype(float), rtol=0, atol=off, err_msg=name
        )


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.integers(1, 90), st.integers(1, 40))
def test_as_pandas_has_it(lake, seed, rows, people):
    frame = claims(seed, rows, people)
    table = put(lake, frame)
    groups = table.groupby("patient").to_table(EVERY)
    same(groups, groups.reveal(), in_pandas(frame), table)


@pytest.mark.parametrize("protocol", ["shamir", "rep4"])
def test_on_other_protocols(protocol):
    frame, aggregates = (
        claims(3, 40, 15),
        {"id": "max", "cost": ["sum", "mean", "var"], "visits": "min", "gap": "var"},
    )
    with tercet.local(protocol=protocol) as lake:
        table = put(lake, frame)
        groups = table.groupby("patient").to_table(aggregates)
        same(groups, groups.reveal(), in_pandas(frame, aggregates), table)
        noisy = table.groupby("patient").to_table(aggregates, sizes="noisy")
        same(noisy, counting(noisy), in_pandas(frame, aggregates), table)


def test_dummies_are_no_groups(lake):
    """They weigh nothing, match nothing, and are within what everyone knows of the columns."""
    frame = claims(5, 80, 30)
    table = put(lake, frame, ranges={"cost": (1, 2000), "visits": (0, 9)})
    groups = table.groupby("patient").to_table(EVERY, sizes="noisy")
    wanted = in_pandas(frame)
    assert (groups.unique, len(groups.selection), groups.key_holders) == (True, 1, frozenset())
    same(groups, counting(groups), wanted, table)
    rows = pd.DataFrame(groups.reveal())
    for column in groups.columns:
        if column.schema.range is not None:
            assert rows[column.name].between(*column.schema.range).all(), column.name
    told = groups.describe(["cost_mean", "visits_sum", "cost_var"], statistics=["mean", "max"])
    for name in ("cost_mean", "visits_sum", "cost_var"):
        assert told[name]["count"] == wanted[name].count()
        np.testing.assert_allclose(told[name]["mean"], wanted[name].mean(), rtol=5e-3)
    clinic = pd.DataFrame({"patient": np.arange(10, 50), "age": np.arange(40) + 20})
    linked = lake.upload(clinic, name=f"t{next(numbers)}", key="patient", owner="clinic").join(
        groups, on="patient"
    )
    both = clinic.merge(wanted, on="patient")
    told = linked.describe(["cost_max", "age"], statistics=["mean"])
    assert (len(linked), told["age"]["count"]) == (len(both), len(both))
    np.testing.assert_allclose(told["cost_max"]["mean"], both.cost_max.mean(), rtol=1e-3)
    assert len(groups.groupby("patient").to_table({"cost_max": "count"})) == len(wanted)


def test_noisy_groups_look_alike_however_many_there_are():
    """As many rounds, bytes and openings up to the number that is told, and all else follows from that."""
    with tercet.local(protocol="replicated") as lake:
        found = []
        for ids in ([1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 4], [7, 7, 7, 7, 7, 7]):
            columns = {"id": ids, "x": np.arange(6.0)}
            table = lake.upload(columns, name=f"t{next(numbers)}", key="id", owner="o", unique=False)
            lake.disclosed.clear()
            groups = table.groupby("id").to_table({"x": ["sum", "max"]}, sizes="noisy")
            sorting, of_figures = lake.phases[-2:]
            told = [str(one) for one in lake.disclosed]
            found.append((told, sorting.rounds, sorting.bytes_sent, of_figures.rounds))
            assert len({*ids}) <= len(groups) <= len({*ids}) + COINS
    assert found[0] == found[1] == found[2]


def test_hidden_groups_join_and_count_like_others(lake):
    """Claims by patient, beside what the clinic knows of these; nobody learns how many patients there are."""
    frame = claims(5, 80, 30)
    table = put(lake, frame)
    lake.disclosed.clear()
    groups = table.groupby("patient").to_table({"cost": ["sum", "max"], "visits": "count"}, sizes="hidden")
    assert {one.what for one in lake.disclosed if one.to == "the nodes"} == {
        "comparisons of shuffled rows, a random order"
    }
    wanted = in_pandas(frame, {"cost": ["sum", "max"], "visits": "count"})
    assert (len(groups), groups.unique, len(groups.selection)) == (80, True, 1)
    told = groups.describe(["cost_sum", "visits_count"], statistics=["mean", "max"])
    assert told["cost_sum"]["count"] == len(wanted)
    np.testing.assert_allclose(told["cost_sum"]["mean"], wanted.cost_sum.mean(), rtol=2e-3)
    assert told["visits_count"]["max"] == wanted.visits_count.max()
    clinic = pd.DataFrame({"patient": np.arange(10, 50), "age": np.arange(40) + 20})
    joined = lake.upload(clinic, name=f"t{next(numbers)}", key="patient", owner="clinic").join(
        groups, on="patient"
    )
    both = clinic.merge(wanted, on="patient")
    told = joined.describe(["cost_max", "age"], statistics=["mean"])
    assert (len(joined), told["age"]["count"]) == (len(both), len(both))
    np.testing.assert_allclose(told["cost_max"]["mean"], both.cost_max.mean(), rtol=1e-3)


def test_rows_that_count(lake):
    """A filter leaves some groups out, and some rows of others; one key may be several columns."""
    frame = claims(7, 80, 20)
    table = put(lake, frame)
    kept = table.filter(table["cost"] > 220)
    some = frame[frame.cost > 220]
    aggregates = {"id": "max", "cost": ["sum", "mean", "var", "min", "max", "first"], "visits": ["count"]}
    groups = kept.groupby("patient").to_table(aggregates)
    same(groups, groups.reveal(), in_pandas(some, aggregates), table)
    noisy = kept.groupby("patient").to_table(aggregates, sizes="noisy")
    same(noisy, counting(noisy), in_pandas(some, aggregates), table)
    hidden = kept.groupby("patient").to_table(aggregates, sizes="hidden")
    assert hidden.describe("cost_sum", statistics=["mean"])["cost_sum"]["count"] == some.patient.nunique()
    sites = frame.assign(site=frame["visits"] % 2)
    both = put(lake, sites, key=["site", "patient"])
    made = both.groupby(["patient", "site"]).to_table({"cost": "sum"})
    wanted = sites.groupby(["patient", "site"]).cost.sum()
    np.testing.assert_allclose(np.sort(made.reveal("cost_sum")["cost_sum"]), np.sort(wanted), atol=2)


@pytest.mark.parametrize("statistic", ["first", "min"])
def test_the_first_row_of_a_large_group_counts_once(lake, statistic):
    """It is far from all others, and would lie in half the rows of the table, of which but one counts."""
    rows, x = 600, np.random.default_rng(7).normal(0, 0.1, 600)
    x[0] = -0.95 * math.sqrt(rows)
    patients = np.maximum(np.arange(rows), rows // 2)
    table = put(lake, pd.DataFrame({"patient": patients, "x": x}))
    groups = (
        table.groupby("patient").to_table({"x": statistic}, sizes="hidden").rename({f"x_{statistic}": "x"})
    )
    kept = np.append(x[0], x[rows // 2 + 1 :])
    twice = tercet.concat([groups, groups], duplicates="keep").describe("x", statistics=["mean", "std"])["x"]
    assert twice["count"] == 2 * len(kept)
    assert twice["mean"] == pytest.approx(kept.mean(), abs=1e-4)
    assert twice["std"] == pytest.approx(np.tile(kept, 2).std(ddof=1), rel=1e-4)
    scaled = StandardScaler("x").fit(table).transform(groups).describe("x", statistics=["mean"])["x"]
    assert scaled["mean"] == pytest.approx((kept.mean() - x.mean()) / x.std(), abs=1e-3)
    near = StandardScaler("x").fit_transform(groups.filter(groups["x"] > -5))
    assert near.describe("x", statistics=["mean"])["x"]["mean"] == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize("size", [1e-120, 1e-6, 1.0, 1e9])
def test_variances_of_groups_that_lie_far_apart(plain, size):
    """Rows of a group differ by a few units, groups by thousands: squares about one mean would tell none."""
    rng = np.random.default_rng(4)
    ids = np.repeat(np.arange(12), [1, 2, 3, 40, 5, 6, 7, 8, 9, 1, 2, 16])
    near = np.where(ids == 7, 0, rng.integers(-3, 4, len(ids)))
    grid = 2.0 ** round(np.log2(size))
    frame = pd.DataFrame({"patient": ids, "id": ids, "cost": (4000.0 * ids + near) * grid})
    table = plain.upload(
        frame, name=f"t{next(numbers)}", key="patient", owner="o", unique=False, types={"cost": "real"}
    )
    scale = 2 * table.column("cost").schema.scale - 4
    groups = table.groupby("patient").to_table({"id": "max", "cost": "var"}, scales={"cost_var": scale})
    found = pd.DataFrame(groups.reveal()).sort_values("id_max", ignore_index=True)
    wanted = (frame["cost"] / grid).groupby(frame["patient"]).var()
    assert list(np.flatnonzero(found["cost_var_missing"])) == [0, 9]
    assert found["cost_var"][7] == 0
    np.testing.assert_allclose(
        found["cost_var"] / grid / grid, wanted.fillna(0), rtol=1e-6, atol=3 * 2.0**-scale / grid / grid
    )


def test_variances_are_columns_like_others(lake):
    """They are missing of groups of one row, hidden too, and nobody knows of which."""
    frame = claims(11, 60, 30)
    table = put(lake, frame, ranges={"cost": (0, 2000)})
    groups = table.groupby("patient").to_table({"id": "max", "cost": "var"}, sizes="hidden")
    wanted = frame.groupby("patient").cost.var()
    told = groups.describe("cost_var", statistics=["mean"])["cost_var"]
    assert told["count"] == wanted.count()
    np.testing.assert_allclose(told["mean"], wanted.mean(), rtol=0.01)
    kept = groups.dropna("cost_var", compact=True)
    place = 2.0 ** -groups.column("cost_var").schema.scale
    assert groups.column("cost_var").schema.range == (0, 2e6)
    np.testing.assert_allclose(
        np.sort(kept.reveal("cost_var")["cost_var"]), np.sort(wanted.dropna()), rtol=1e-4, atol=3 * place
    )
    with pytest.raises(SchemaError, match="'cost_var' may have missing values"):
        groups.groupby("patient").to_table({"cost_var": "mean"})


def test_few_groups_are_not_told(lake):
    """Nor few rows more than there are groups, where owners ask for a number."""
    for rows, people in ((40, 3), (40, 10**6)):
        frame = claims(9, rows, people)
        if people > rows:
            frame["patient"] = np.arange(rows) // 1
            frame.loc[1, "patient"] = 0  # one row more than there are groups
        table = put(lake, frame, min_count=5)
        with pytest.raises(SchemaError, match="there are as groups, or besides them, fewer than 5 rows"):
            table.groupby("patient").to_table({"cost": "sum"})
        for sizes in ("noisy", "hidden"):
            groups = table.groupby("patient").to_table({"cost": "sum"}, sizes=sizes)
            assert groups.min_count == 5
            told = groups.describe("cost_sum", statistics=["mean"])["cost_sum"]
            assert np.isnan([told["count"], told["mean"]]).all()


def test_groups_that_do_not_fit(plain):
    """Many rows of one key, whose sums lie far apart: the sentence says which scales to give."""
    rows = 3000
    frame = pd.DataFrame(
        {"patient": np.maximum(np.arange(rows) - 2900, 0), "cost": np.arange(rows) % 7 + 500.5}
    )
    table = plain.upload(frame, name="much", key="patient", owner="o", unique=False)
    tried, scales = [], None
    while True:
        try:
            groups = table.groupby("patient").to_table({"cost": "sum"}, scales=scales)
            break
        except SchemaError as error:
            found = re.search(r"'cost_sum' do not all fit; .* scales={'cost_sum': (-?\d+)}", str(error))
            scales = {"cost_sum": int(found[1])}
            assert scales not in tried
            tried.append(scales)
    assert tried
    most = 2.0 ** -scales["cost_sum"]
    assert abs(groups.reveal()["cost_sum"].max() - frame.groupby("patient").cost.sum().max()) <= most


def test_what_is_asked_for_wrongly(plain):
    table = put(plain, claims(1, 30, 10))
    groups = table.groupby("patient")
    with pytest.raises(SchemaError, match="sizes"):
        groups.to_table({"cost": "sum"}, sizes=-512)
    with pytest.raises(PlanError, match="there is no statistic 'std' of keys; known are count, sum"):
        groups.to_table({"cost": "std"})
    with pytest.raises(SchemaError, match="'gap' may have missing values"):
        groups.to_table({"gap": "mean"})
    small = put(plain, claims(1, 30, 10).assign(cost=lambda frame: frame["cost"] * 1e-200))
    with pytest.raises(SchemaError, match="'cost_var' would be squares beyond what numbers can be; upload"):
        small.groupby("patient").to_table({"cost": "var"})
    with pytest.raises(SchemaError, match="scales= names 'cost_max', and only sums, counts and"):
        groups.to_table({"cost": ["max"]}, scales={"cost_max": 1})
    with pytest.raises(SchemaError, match="aggregates= has 1 to 64 figures"):
        groups.to_table({})
    with pytest.raises(SchemaError, match="is its key, and nobody may know what belongs to which"):
        groups.agg({"cost": "sum"})
    with pytest.raises(SchemaError, match="rows are made of groups by that, not by ill"):
        table.groupby("ill").to_table({"cost": "sum"})


def test_no_bit_tells_of_a_single_row(plain):
    """Whether a sum fits the scale that was named would, of a filter that keeps one row."""
    columns = {"id": np.arange(60), "age": np.linspace(20, 80, 60).round(), "me": np.arange(60) == 7}
    table = plain.upload(columns, name="few", key="id", owner="o", min_count=10)
    one = table.filter(table["me"])
    for scale in (12, 20, 26):
        for factor in (1, 100, 4000):
            made = one.assign(z=one["age"] * factor)
            made.groupby("id").to_table({"z": ["sum"]}, sizes="hidden", scales={"z_sum": scale})
    with pytest.raises(SchemaError, match="do not all fit"):
        table.groupby("id").to_table({"age": ["sum"]}, sizes="hidden", scales={"age_sum": 26})


@pytest.mark.parametrize(
    "scales", [{"v_sum": -1}, {"v_count": -1000}, {"v_count": 63}, {"x_sum": -1000}, {"x_var": 40}]
)
def test_scales_that_make_no_figure(plain, scales):
    table = plain.upload(
        {"id": [1, 1, 2], "v": [1, 2, 3], "x": [0.5, 1.5, 2.5]}, name="s", key="id", owner="o", unique=False
    )
    with pytest.raises(SchemaError, match="fractional bits; it can have"):
        table.groupby("id").to_table({"v": ["sum", "count"], "x": ["sum", "var"]}, scales=scales)


def test_nothing_is_computed_of_codes(plain):
    table = plain.upload(
        {"id": [1, 1, 2], "c": ["a", "b", "a"]},
        name="c",
        key="id",
        owner="o",
        unique=False,
        types={"c": "category"},
    )
    for wrong in ("sum", "mean", "var"):
        with pytest.raises(SchemaError, match="is a category, and not a column of numbers"):
            table.groupby("id").to_table({"c": [wrong]})
    with pytest.raises(SchemaError, match="is a category, and not a column of numbers"):
        table.groupby("c").agg({"c": "mean"})
    assert len(table.groupby("id").to_table({"c": ["count", "first"]})) == 2
