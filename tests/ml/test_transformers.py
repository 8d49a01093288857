"""Imputing by means and scaling by extremes against scikit-learn's, and what they disclose."""

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler as ClearMinMax

from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression, MeanImputer, MinMaxScaler, StandardScaler
from tercet.ml.transformers import NONE_LEFT

pytestmark = pytest.mark.cases
NAMES = ["age", "income", "visits", "flag"]
ORDER = "comparisons of shuffled rows, a random order"


@pytest.fixture(scope="module")
def frame():
    generator = np.random.default_rng(6)
    found = pd.DataFrame(
        {
            "age": generator.normal(50, 12, 300),
            "income": generator.lognormal(10, 1, 300),
            "visits": generator.poisson(3, 300).astype(float),
            "flag": generator.random(300) < 0.4,
            "whole": generator.integers(0, 9, 300),
        }
    ).astype({"flag": object})
    for name in NAMES:
        found.loc[generator.random(300) < 0.15, name] = None
    return found


@pytest.fixture
def upload(lake, frame):
    def put(rows=slice(None)):
        some = frame.iloc[rows].assign(id=np.arange(300)[rows])
        return lake.upload(some, name=f"t{len(lake.phases)}", key="id", owner="owner", missing="indicator")

    return put


def numbers(frame):
    return frame[NAMES].astype(float).to_numpy()


def test_means_fill_what_is_missing(upload, frame, lake):
    table = upload()
    lake.disclosed.clear()
    filled = MeanImputer().fit_transform(table)
    assert [item.what for item in lake.disclosed] == [NONE_LEFT]
    assert filled.column_names == table.column_names
    found, wanted = filled.reveal(), SimpleImputer().fit_transform(numbers(frame))
    for place, name in enumerate(NAMES):
        np.testing.assert_allclose(found[name], wanted[:, place], atol=2e-4 * wanted[:, place].std())
        np.testing.assert_array_equal(found[f"{name}_missing"], frame[name].isna())
    kinds = {column.name: column.schema.kind for column in filled.columns}
    assert [kinds[name] for name in NAMES] == ["real"] * 4
    assert all(column.schema.missing is None for column in filled.columns)


def test_means_of_one_table_fill_another(upload, frame, lake):
    first, second = upload(slice(0, 200)), upload(slice(200, 300))
    imputer = MeanImputer(columns=["age", "visits"]).fit(first)
    lake.disclosed.clear()
    filled = imputer.transform(second)
    checked = "whether a value of 'age', 'visits' left its range"
    assert [(item.what, item.to) for item in lake.disclosed] == [(checked, "analyst")]
    wanted = SimpleImputer().fit(numbers(frame)[:200]).transform(numbers(frame)[200:])
    found = filled.reveal(["age", "visits"])
    np.testing.assert_allclose(found["age"], wanted[:, 0], atol=5e-3)
    np.testing.assert_allclose(found["visits"], wanted[:, 2], atol=5e-4)


def test_means_of_rows_that_a_filter_keeps(upload, frame):
    table = upload()
    kept = table.filter(table["whole"] > 4)
    found = MeanImputer(columns="age").fit_transform(kept).reveal("age")["age"]
    mean = frame.age[frame.whole > 4].astype(float).mean()
    np.testing.assert_allclose(found[frame.age.isna()], mean, atol=1e-2)


def test_means_that_do_not_fit_another_table_are_told(lake):
    def put(values, name):
        columns = {"id": np.arange(len(values)), "x": np.array(values)}
        return lake.upload(columns, name=name, key="id", owner="o", missing="indicator", scales={"x": 14})

    odd = put([np.nan, 3000.0, 3000.5, 3001.0], "odd")
    usual = put([0.0, 1.0, 2.0, *[np.nan] * 50], "usual")
    with pytest.raises(SchemaError, match="learned from 'odd', columns 'x' spread further"):
        MeanImputer().fit(odd).transform(usual)


