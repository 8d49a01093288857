"""Descriptive statistics against pandas, numpy and scipy, on public data; and what they disclose."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml.describe import STATISTICS

pytestmark = pytest.mark.cases
ORDER = "comparisons of shuffled rows, a random order"


def told(lake):
    """What was disclosed, and to whom."""
    return [(item.what, item.to) for item in lake.disclosed]


@pytest.fixture(scope="module")
def anes():
    """Voters of 1996: 944 rows, all numbers."""
    return sm.datasets.anes96.load_pandas().data.astype({"vote": bool})


@pytest.fixture(scope="module")
def holes(anes):
    """The same with a tenth of the values missing."""
    generator = np.random.default_rng(1)
    frame = anes[["age", "income", "popul", "vote"]].copy()
    for name in ("age", "income", "popul"):
        frame.loc[generator.random(len(frame)) < 0.1, name] = np.nan
    return frame


def upload(lake, frame, **options):
    name = f"table{len(lake.phases)}"
    return lake.upload(frame.assign(id=np.arange(len(frame))), name=name, key="id", owner="owner", **options)


def agree(found, wanted, spread, tolerance=2e-4):
    """Statistics of columns are within a part of the columns' deviations."""
    for name in wanted:
        for one in wanted.index:
            assert found[name][one] == pytest.approx(wanted.loc[one, name], abs=tolerance * spread[name]), (
                name,
                one,
            )


@pytest.mark.parametrize("name", ["breast cancer", "fair", "star98"])
def test_describe_equals_pandas(put, lake, data, name):
    source = data(name)
    frame = pd.DataFrame(source.X, columns=source.names).iloc[:, :6].assign(y=source.y.astype(float))
    found = put(source).describe([*frame.columns])
    agree(found, frame.describe(), frame.std())
    printed = found.to_frame()
    assert list(printed.index) == ["count", *STATISTICS]
    assert list(printed.columns) == list(frame.columns)
    assert str(found).splitlines()[0].endswith(f"{len(frame)} rows")


def test_missing_values_do_not_count(lake, holes):
    table = upload(lake, holes, missing="indicator")
    found = table.describe()
    assert list(found.values) == ["age", "income", "popul", "vote"]
    agree(found, holes.astype(float).describe(), holes.astype(float).std())


def test_filtered_rows_do_not_count(lake, holes):
    table = upload(lake, holes, missing="indicator")
    kept = table.filter((table["age"] > 40) & (table["income"] >= 10))
    frame = holes[(holes.age > 40) & (holes.income >= 10)].astype(float)
    agree(kept.describe(), frame.describe(), frame.std())
    few = table.filter(table["age"] > 88)
    found = few.describe(["popul", "vote"])
    agree(found, holes[holes.age > 88].astype(float)[["popul", "vote"]].describe(), holes.astype(float).std())


def test_no_rows_count(lake, holes):
    table = upload(lake, holes, missing="indicator")
    found = table.filter(table["age"] > 200).describe("vote")["vote"]
    assert found["count"] == 0
    assert all(np.isnan(found[one]) for one in STATISTICS)


def test_only_what_is_asked_for_is_disclosed(lake, anes, holes):
    table = upload(lake, anes[["age", "income"]])
    lake.disclosed.clear()
    table.describe("age", statistics=["mean"], to="doctor")
    assert told(lake) == [(f"mean of 'age' on {table.name!r}", "doctor")]
    lake.disclosed.clear()
    found = table.describe("age", statistics=["median", "90%"])
    assert told(lake) == [(ORDER, "the nodes"), (f"quantiles of 'age' on {table.name!r}", "analyst")]
    assert found["age"]["90%"] == pytest.approx(anes.age.quantile(0.9), abs=1e-2)
    secret = upload(lake, holes, missing="indicator")
    lake.disclosed.clear()
    secret.describe("age", statistics=["std"])
    names = [f"{what} of 'age' on {secret.name!r}" for what in ("count", "std")]
    assert [what for what, _ in told(lake)] == names


def test_unknown_statistics_are_refused(lake, anes):
    table = upload(lake, anes[["age"]])
    for name in ("mode", "101%", "x%"):
        with pytest.raises(PlanError, match="there is no statistic"):
            table.describe(statistics=[name])


# -- the minimum count ---------------------------------------------------------------------------------------


