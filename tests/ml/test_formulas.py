"""Formulas give the design matrices that patsy makes for statsmodels, names and order of columns too."""

import numpy as np
import pandas as pd
import patsy
import pytest
import statsmodels.formula.api as smf

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml import Design, GridSearch, LogisticRegression, cross_validate

ROWS = 240
RNG = np.random.default_rng(12)
FRAME = pd.DataFrame(
    {
        "id": np.arange(ROWS),
        "stage": RNG.choice(["I", "II", "III"], ROWS),
        "sex": RNG.choice(["f", "m"], ROWS),
        "grade": RNG.integers(1, 5, ROWS),
        "age": RNG.integers(30, 90, ROWS),
        "bmi": RNG.normal(27, 4, ROWS).round(1).clip(15, 45),
        "cost": np.exp(RNG.uniform(1.2, 6, ROWS)).round(2),
        "flag": RNG.integers(0, 2, ROWS),
    }
)
_Z = 0.6 * (FRAME["stage"] == "III") + 0.03 * (FRAME["age"] - 60) - 0.1 * (FRAME["bmi"] - 27) - 0.3
FRAME["y"] = (RNG.random(ROWS) < 1 / (1 + np.exp(-_Z))).astype(int)
log = np.log
"""As formulas write it; statsmodels looks for the name here."""
RANGES = {"grade": (1, 4), "age": (30, 90), "bmi": (15, 45), "cost": (1, 500)}


def put(lake, frame=FRAME, name="t", **options):
    types = {"stage": "category", "sex": "category"}
    return lake.upload(frame, name=name, key="id", owner="o", types=types, ranges=RANGES, **options)


FORMULAS = [
    "age + bmi",
    "C(stage) + age * bmi + log(cost)",
    "stage",
    "0 + stage",
    "stage + sex",
    "stage * sex",
    "0 + stage * sex",
    "stage:sex",
    "0 + stage:sex",
    "stage + stage:age",
    "stage:age",
    "age + stage:age",
    "0 + age + stage:age:sex",
    "stage * sex * age",
    "stage * sex * grade - stage:sex:grade",
    "(stage + sex + age) ** 2",
    "stage + sex:stage + bmi:sex",
    "C(stage, Treatment('II')) + C(grade)",
    "C(stage, Treatment(reference='III')):sex",
    "C(grade, levels=[3, 1, 2, 4]) + flag",
    "C(flag) * age",
    "np.log(cost) + np.sqrt(age) + I(age ** 2) + I(bmi / 10 - 1)",
    "I(age > 60) + I((grade == 2) | (grade == 3))",
    "age*bmi:cost + sex/age",
    "log(cost):stage - 1",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_designs_are_those_of_patsy(plain, formula):
    names = patsy.EvalEnvironment([{"log": np.log, "np": np}])
    expected = patsy.dmatrix(formula, FRAME, return_type="dataframe", eval_env=names)
    expected = expected.drop(columns="Intercept", errors="ignore")
    # patsy takes conditions as categories, where they are numbers here.
    expected.columns = [name.replace("[T.True]", "") for name in expected.columns]
    table = put(plain)
    design = Design(f"y ~ {formula}")
    made = design.transform(table)
    assert list(design.features(table)) == list(expected.columns)
    found = made.reveal(list(expected.columns))
    for name in expected:
        scale = made.column(name).schema.scale
        near = 2.0**-scale + 1e-4 * np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], atol=near, rtol=0)


def test_a_fit_and_its_summary_are_those_of_statsmodels(plain):
    formula = "y ~ C(stage) + age * bmi + log(cost)"
    table = put(plain)
    model = LogisticRegression(penalty=None).fit(table, formula)
    clear = smf.logit(
        formula,
        FRAME,
    ).fit(disp=False)
    names = list(clear.params.index[1:])
    assert list(model.feature_names_in_) == names
    revealed = model.reveal()
    spread = np.array([1, 1, 10, 4, 250, 1.5])
    np.testing.assert_allclose(revealed.coef_[0] * spread, clear.params[1:] * spread, atol=0.02)
    summary = model.summary(["se", "p"]).to_frame()
    np.testing.assert_allclose(summary["se"][names], clear.bse[names], rtol=0.02)
    fresh = put(plain, FRAME.drop(columns="y").sample(40, random_state=1), "fresh")
    found = model.predict_proba(fresh).reveal()
    expected = clear.predict(FRAME.sample(40, random_state=1))
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert model.score(table) == pytest.approx(((clear.predict(FRAME) > 0.5) == FRAME["y"]).mean(), abs=0.01)
    metrics = model.evaluate(table, metrics=["accuracy"]).reveal()
    assert metrics.accuracy == pytest.approx(model.score(table), abs=1e-3)


