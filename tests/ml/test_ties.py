"""What is equal in the clear and is compared, sorted or counted stays equal, whatever rounds it on the way.

Under every protocol: where masks decide how a number is rounded, equal rows come apart, and each test here
fails. All of it is deterministic but for the shares, so there are no false alarms: equal means equal.
"""

import functools

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression, MeanImputer, MinMaxScaler, StandardScaler

ROWS = 240
PROTOCOLS = ("replicated", "plain", "shamir", "rep4")
pytestmark = [pytest.mark.cases, pytest.mark.early]


@pytest.fixture(scope="module", params=PROTOCOLS)
def lake(request):
    with tercet.local(protocol=request.param) as opened:
        yield opened


@functools.cache
def data(seed=5):
    """Few patterns of predictors: whole numbers, decimals, conditions, and quotients of them in the clear."""
    random = np.random.default_rng(seed)
    found = pd.DataFrame(
        {
            "id": np.arange(ROWS),
            "grade": random.integers(1, 4, ROWS),
            "dose": random.integers(1, 31, ROWS),
            "tenths": random.integers(-9, 10, ROWS) / 10,
            "price": random.integers(100, 120, ROWS) / 100,
            "smoker": random.random(ROWS) < 0.4,
        }
    )
    found["tenth"] = found["dose"] / 10
    found["ratio"] = found["grade"] / found["dose"]
    found["total"] = (found["tenths"] + found["price"]).round(2)
    found["y"] = random.random(ROWS) < 1 / (1 + np.exp(1.5 - 0.4 * found["grade"] - found["tenths"]))
    return found


@pytest.fixture(scope="module")
def table(lake):
    return lake.upload(data(), name="few", key="id", owner="o", ranges={"dose": (1, 30), "price": (1, 1.2)})


def same_groups(patterns, numbers):
    """Whether rows of one pattern have one number."""
    return all(len(set(group)) == 1 for _, group in pd.Series(numbers).groupby(patterns))


def patterns(names):
    return data().groupby(list(names)).ngroup().to_numpy()


# -- transformers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaler", [StandardScaler, MinMaxScaler])
def test_scaled_columns_have_as_many_values_as_before(table, scaler):
    names = ["grade", "dose", "tenths", "price"]
    scaled = scaler(columns=names).fit_transform(table).reveal(names)
    for name in names:
        assert same_groups(data()[name], scaled[name]), name
        assert len(set(scaled[name])) == data()[name].nunique(), name


@pytest.mark.parametrize("scaler", [StandardScaler, MinMaxScaler])
def test_rows_of_another_table_that_is_stored_more_finely_stay_equal(lake, table, scaler):
    other = data().assign(grade=data()["grade"] / 100)
    finer = lake.upload(other, name="finer", key="id", owner="o", columns=["grade"])
    fitted = scaler(columns=["grade"]).fit(table[["grade"]])
    values = fitted.transform(finer).reveal("grade")["grade"]
    assert same_groups(other["grade"], values)


def test_filled_columns_keep_their_values_and_one_more(lake):
    known = data()["tenths"].mask(np.arange(ROWS) % 5 == 0)
    gaps = lake.upload(
        {"id": np.arange(ROWS), "x": known}, name="gaps", key="id", owner="o", missing="indicator"
    )
    filled = MeanImputer().fit_transform(gaps).reveal("x")["x"]
    assert same_groups(known.fillna(99.0), filled)


def test_a_scaler_after_a_scaler_and_arithmetic_keeps_values_together(table):
    scaled = StandardScaler(columns=["dose", "tenths"]).fit_transform(table)
    again = MinMaxScaler(columns=["dose", "tenths"]).fit_transform(scaled)
    made = again.assign(z=again["dose"] * again["tenths"] / 3).reveal(["dose", "tenths", "z"])
    assert same_groups(data()["dose"], made["dose"])
    assert same_groups(data()["tenths"], made["tenths"])
    assert same_groups(patterns(["dose", "tenths"]), made["z"])


# -- column arithmetic ---------------------------------------------------------------------------------------