def test_quantiles_that_rest_on_few_rows_are_suppressed(lake):
    frame = pd.DataFrame({"x": np.arange(100.0)})
    shares = ["min", "3%", "5%", "50%", "95%", "97%", "max"]
    found = upload(lake, frame, min_count=5).describe(statistics=shares)["x"]
    assert [one for one in shares if np.isnan(found[one])] == ["min", "3%", "97%", "max"]
    assert found["5%"] == pytest.approx(np.quantile(frame.x, 0.05), abs=1e-3)


@pytest.mark.parametrize(("kept", "shown"), [(4, False), (5, True), (95, True), (96, False), (100, True)])
def test_counts_and_their_complements_are_kept(lake, kept, shown):
    """Of 100 rows, figures about 4 are suppressed; and about 96, which would tell of the other 4."""
    frame = pd.DataFrame({"x": np.arange(100.0), "y": np.arange(100) % 2})
    table = upload(lake, frame, min_count=5)
    some = table.filter(table["x"] < kept)
    found = some.describe("y", statistics=["mean", "std", "50%"])["y"]
    # With 5 rows, zeros and ones have fewer than 5 each.
    expected = {"count": shown, "mean": shown and kept >= 10, "std": shown and kept >= 10}
    for one, visible in expected.items():
        assert np.isnan(found[one]) != visible, one
    if shown:
        assert found["count"] == kept
    lake.disclosed.clear()
    if not shown:
        with pytest.raises(SchemaError, match="keeps or drops fewer than 5 rows"):
            table.filter(table["x"] < kept, compact=True)
        assert len(lake.disclosed) == 1
    else:
        assert len(table.filter(table["x"] < kept, compact=True)) == kept


def test_a_rare_condition_is_suppressed(lake):
    frame = pd.DataFrame({"rare": np.arange(100) < 3, "common": np.arange(100) < 40, "x": np.arange(100.0)})
    found = upload(lake, frame, min_count=5).describe(statistics=["mean"])
    assert np.isnan(found["rare"]["mean"])
    assert found["common"]["mean"] == pytest.approx(0.4, abs=1e-6)
    assert found["x"]["mean"] == pytest.approx(49.5, abs=1e-3)


def test_what_is_suppressed_is_not_sent(lake):
    """The numbers that reach the receiver are zeros where the rule says no."""
    table = upload(lake, pd.DataFrame({"x": np.arange(100.0) + 7}), min_count=5)
    some = table.filter(table["x"] < 9)
    seen, run = [], lake.__class__._run

    async def watched(self, plan, phase, asked=None):
        result = await run(self, plan, phase, asked)
        seen.append(result.revealed)
        return result

    lake.__class__._run = watched
    try:
        some.describe("x")
    finally:
        lake.__class__._run = run
    numbers = np.concatenate([np.atleast_1d(value) for revealed in seen for value in revealed.values()])
    assert not numbers.any()


def test_rows_of_ruled_tables_are_not_revealed(lake, anes):
    table = upload(lake, anes[["age"]], min_count=2)
    with pytest.raises(
        SchemaError, match="owners allow figures that rest on at least 2 rows, not single rows"
    ):
        table.reveal()
    with pytest.raises(SchemaError, match="not single rows"):
        table.assign(y=table["age"] + 1).reveal("y")
    with pytest.raises(SchemaError, match="have to rest on at least"):
        upload(lake, anes[["age"]].head(20), min_count=21).describe()


# -- cross tables --------------------------------------------------------------------------------------------


def test_crosstab_equals_pandas_and_scipy(lake, anes):
    table = upload(lake, anes[["educ", "vote", "PID"]], types={"educ": "integer", "PID": "integer"})
    known = {"educ": range(1, 8), "PID": range(7)}
    for columns in (("educ", "vote"), ("PID", "educ"), ("vote", "vote")):
        wanted = pd.crosstab(anes[columns[0]], anes[columns[1]])
        test = stats.chi2_contingency(wanted, correction=False)
        both = table.crosstab(*columns, categories=known)
        np.testing.assert_array_equal(both.to_frame().to_numpy(), wanted.to_numpy())
        assert both.test.statistic == pytest.approx(test.statistic, rel=1e-9)
        alone = table.crosstab(*columns, categories=known, statistics=["chi2"])
        assert alone.counts is None
        assert alone.test.statistic == pytest.approx(test.statistic, rel=1e-4)
        assert alone.test.dof == test.dof
        assert alone.test.p_value == pytest.approx(test.pvalue, abs=1e-5)
    assert "chi-square" in str(both)


