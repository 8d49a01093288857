"""Prepared tables hold the right rows and columns, work wherever tables do, and disclose what they say."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression as ClearModel
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler as ClearScaler

import tercet
from tercet.errors import SchemaError
from tercet.ml import LogisticRegression, MinMaxScaler, StandardScaler
from tercet.ml.transformers import NONE_LEFT

pytestmark = pytest.mark.cases
ROWS = 400
COUNT = "the number of rows that a filter keeps"
FLAGS = "which of the shuffled rows a filter keeps"


@pytest.fixture(scope="module")
def frame():
    generator = np.random.default_rng(2)
    age, bmi = generator.normal(50, 12, ROWS), generator.normal(25, 5, ROWS)
    odds = 0.05 * (age - 50) + 0.1 * (bmi - 25)
    return pd.DataFrame(
        {
            "id": generator.permutation(10 * ROWS)[:ROWS],
            "age": age,
            "bmi": bmi,
            "visits": generator.poisson(4, ROWS),
            "ill": generator.random(ROWS) < 1 / (1 + np.exp(-odds)),
        }
    )


@pytest.fixture
def table(lake, frame):
    return lake.upload(frame, name="clinic", key="id", owner="clinic")


def whats(lake):
    return [item.what for item in lake.disclosed]


def same_rows(table, frame, names):
    found = pd.DataFrame(table.reveal(list(names))).sort_values(list(names), ignore_index=True)
    wanted = frame[list(names)].sort_values(list(names), ignore_index=True)
    np.testing.assert_allclose(found.astype(float), wanted.astype(float), atol=1e-3)


def test_columns_are_chosen_replaced_and_added(table, frame, lake):
    lake.disclosed.clear()
    some = table[["bmi", "age"]]
    made = some.assign(bmi=table["bmi"] + 1, double=some["age"] * 2).assign(flag=table["visits"] > 3)
    assert lake.disclosed == []
    assert made.column_names == ["bmi", "age", "double", "flag"]
    found = made.reveal()
    np.testing.assert_allclose(found["bmi"], frame.bmi + 1, atol=1e-3)
    np.testing.assert_allclose(found["double"], frame.age * 2, atol=1e-3)
    np.testing.assert_array_equal(found["flag"], frame.visits > 3)
    assert [column.owner for column in made.columns] == ["clinic"] * 4


def test_a_filter_that_compacts(table, frame, lake):
    lake.disclosed.clear()
    kept = table.filter((table["age"] > 50) & (table["visits"] <= 4), compact=True)
    assert whats(lake) == [FLAGS, COUNT]
    wanted = frame[(frame.age > 50) & (frame.visits <= 4)]
    assert len(kept) == len(wanted)
    assert kept.selection == ()
    same_rows(kept, wanted, ["age", "bmi", "visits", "ill"])


@pytest.mark.parametrize("bound", [-100, 1000])
def test_a_filter_may_keep_all_or_nothing(table, bound):
    kept = table.filter(table["age"] > bound, compact=True)
    assert len(kept) == (ROWS if bound < 0 else 0)
    assert len(kept.reveal("visits")["visits"]) == len(kept)


def test_a_filter_as_weights_discloses_nothing(table, frame, lake):
    lake.disclosed.clear()
    young = table.filter(table["age"] < 50)
    both = young.filter(young["visits"] > 2)
    assert lake.disclosed == []
    assert len(both) == ROWS
    assert len(both.selection) == 2
    builder = lake.builder("selected")
    both.selected(builder).reveal("rows", to="test")
    rows = lake.run(builder.plan()).revealed["rows"]
    np.testing.assert_array_equal(rows, (frame.age < 50) & (frame.visits > 2))
    assert len(both.filter(both["bmi"] > 25, compact=True)) == int(
        ((frame.age < 50) & (frame.visits > 2) & (frame.bmi > 25)).sum()
    )


def test_filters_go_through_joins_and_splits(table, frame, lake):
    other = frame[["id"]].assign(height=np.arange(ROWS) * 1.0).sample(frac=0.8, random_state=1)
    heights = lake.upload(other, name="heights", key="id", owner="school")
    joined = table.filter(table["age"] > 45).join(heights.filter(heights["height"] > 100), on="id")
    train, test = joined.assign(ratio=joined["age"] / 2).split(test_size=0.5)
    wanted = frame.merge(other, on="id")
    wanted = wanted[(wanted.age > 45) & (wanted.height > 100)].assign(ratio=wanted.age / 2)
    found = [part.filter(part["age"] > 0, compact=True) for part in (train, test)]
    assert sum(map(len, found)) == len(wanted)
    revealed = [pd.DataFrame(part.reveal(["age", "height", "ratio"])) for part in found]
    together = pd.concat(revealed).sort_values("height", ignore_index=True)
    wanted = wanted[["age", "height", "ratio"]].sort_values("height", ignore_index=True)
    np.testing.assert_allclose(together, wanted, atol=0.02)


def test_prepared_columns_are_modelled(table, frame, lake):
    """A fit on prepared columns is the fit on the same columns made in the clear."""
    made = table.assign(
        obese=table["bmi"] > 30,
        product=table["age"].clip(0, 100) * table["bmi"].clip(10, 60),
        square=table["age"] ** 2,
    )
    names = ["age", "bmi", "obese", "product", "square"]
    clear = frame.assign(obese=frame.bmi > 30, product=frame.age * frame.bmi, square=frame.age**2)
    uploaded = lake.upload(clear, name="clear", key="id", owner="clinic")
    found, wanted = (
        LogisticRegression(C=1.0)
        .fit(StandardScaler().fit_transform(one), target="ill", features=names)
        .reveal()
        for one in (made, uploaded)
    )
    np.testing.assert_allclose(found.coef_[0], wanted.coef_[0], atol=3e-3)
    kept = made.filter(made["age"] > 40, compact=True)
    train, test = kept.split(test_size=0.5)
    model = LogisticRegression().fit(train, target="ill", features=names)
    rows = pd.DataFrame(test.reveal([*names, "ill"]))
    scored = rows[names].to_numpy(float) @ model.reveal().coef_[0]
    area = model.evaluate(test).reveal("roc_auc").roc_auc
    assert area == pytest.approx(roc_auc_score(rows["ill"], scored), abs=2e-3)


def test_wrong_filters_are_refused(table, lake):
    refused = {
        "is real, not a condition": table["age"],
        "not an expression": True,
    }
    for message, condition in refused.items():
        with pytest.raises(SchemaError, match=message):
            table.filter(condition)
    kept = table.filter(table["age"] > 50, compact=True)
    with pytest.raises(SchemaError, match="whose rows are not those"):
        kept.filter(table["age"] > 60)


@pytest.mark.parametrize("least", [30, 55, 75])
def test_a_filter_as_weights_is_as_if_rows_were_dropped(table, frame, lake, least):
    """Scalers, fits and metrics of a filtered table are those of the rows that it keeps."""
    kept = table.filter(table["age"] > least)
    rows = frame[frame.age > least]
    lake.disclosed.clear()
    scaler = StandardScaler(columns=["age", "bmi"]).fit(kept)
    scaled = scaler.transform(kept)
    assert [item.what for item in lake.disclosed] == [NONE_LEFT]
    learned, clear = scaler.reveal(), ClearScaler().fit(rows[["age", "bmi"]])
    np.testing.assert_allclose((learned.mean_ - clear.mean_) / clear.scale_, 0, atol=1e-3)
    np.testing.assert_allclose(learned.scale_, clear.scale_, rtol=1e-3)
    if least == 75:  # too few rows for a fit
        return
    features = clear.transform(rows[["age", "bmi"]])
    wanted = ClearModel(tol=1e-10).fit(features, rows.ill)
    model = LogisticRegression().fit(scaled, target="ill", features=["age", "bmi"])
    np.testing.assert_allclose(model.reveal().coef_[0], wanted.coef_[0], atol=2e-3)
    auc = roc_auc_score(rows.ill, wanted.decision_function(features))
    assert model.evaluate(scaled).reveal("roc_auc").roc_auc == pytest.approx(auc, abs=2e-3)


def test_tiles_change_nothing():
    """Tables of many small tiles: the same columns, filters and statistics as in one tile."""
    generator = np.random.default_rng(8)
    frame = pd.DataFrame(
        {"id": np.arange(200), "x": generator.normal(5, 1, 200), "y": generator.poisson(2, 200)}
    )
    frame.loc[::7, "x"] = np.nan
    found = []
    for tile_rows in (64, 1 << 16):
        with tercet.local(protocol="plain", tile_rows=tile_rows) as lake:
            table = lake.upload(
                frame, name="t", key="id", owner="o", missing="indicator", ranges={"y": (0, 20)}
            )
            made = table.assign(
                q=table["y"] / table["x"].clip(1, 10),
                p=table["x"] * table["x"],
                c=table["x"].where(table["y"] > 1, 2),
            )
            kept = made.filter((made["y"] < 5) & (made["x"] > 4))
            scaled = MinMaxScaler(columns="y").fit_transform(kept)
            numbers = [
                kept.describe(["q", "p"]).to_frame().to_numpy(),
                kept.corr(["x", "y"]).values,
                kept.crosstab("y", "y", categories={"y": range(4)}, statistics=["chi2"]).test.statistic,
                scaled.describe("y", statistics=["mean", "std"]).to_frame().to_numpy(),
                len(made.filter(made["x"] > 5, compact=True)),
            ]
            found.append(np.concatenate([np.ravel(one) for one in numbers]))
    np.testing.assert_allclose(found[0], found[1], atol=2e-2, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_tables_of_hardly_any_rows(lake, rows):
    values = {"x": np.array([1.5, 2.5, 3.0])[:rows], "y": np.array([1, 0, 1])[:rows]}
    source = {"id": np.arange(rows), **values}
    table = lake.upload(source, name="few", key="id", owner="o", types={"y": "boolean"})
    made = table.assign(square=table["x"] ** 2, half=1 / table["x"].clip(1, 4))
    np.testing.assert_allclose(made.reveal("square")["square"], values["x"] ** 2, atol=2e-3)
    np.testing.assert_allclose(made.reveal("half")["half"], 1 / values["x"], atol=2e-4)
    found = made.describe("x")["x"]
    wanted = pd.Series(values["x"]).describe()
    for one in wanted.index:
        assert found[one] == pytest.approx(wanted[one], abs=1e-3, nan_ok=True), one
    np.testing.assert_array_equal(made.crosstab("y", "y").counts.trace(), rows)
    kept = made.filter(made["x"] > 2, compact=True)
    assert len(kept) == (values["x"] > 2).sum()
    scaled = MinMaxScaler(columns="x").fit_transform(made).reveal("x")["x"]
    assert scaled.max() == pytest.approx(float(rows > 1), abs=1e-4)
    if not len(kept):
        with pytest.raises(SchemaError, match="has 0 rows"):
            kept.describe()
        with pytest.raises(SchemaError, match="has 0 rows"):
            kept.assign(z=kept["x"] + 1)


def test_a_few_rows_of_many_wide_ones(plain):
    """Scalers and correlations of 40 rows of 200,000, of integers stored as they are."""
    generator = np.random.default_rng(5)
    rows = 200_000
    frame = pd.DataFrame({"id": np.arange(rows), "x": generator.normal(50, 12, rows)})
    frame["count"] = generator.integers(0, 10**6, rows)
    table = plain.upload(frame, name="many", key="id", owner="o")
    some, clear = table.filter(table["x"] > float(frame.x.nlargest(41)[-2:].mean())), frame.nlargest(40, "x")
    learned = StandardScaler().fit(some).reveal()
    np.testing.assert_allclose(learned.scale_, clear[["x", "count"]].std(ddof=0), rtol=2e-3)
    np.testing.assert_allclose((learned.mean_ - clear[["x", "count"]].mean()) / learned.scale_, 0, atol=2e-3)
    np.testing.assert_allclose(some.corr(["x", "count"]).values, clear[["x", "count"]].corr(), atol=2e-3)
    agreed = some.describe(statistics=["mean", "std"])["count"]
    assert agreed["count"] == 40
    assert agreed["std"] == pytest.approx(clear["count"].std(), rel=1e-6)