COMPUTED = {
    "a tenth": (lambda t: t["dose"] / 10, ["dose"]),
    "a third": (lambda t: t["tenths"] / 3, ["tenths"]),
    "an odd factor": (lambda t: t["price"] * 0.37, ["price"]),
    "a product of decimals": (lambda t: t["tenths"] * t["price"], ["tenths", "price"]),
    "a product of three": (lambda t: t["tenths"] * t["price"] * t["dose"], ["tenths", "price", "dose"]),
    "a power": (lambda t: t["tenths"] ** 3, ["tenths"]),
    "a sum of thirds": (lambda t: t["tenths"] / 3 + t["price"] / 7, ["tenths", "price"]),
    "a quotient": (lambda t: t["tenths"] / t["price"], ["tenths", "price"]),
    "a reciprocal": (lambda t: 1 / t["dose"], ["dose"]),
    "a negative divisor": (lambda t: t["tenths"] / -t["dose"], ["tenths", "dose"]),
    "a choice": (
        lambda t: (t["tenths"] / 3).where(t["smoker"], t["price"] / 7),
        ["tenths", "price", "smoker"],
    ),
    "a clipped third": (lambda t: (t["tenths"] / 3).clip(-0.1, 0.2), ["tenths"]),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_columns_are_equal_where_what_they_read_is(table, name):
    write, reads = COMPUTED[name]
    values = table.assign(z=write(table)).reveal("z")["z"]
    assert same_groups(patterns(reads), values)


def test_quotients_are_the_nearest_and_equal_fractions_are_equal(table):
    made = table.assign(q=table["grade"] / table["dose"])
    values, scale = made.reveal("q")["q"], made.column("q").schema.scale
    np.testing.assert_allclose(values, data()["ratio"], atol=0.51 * 2.0**-scale, rtol=0)
    assert same_groups(data()["ratio"].round(12), values)  # 1/2, 2/4 and 3/6 are one number


def always(known):
    return known["id"] >= 0


def never(known):
    return known["id"] < 0


CONDITIONS = {
    "a tenth and a number": (lambda t: t["dose"] / 10 == 0.3, lambda d: d["dose"] == 3),
    "a tenth that is not below": (lambda t: t["dose"] / 10 < 0.3, lambda d: d["dose"] < 3),
    "a tenth that is not above": (lambda t: t["dose"] / 10 > 0.3, lambda d: d["dose"] > 3),
    "a tenth and an uploaded one": (lambda t: t["dose"] / 10 == t["tenth"], always),
    "an uploaded tenth is not below": (lambda t: t["tenth"] < t["dose"] / 10, never),
    "a quotient and an uploaded one": (lambda t: t["grade"] / t["dose"] == t["ratio"], always),
    "a quotient and a half": (lambda t: t["grade"] / t["dose"] >= 0.5, lambda d: 2 * d["grade"] >= d["dose"]),
    "a sum and an uploaded one": (lambda t: t["tenths"] + t["price"] == t["total"], always),
    "a decimal and a number": (lambda t: t["tenths"] == 0.3, lambda d: d["tenths"] == 0.3),
    "a decimal below itself": (lambda t: t["tenths"] < 0.3, lambda d: d["tenths"] < 0.3),
    "a decimal at least itself": (lambda t: t["tenths"] >= 0.3, lambda d: d["tenths"] >= 0.3),
    "among numbers": (lambda t: t["tenths"].isin([0.1, 5]), lambda d: d["tenths"] == 0.1),
    "scales": (lambda t: t["price"] == t["tenths"] + 1, lambda d: d["price"] == round(d["tenths"] + 1, 1)),
    "an integer and a fraction": (lambda t: t["dose"] <= 2.5, lambda d: d["dose"] <= 2),
    "an integer that is no fraction": (lambda t: t["dose"] == 2.5, never),
    "thirds of two columns": (lambda t: t["dose"] / 3 == t["grade"] / 3, lambda d: d["dose"] == d["grade"]),
    "a product of integers": (lambda t: t["dose"] * t["grade"] == 12, lambda d: d["dose"] * d["grade"] == 12),
}  # fmt: skip


@pytest.mark.parametrize("name", CONDITIONS)
def test_what_is_equal_in_the_clear_compares_as_equal(table, name):
    condition, known = CONDITIONS[name]
    found = table.assign(z=condition(table)).reveal("z")["z"]
    np.testing.assert_array_equal(found, known(data()).to_numpy(dtype=bool))


def test_cross_tables_and_quantiles_of_computed_columns_are_those_in_the_clear(table):
    made = table.assign(tenth_of=table["dose"] / 10, half=table["grade"] / 2)
    categories = {"tenth_of": [0.1, 0.3, 0.7], "half": [0.5, 1.0, 1.5]}
    counts = made.crosstab("tenth_of", "half", categories=categories, statistics=["counts"]).counts
    for row, tenth in enumerate(categories["tenth_of"]):
        for column, half in enumerate(categories["half"]):
            alike = np.isclose(data()["dose"] / 10, tenth) & (data()["grade"] / 2 == half)
            assert counts[row][column] == alike.sum()
    described = made.describe(["half"], statistics=["min", "50%", "max"])["half"]
    assert [described[one] for one in ("min", "50%", "max")] == [0.5, np.median(data()["grade"]) / 2, 1.5]


def test_sums_of_decimals_count_the_same_once_they_are_assigned(lake):
    """0.1 + 0.3 and 0.2 + 0.2 are equal on paper, and differ in the last place of what is stored."""
    random = np.random.default_rng(3)
    a, b = random.integers(1, 9, 120) / 10, random.integers(1, 9, 120) / 10
    table = lake.upload({"id": np.arange(120), "a": a, "b": b}, name="ab", key="id", owner="o")
    made = table.assign(z=table["a"] + table["b"], back=table["a"] + table["b"] - table["b"])
    again = made.assign(half=made["z"] / 2)
    known = (a + b).round(1)
    conditions = {
        "direct": table["a"] + table["b"] == 0.4,
        "equal": made["z"] == 0.4,
        "at most": made["z"] <= 0.4,
        "among": made["z"].isin([0.4, 0.7]),
        "halved": again["half"] == 0.2,
        "back": made["back"] == made["a"],
    }
    expected = {
        "direct": known == 0.4,
        "equal": known == 0.4,
        "at most": known <= 0.4,
        "among": (known == 0.4) | (known == 0.7),
        "halved": known == 0.4,
        "back": known > 0,
    }
    for name, condition in conditions.items():
        found = condition.table.assign(c=condition).reveal("c")["c"]
        np.testing.assert_array_equal(found, expected[name], err_msg=name)
    train, _ = made.split(test_size=0.5)
    assert train.column("z").grain == made.column("z").grain


# -- decision values -----------------------------------------------------------------------------------------


def prepared(table, how):
    """A table, and the names of predictors, of which a model is fitted."""
    names = ["grade", "tenths", "smoker"]
    if how == "standardised":
        return StandardScaler(columns=["grade", "tenths"]).fit_transform(table), names
    if how == "between 0 and 1":
        return MinMaxScaler(columns=["grade", "tenths"]).fit_transform(table), names
    made = {
        "a tenth": lambda: {"z": table["grade"] / 10},
        "a product": lambda: {"z": table["tenths"] * table["grade"]},
        "a quotient": lambda: {"z": table["tenths"] / table["price"]},
    }[how]()
    return table.assign(**made), [*names, "z"]


@pytest.mark.parametrize("how", ["standardised", "between 0 and 1", "a tenth", "a product", "a quotient"])
def test_areas_count_ties_as_in_the_clear(table, how):
    ready, names = prepared(table, how)
    model = LogisticRegression().fit(ready, "y", features=names)
    known = patterns([*{*names, *(["price"] if how == "a quotient" else [])} - {"z"}])
    scores = model.decision_function(ready).reveal()
    probabilities = model.predict_proba(ready).reveal()
    assert same_groups(known, scores)
    assert same_groups(known, probabilities)
    found = model.evaluate(ready).reveal(["roc_auc", "average_precision"])
    for mine in (scores, probabilities):
        assert found.roc_auc == pytest.approx(roc_auc_score(data()["y"], mine), abs=1e-6)
        assert found.average_precision == pytest.approx(average_precision_score(data()["y"], mine), abs=1e-6)


def test_rows_of_a_table_in_coarser_units_get_equal_decision_values(lake, table):
    model = LogisticRegression().fit(table, "y", features=["tenths", "grade"])
    other = data().assign(tenths=data()["tenths"] / 64)
    finer = lake.upload(other, name="other", key="id", owner="o", columns=["tenths", "grade", "y"])
    assert finer.column("tenths").schema.scale != table.column("tenths").schema.scale
    assert same_groups(patterns(["tenths", "grade"]), model.decision_function(finer).reveal())
    found = model.evaluate(finer).reveal("roc_auc").roc_auc
    expected = roc_auc_score(data()["y"], model.decision_function(finer).reveal())
    assert found == pytest.approx(expected, abs=1e-6)


def test_equal_rows_get_the_same_label_at_a_threshold_that_is_their_probability(lake, table):
    model = LogisticRegression().fit(StandardScaler().fit_transform(table), "y", features=["grade", "tenths"])
    ready = StandardScaler(columns=["grade", "tenths"]).fit_transform(table)
    chances = model.predict_proba(ready).reveal()
    for chance in np.quantile(chances, [0.2, 0.8], method="nearest"):
        secret = lake.upload({"id": [0], "t": [chance]}, name="cut", key="id", owner="o")
        for threshold in (float(chance), secret):
            labels = model.predict(ready, threshold=threshold).reveal()
            assert same_groups(patterns(["grade", "tenths"]), labels)
            clear = np.abs(chances - chance) > 1e-5
            np.testing.assert_array_equal(labels[clear], (chances > chance)[clear])


@pytest.mark.parametrize("threshold", [0.0, 1.0, 3.0, -2.0])
def test_a_secret_threshold_at_an_end_or_beyond_it_gives_all_rows_one_label(lake, table, threshold):
    model = LogisticRegression().fit(table, "y", features=["grade"])
    secret = lake.upload({"id": [0], "t": [threshold]}, name="end", key="id", owner="o")
    assert set(model.predict(table, threshold=secret).reveal()) == {float(threshold <= 0)}


# -- names ---------------------------------------------------------------------------------------------------


def test_indicator_columns_are_named_after_what_they_tell():
    columns = {"id": [1, 2, 3], "RBC.Age": [1, 2, 1000002], "T Stage": [2, 1, 1], "w": [1.5, 2.0, 3.0]}
    with tercet.local(protocol="plain") as lake:
        table = lake.upload(columns, name="t", key="id", owner="o")
        assert list(table["RBC.Age"].one_hot([2, 1000001, 1000002])) == [
            "RBC.Age_2",
            "RBC.Age_1000001",
            "RBC.Age_1000002",
        ]
        assert list(table["T Stage"].one_hot([2])) == ["T Stage_2"]
        assert list(table["w"].one_hot([1.5, 2])) == ["w_1.5", "w_2"]
        sums = (table["w"] + table["T Stage"]).one_hot([2]), (table["w"] - table["T Stage"]).one_hot([2])
        assert len({name for each in sums for name in each}) == 2
        assert list((table["w"] * 2).one_hot([3], prefix="twice")) == ["twice_3"]
        marked = table.assign(**table["w"].one_hot([2.0], prefix="is"))
        assert marked.reveal("is_2")["is_2"].tolist() == [False, True, False]
        with pytest.raises(SchemaError, match="has a column 'is_2' already"):
            marked["w"].one_hot([2.0], prefix="is")
        with pytest.raises(SchemaError, match="each one once"):
            table["w"].one_hot([2, 2.0])
        with pytest.raises(PlanError, match="categories=\\[\\] is not a list"):
            table["w"].one_hot([])


def test_what_tells_missing_values_overwrites_no_column():
    columns = {"id": [1, 2, 3], "x": [1.0, None, 3.0], "z_missing": [4, 5, 6]}
    with tercet.local(protocol="plain") as lake:
        table = lake.upload(columns, name="t", key="id", owner="o", missing="indicator")
        with pytest.raises(SchemaError, match="'z_missing' would tell where"):
            table.assign(z=table["x"] * 2)
        with pytest.raises(SchemaError, match="'u_missing' would tell where"):
            table.assign(u=table["x"] * 2, u_missing=table["z_missing"] * 2)
        again = table.assign(x=table["x"] * 2)  # its own indicator follows
        assert again.column("x").schema.missing == "x_missing"
        assert again.reveal("z_missing")["z_missing"].tolist() == [4, 5, 6]