def test_crosstab_of_rows_that_count(lake, holes):
    table = upload(lake, holes, missing="indicator", types={"income": "real"})
    frame = holes[holes.popul > 20]
    some = table.filter(table["popul"] > 20)
    some = some.assign(old=some["age"] > 45, rich=some["income"] > 16)
    frame = frame.assign(old=frame.age > 45, rich=frame.income > 16)[frame.age.notna() & frame.income.notna()]
    wanted = pd.crosstab(frame.old, frame.rich)
    found = some.crosstab("old", "rich")
    np.testing.assert_array_equal(found.counts, wanted)
    alone = some.crosstab("old", "rich", statistics=["chi2"]).test.statistic
    assert alone == pytest.approx(stats.chi2_contingency(wanted, correction=False).statistic, rel=1e-3)


@pytest.mark.parametrize(
    ("cells", "least", "shown"),
    [
        ([[40, 30], [20, 10]], 5, [[1, 1], [1, 1]]),
        ([[40, 30], [20, 3]], 5, [[1, 1], [0, 0]]),  # one small cell would follow from the total
        ([[40, 30], [3, 4]], 5, [[1, 1], [0, 0]]),  # two that are enough together
        ([[40, 30], [1, 2]], 5, [[1, 0], [0, 0]]),  # two that are too few together
        ([[40, 30], [20, 0]], 5, [[1, 1], [0, 0]]),  # none is small too
        ([[3, 2], [1, 0]], 5, [[0, 0], [0, 0]]),
        ([[9, 9], [9, 2]], 5, [[0, 1], [1, 0]]),  # ties: the first
    ],
)
def test_small_cells_are_suppressed(lake, cells, least, shown):
    """Also those that follow from the total and the others."""
    places = np.repeat(np.arange(4), np.ravel(cells))
    table = upload(lake, pd.DataFrame({"a": places // 2 > 0, "b": places % 2 > 0}), min_count=least)
    lake.disclosed.clear()
    found = table.crosstab("a", "b")
    titles = [f"{what} of 'a' by 'b' on {table.name!r}" for what in ("counts", "which cells the rule allows")]
    assert [what for what, _ in told(lake)] == titles
    np.testing.assert_array_equal(found.counts, np.where(shown, cells, np.nan))
    assert (found.test is None) == (not np.all(shown))
    lake.disclosed.clear()
    alone = table.crosstab("a", "b", statistics=["chi2"])
    assert (alone.test is None) == (not np.all(shown))
    assert len(lake.disclosed) == 2


def test_rows_of_no_category_count_as_hidden(lake):
    """With categories that leave two rows out, the total would tell those two."""
    grade = np.repeat([1, 2, 3], [50, 48, 2])
    frame = pd.DataFrame({"grade": grade, "flag": np.arange(100) % 2 > 0})
    table = upload(lake, frame, min_count=5)
    found = table.crosstab("grade", "flag", categories={"grade": [1, 2]}).counts
    assert np.isnan(found).sum() == 1
    assert np.nanmax(found) == 25


@pytest.mark.parametrize(
    ("columns", "kept", "categories", "when"),
    [
        (("grade", "flag"), "all", {}, "defined"),
        (("grade", "flag"), "all", {"grade": [1, 2, 3, 4]}, "defined with counts"),
        (("grade", "flag"), "all", {"grade": [1]}, "never"),
        (("grade", "same"), "all", {}, "never"),
        (("same", "grade"), "all", {}, "never"),
        (("grade", "flag"), "none", {}, "never"),
        (("grade", "flag"), "one grade", {}, "never"),
    ],
)
def test_a_test_of_nothing_is_missing(lake, columns, kept, categories, when):
    """Categories without rows have no degrees of freedom, and without any there is no test."""
    rows = pd.DataFrame(
        {"grade": np.arange(60) % 3 + 1, "flag": np.arange(60) % 7 < 3, "same": np.full(60, True)}
    )
    table = upload(lake, rows, types={"grade": "integer"}, ranges={"grade": (1, 3)})
    chosen = {"all": table["grade"] > 0, "none": table["grade"] > 5, "one grade": table["grade"] == 2}[kept]
    some = table.filter(chosen)
    both = some.crosstab(*columns, categories=categories)
    alone = some.crosstab(*columns, categories=categories, statistics=["chi2"])
    assert lake.disclosed[-1].size == "1"  # the statistic, and no bit beside it
    if when != "never":
        wanted = stats.chi2_contingency(pd.crosstab(rows[columns[0]], rows[columns[1]]), correction=False)
        assert (both.test.statistic, both.test.dof) == (pytest.approx(wanted.statistic), wanted.dof)
        assert both.test.p_value == pytest.approx(wanted.pvalue)
    for found, defined in ((both, when != "never"), (alone, when == "defined")):
        assert np.isnan(found.test.statistic) != defined
        assert np.isnan(found.test.p_value) != defined
        assert ("chi-square nan: it takes two categories or more" in str(found)) != defined
    if when == "defined":
        assert alone.test.statistic == pytest.approx(both.test.statistic, rel=1e-4, abs=1e-6)


def test_one_row_has_no_spread_and_no_correlation(lake):
    """As pandas says; and a column that does not vary correlates with none."""
    rows = pd.DataFrame({"x": np.arange(20.0), "same": np.full(20, 3.7), "flag": np.arange(20) < 9})
    table = upload(lake, rows)
    one = table.filter((table["x"] > 4.5) & (table["x"] < 5.5))
    found = one.describe()
    assert [found[name]["count"] for name in rows] == [1, 1, 1]
    assert np.isnan([found[name]["std"] for name in rows]).all()
    assert found["x"]["mean"] == pytest.approx(5, abs=1e-3)
    assert np.isnan(one.corr(["x", "flag"]).values).all()
    assert "- is not defined, of values" in str(found)
    assert "- is not defined, of values" in str(one.corr(["x", "flag"]))
    assert "defined" not in str(table.describe("x"))
    corr = table.corr(["x", "same", "flag"]).to_frame()
    pd.testing.assert_frame_equal(corr.isna(), rows.assign(same=3.0).corr().isna())
    assert np.isnan(upload(lake, rows.head(1)).describe("x")["x"]["std"])


def test_categories_are_public(lake, anes):
    frame = anes[["educ", "age"]].assign(half=anes.age / 2)
    table = upload(lake, frame, types={"educ": "integer"}, ranges={"educ": (1, 7)})
    assert table.crosstab("educ", "educ").counts.shape == (7, 7)
    with pytest.raises(SchemaError, match="is real and has no public categories"):
        table.crosstab("educ", "half")
    with pytest.raises(SchemaError, match="name each one once"):
        table.crosstab("educ", "educ", categories={"educ": [1, 1]})
    with pytest.raises(PlanError, match="'counts' and 'chi2'"):
        table.crosstab("educ", "educ", statistics=["fisher"])


# -- correlations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["breast cancer", "fair"])
def test_correlations_equal_pandas(put, data, name, lake):
    source = data(name)
    table = put(source)
    frame = pd.DataFrame(source.X, columns=source.names).iloc[:, :9].assign(y=source.y)
    lake.disclosed.clear()
    found = table.corr(list(frame.columns))
    assert told(lake) == [(f"correlations on {table.name!r}", "analyst")]
    np.testing.assert_allclose(found.to_frame(), frame.corr(), atol=1e-4)


def test_correlations_of_rows_that_count(lake, holes):
    table = upload(lake, holes.assign(same=3.5), missing="indicator", min_count=4)
    some = table.filter(table["age"] > 30)
    frame = holes[holes.age > 30].dropna().astype(float)
    found = some.corr(["age", "income", "popul", "vote", "same"])
    assert np.isnan(found.values[-1]).all()
    np.testing.assert_allclose(found.values[:4, :4], frame.corr(), atol=2e-4)
    few = table.filter(table["age"] > 90).corr(["age", "income"])
    assert np.isnan(few.values).all() == ((holes.age > 90).sum() < 4)
    with pytest.raises(SchemaError, match="takes two columns or more"):
        table.corr(["age"])


def test_columns_of_long_numbers_stay_apart():
    numbers = np.linspace(-1, 1, 12) * 1.2345e-5
    with tercet.local(protocol="plain") as lake:
        columns = {"id": range(12), "a": numbers, "b": numbers}
        described = str(lake.upload(columns, name="long", key="id", owner="o").describe(["a", "b"]))
    for line in described.splitlines()[2:]:
        assert len(line.split()) == 3, line