WRITTEN = "I(grade > 2) ~ C(stage) + age * bmi + log(cost)"


@pytest.fixture(scope="module")
def by_hand(plain):
    """The table, and the same with the columns of the formula; names of these."""
    table = put(plain)
    design = Design(WRITTEN)
    made = design.transform(table).assign(high=table["grade"] > 2)
    return table, made, list(design.features(table))


def test_folds_have_the_columns_of_a_formula(by_hand):
    """The same rows are scored alike, by the formula and by its columns."""
    table, made, names = by_hand
    options = {"cv": 3, "scoring": ["roc_auc", "log_loss"], "random_state": 4}
    found = cross_validate(LogisticRegression(), table, WRITTEN, **options)
    expected = cross_validate(LogisticRegression(), made, "high", features=names, **options)
    for name in found.scores:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    assert len(set(found["log_loss"])) == 3
    with pytest.raises(SchemaError, match="leave out features="):
        cross_validate(LogisticRegression(), table, WRITTEN, features=["age"])


def test_a_grid_is_searched_by_a_formula(by_hand):
    table, made, names = by_hand
    search = GridSearch(LogisticRegression(), C=[0.01, 1.0], scoring="log_loss", cv=3, random_state=4)
    means = search.fit(made, "high", features=names).mean_scores_
    search.fit(table, WRITTEN)
    np.testing.assert_allclose(search.mean_scores_, means, atol=1e-4)
    best = search.best_model_
    assert best.design_.formula == WRITTEN
    lacking = table[["stage", "age", "bmi", "cost"]]
    np.testing.assert_allclose(
        best.predict_proba(lacking).reveal(), best.predict_proba(made).reveal(), atol=1e-5
    )


def test_a_fit_by_a_formula_is_left_alone_and_collected(by_hand):
    table, made, names = by_hand
    job = LogisticRegression(C=0.5).submit(table, WRITTEN)
    model = LogisticRegression(C=0.5).collect(job, table, WRITTEN)
    expected = LogisticRegression(C=0.5).fit(made, "high", features=names)
    assert list(model.feature_names_in_) == names
    np.testing.assert_allclose(model.reveal().coef_, expected.reveal().coef_, atol=1e-5)
    assert model.score(table) == expected.score(made)
    with pytest.raises(PlanError, match="is not this computation"):
        LogisticRegression(C=0.5).collect(job, table, WRITTEN.replace("log", "np.sqrt"))


def test_outcomes_may_be_written_too(plain):
    table = put(plain)
    model = LogisticRegression(C=0.5).fit(table, "I(grade > 2) ~ age")
    assert model.target_ == "I(grade > 2)"
    by_hand = LogisticRegression(C=0.5).fit(table.assign(high=table["grade"] > 2), "high", features=["age"])
    np.testing.assert_allclose(model.reveal().coef_, by_hand.reveal().coef_, atol=1e-5)
    np.testing.assert_allclose(model.score(table), by_hand.score(table.assign(high=table["grade"] > 2)))
    assert model.evaluate(table, metrics=["accuracy"]).reveal().accuracy == pytest.approx(
        model.score(table), abs=1e-3
    )
    again = model.fit(table, "y", features=["age"])
    assert again.design_ is None


def test_levels_come_in_the_order_of_labels(plain):
    """As statsmodels has them of a categorical column; of text it sorts them."""
    labels = ["III", "I", "II"]
    frame = FRAME.assign(stage=pd.Categorical(FRAME["stage"], categories=labels))
    expected = list(patsy.dmatrix("stage + age", frame, return_type="dataframe").columns[1:])
    assert expected == ["stage[T.I]", "stage[T.II]", "age"]
    for name, source in (("categorical", frame), ("text", FRAME)):
        options = (
            {"types": {"stage": "category"}} if name == "categorical" else {"categories": {"stage": labels}}
        )
        table = plain.upload(source, name=name, key="id", owner="o", columns=["stage", "age", "y"], **options)
        assert list(Design("y ~ stage + age").features(table)) == expected


def test_conditions_in_braces_are_columns_too(plain):
    table = put(plain)
    model = LogisticRegression(C=0.5).fit(table, "{grade > 2} ~ age + {bmi > 25}")
    assert (model.target_, list(model.feature_names_in_)) == ("grade > 2", ["age", "bmi > 25"])
    assert 0 < model.score(table) < 1