def test_extremes_become_zero_and_one(upload, frame, lake):
    table = MeanImputer().fit_transform(upload())
    lake.disclosed.clear()
    scaled = MinMaxScaler(columns=["age", "income", "whole"]).fit_transform(table)
    assert [(item.what, item.to) for item in lake.disclosed] == [(ORDER, "the nodes")] * 3
    filled = SimpleImputer().fit_transform(numbers(frame))
    clear = np.column_stack([filled[:, :2], frame.whole])
    wanted, found = ClearMinMax().fit_transform(clear), scaled.reveal()
    for place, name in enumerate(["age", "income", "whole"]):
        np.testing.assert_allclose(found[name], wanted[:, place], atol=1e-4)
        assert scaled.column(name).schema.range is not None
    assert scaled.describe("age", statistics=["max"])["age"]["max"] == pytest.approx(1, abs=1e-4)


def test_extremes_of_one_table_scale_another(lake, upload, frame):
    columns = frame[["whole"]].assign(same=4.5, id=np.arange(300))
    low = lake.upload(columns[columns.whole.between(2, 6)], name="low", key="id", owner="o")
    high = lake.upload(columns, name="high", key="id", owner="o")
    found = MinMaxScaler().fit(low).transform(high).reveal()
    np.testing.assert_allclose(found["whole"], ((columns.whole - 2) / 4).clip(0, 1), atol=1e-4)
    assert not found["same"].any()


def test_a_pipeline_in_the_lake(upload, frame, lake):
    """Impute, scale and fit, against scikit-learn; missing values are never used unfilled."""
    table = upload()
    table = table.assign(ill=table["whole"] > 4)
    for attempt in (
        lambda: LogisticRegression().fit(table, target="ill", features="age"),
        lambda: LogisticRegression().fit(table, target="flag", features="whole"),
        lambda: StandardScaler(columns="income").fit(table),
        lambda: MinMaxScaler().fit(table),
    ):
        with pytest.raises(SchemaError, match=r"may have missing values: fill them with MeanImputer\(\)"):
            attempt()
    ready = MinMaxScaler(columns=["age", "income"]).fit_transform(MeanImputer().fit_transform(table))
    model = LogisticRegression().fit(ready, target="ill", features=["age", "income", "age_missing"])
    from sklearn.linear_model import LogisticRegression as ClearModel

    scaled = ClearMinMax().fit_transform(SimpleImputer().fit_transform(numbers(frame))[:, :2])
    clear = ClearModel(tol=1e-10).fit(np.column_stack([scaled, frame.age.isna()]), frame.whole > 4)
    np.testing.assert_allclose(model.reveal().coef_[0], clear.coef_[0], atol=2e-3)


def test_rows_with_missing_values_are_dropped(upload, frame, lake):
    table = upload()
    lake.disclosed.clear()
    some = table.dropna(["age", "visits"])
    assert lake.disclosed == []
    assert len(some) == 300
    found = table.dropna(compact=True)
    assert len(found) == len(frame.dropna())
    assert table[["whole"]].dropna() is not None
    model = LogisticRegression().fit(
        found.assign(ill=found["whole"] > 4), target="ill", features=["age", "visits"]
    )
    assert model.reveal().coef_.shape == (1, 2)


def test_expressions_of_missing_values(upload, frame):
    table = upload()
    made = table.assign(
        sum=table["age"] + table["visits"],
        filled=table["age"].fillna(1),
        gone=table["age"].isna() & table["flag"].isna(),
    )
    found = made.reveal(["sum", "sum_missing", "filled", "gone"])
    missing = frame.age.isna() | frame.visits.isna()
    np.testing.assert_array_equal(found["sum_missing"], missing)
    total = (frame.age.astype(float) + frame.visits.astype(float))[~missing]
    np.testing.assert_allclose(found["sum"][~missing], total, atol=2e-3)
    np.testing.assert_allclose(found["filled"], frame.age.astype(float).fillna(1), atol=1e-2)
    np.testing.assert_array_equal(found["gone"], frame.age.isna() & frame.flag.isna())
    assert made.column("filled").schema.missing is None
    assert table[["age"]].column_names == ["age", "age_missing"]
    assert not made.assign(no=table["whole"].isna()).reveal("no")["no"].any()


def test_what_cannot_be_right_is_refused(upload, lake):
    table = upload()
    with pytest.raises(PlanError, match="this MinMaxScaler has not learned anything yet"):
        MinMaxScaler().transform(table)
    with pytest.raises(SchemaError, match="'whole' has no missing values to fill"):
        MeanImputer(columns="whole").fit(table)
    with pytest.raises(SchemaError, match="there is nothing to fill"):
        MeanImputer().fit(table[["whole"]])
    with pytest.raises(SchemaError, match="no numeric column to scale"):
        MinMaxScaler().fit(table.assign(b=table["whole"] > 2)[["b"]])


def test_a_scaler_of_other_rows_says_if_they_spread_too_far(lake):
    """Bounds of fits rest on the spreads of columns, so what a scaler makes of other rows is checked."""
    generator = np.random.default_rng(1)

    def put(values, name):
        return lake.upload(
            {"id": np.arange(90), "x": values}, name=name, key="id", owner="o", scales={"x": 12}
        )

    x = generator.normal(size=90)
    narrow, near, far = put(x, "narrow"), put(3 * x + 1, "near"), put(9 * x, "far")
    scaler = StandardScaler().fit(narrow)
    lake.disclosed.clear()
    found = scaler.transform(near).reveal("x")["x"]
    np.testing.assert_allclose(found, (3 * x + 1 - x.mean()) / x.std(), atol=0.05)
    assert lake.disclosed[0].what == "whether a value of 'x' left its range"
    some = narrow.filter((narrow["x"] > 0) & (narrow["x"] < 0.1))
    made_anew = narrow.assign(x=narrow["x"] * 64)
    for learned, other in ((narrow, far), (some, narrow), (narrow, made_anew)):
        with pytest.raises(SchemaError, match=f"learned from '{learned.name}', columns 'x' spread further"):
            StandardScaler().fit(learned).transform(other)


def test_rows_that_a_filter_drops_do_not_widen_a_scaled_column(lake):
    x = np.append(np.linspace(-1, 1, 50), [300.0, -900.0])
    table = lake.upload({"id": np.arange(52), "x": x}, name="t", key="id", owner="o", scales={"x": 8})
    kept = table.filter((table["x"] < 2) & (table["x"] > -2))
    lake.disclosed.clear()
    scaled = StandardScaler().fit_transform(kept)
    assert [item.what for item in lake.disclosed] == [NONE_LEFT]
    found = scaled.reveal()["x"]
    np.testing.assert_allclose(found[:50], x[:50] / x[:50].std(), atol=2e-2)
    np.testing.assert_array_equal(found[50:], 0)


def test_a_filled_column_has_the_bounds_of_both_tables(lake):
    def put(values, name, **options):
        columns = {"id": np.arange(len(values)), "x": np.array(values)}
        return lake.upload(columns, name=name, key="id", owner="o", missing="indicator", **options)

    first = put([1.0, 2.0, np.nan], "a", ranges={"x": (0, 3)})
    third = put([1.0, np.nan], "c")
    imputer = MeanImputer().fit(first)
    assert imputer.transform(first).column("x").schema.range == (0, 3)
    assert imputer.transform(third).column("x").schema.range is None
    filled = MeanImputer().fit(put([1.5, np.nan, 2.5], "d", ranges={"x": (1, 9)})).transform(first)
    assert filled.column("x").schema.range == (0, 9)


@pytest.mark.parametrize("transformer", [StandardScaler, MinMaxScaler, MeanImputer])
def test_nothing_is_learned_from_no_row(lake, transformer):
    """Where a filter or missing values leave none, no number is made up, nor taken from other rows."""
    x = np.where(np.arange(20) < 5, 7.5, np.nan)
    columns = {"id": np.arange(20), "x": x, "z": np.arange(20.0)}
    table = lake.upload(columns, name="t", key="id", owner="o", missing="indicator")
    column = "x" if transformer is MeanImputer else "z"
    empty = [table.filter(table["z"] > 50)]
    if transformer is MeanImputer:
        empty.append(table.filter(table["z"] > 10))
    for one in empty:
        made = transformer(columns=column)
        with pytest.raises(SchemaError, match=f"{transformer.__name__} would learn from no value at all"):
            made.fit(one)
        with pytest.raises(PlanError, match="has not learned anything yet"):
            made.transform(table)
    transformer(columns=column).fit(table.filter(table["z"] < 1.5))