def test_categories_have_the_levels_of_the_fit(plain):
    formula = "y ~ C(stage) + C(grade) + sex:age"
    model = LogisticRegression().fit(put(plain), formula)
    expected = model.predict_proba(put(plain)).reveal()
    other = plain.upload(
        FRAME,
        name="other",
        key="id",
        owner="o",
        categories={"stage": ["III", "I", "II"], "sex": ["m", "f"]},
        ranges={name: ends for name, ends in RANGES.items() if name != "grade"},
    )
    np.testing.assert_allclose(model.predict_proba(other).reveal(), expected, atol=1e-3)
    assert model.score(other) == pytest.approx(model.score(put(plain)), abs=1e-3)
    more = plain.upload(
        FRAME,
        name="more",
        key="id",
        owner="o",
        types={"sex": "category"},
        categories={"stage": ["I", "II", "III", "IV"]},
        ranges=RANGES,
    )
    with pytest.raises(SchemaError, match=r"C\(stage\) has the label 'IV', which the fit did not know"):
        model.predict(more)
    with pytest.raises(SchemaError, match="features"):
        model.fit(put(plain), formula, features=["age"])
    np.testing.assert_allclose(model.predict_proba(other).reveal(), expected, atol=1e-3)


def test_levels_and_missing_columns_are_told(plain):
    model = LogisticRegression().fit(put(plain), "y ~ stage + age")
    fewer = FRAME[FRAME["stage"] != "III"]
    with pytest.raises(SchemaError, match=r"is none of the labels|no column"):
        model.predict(put(plain, fewer, "fewer"))
    with pytest.raises(SchemaError, match="'age', which is no column"):
        model.predict(put_without(plain, "age"))


def put_without(lake, name):
    ranges = {key: one for key, one in RANGES.items() if key != name}
    types = {"stage": "category", "sex": "category"}
    return lake.upload(
        FRAME.drop(columns=name), name=f"without {name}", key="id", owner="o", types=types, ranges=ranges
    )


def levels(first, last=None):
    """A category, with the levels that are given."""
    given = list(range(last)) if last else [1, first]
    return f"C(grade, levels={given})"


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ ", "has to read as in|cannot be read|no column but the intercept"),
        ("y ~ 1", "no column but the intercept"),
        ("y ~ aeg", "'aeg', which is no column.*Did you mean"),
        ("y + age ~ bmi", "has to have one outcome"),
        ("~ age", "has to read as in|one outcome"),
        ("y ~ age | bmi", "has to read as in|cannot be read"),
        ("y ~ age +* bmi", "cannot be read"),
        ("y ~ poly(age, 2)", "is no column arithmetic"),
        ("y ~ I(__import__('os'))", "is no column arithmetic"),
        ("y ~ I(age.real)", "is no column arithmetic"),
        ("y ~ I(lambda: 1)", "cannot be read|is no column arithmetic"),
        ("y ~ C(stage, Sum)", "coded by Treatment"),
        ("y ~ C(stage, Treatment('IV'))", "'IV' is none of the levels"),
        ("y ~ C(bmi)", "has no public categories"),
        ("y ~ C(age + 1)", "no public levels"),
        ("y ~ log(bmi - 30)", "may be zero or less"),
        ("y ~ 0 + age", "no intercept, and the model fit_intercept=True"),
        ("y ~ (age + bmi) ** 500", "means far too many terms"),
        (f"y ~ {':'.join(map(levels, range(2, 12)))}", "combines 10 categories, and 9 will do"),
        (f"y ~ {':'.join(levels(0, 400 + place) for place in range(4))}", "means 159,999 columns"),
    ],
)
def test_formulas_that_cannot_be(plain, formula, message):
    with pytest.raises(SchemaError, match=message):
        LogisticRegression().fit(put(plain), formula)


def test_a_formula_names_its_features(plain):
    with pytest.raises(SchemaError, match="leave out features="):
        LogisticRegression().fit(put(plain), "y ~ age", features=["age"])


async def _fit_async():
    async with tercet.open_local(protocol="plain") as lake:
        table = await lake.upload(
            FRAME[["id", "age", "cost", "y"]], name="t", key="id", owner="o", ranges={"cost": (1, 500)}
        )
        model = await LogisticRegression().fit(table, "y ~ age + log(cost)")
        column = await model.predict_proba(table)
        return list(model.feature_names_in_), await column.reveal()


def test_formulas_of_trio_programs():
    import trio

    names, probabilities = trio.run(_fit_async)
    assert names == ["age", "log(cost)"]
    assert len(probabilities) == ROWS
