"""Whatever is wrong with tables, columns and options is said in a sentence: what, where, and the mend.

What `tercet.ml.ingest` says of single values is tested with it; here it is all through the lake, as users
meet it.
"""

import html
import re
import warnings

import numpy as np
import pandas as pd
import pytest

import tercet
from tercet.errors import ConvergenceWarning, FewMatchesWarning, PlanError, SchemaError, TercetError
from tercet.ml import LogisticRegression, StandardScaler

RNG = np.random.default_rng(7)
ROWS = 40
GOOD = {
    "id": np.arange(ROWS),
    "age": RNG.normal(50, 10, ROWS),
    "visits": RNG.integers(0, 9, ROWS),
    "ill": np.arange(ROWS) % 3 == 0,
}
OTHER = {"id": np.arange(10, 10 + ROWS), "cost": RNG.exponential(100, ROWS)}


def upload(lake, change=None, data=GOOD, **options):
    """Upload a table with some columns changed, or dropped if they are None."""
    columns = {name: values for name, values in {**data, **(change or {})}.items() if values is not None}
    return lake.upload(columns, **{"name": "claims", "key": "id", "owner": "insurer", **options})


def refused(*parts, error=SchemaError):
    """Expect an error whose sentence has all these parts, in order."""
    return pytest.raises(error, match=".*".join(map(re.escape, parts)))


def changed(name, row, value):
    """A column of the good table with another value in one row."""
    values = list(GOOD[name])
    values[row] = value
    return {name: values}


# -- uploads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        ({}, {"key": "idd"}, ('"claims"', "'idd'", 'Did you mean "id"')),
        ({}, {"key": ["id", "day"]}, ('"claims"', "'day'", "columns are: id, age")),
        (changed("id", 9, 4), {}, ('"claims"', '"id"', "row 9", "row 4", "merge or drop")),
        ({"id": [*range(39), None]}, {}, ('"claims"', '"id"', "row 39", "missing", "fill or drop")),
        (changed("age", 3, None), {}, ('"claims"', '"age"', "row 3", "missing", "fill or drop")),
        (changed("age", 3, np.nan), {}, ('"claims"', '"age"', "row 3", "missing", "fill or drop")),
        (changed("age", 5, "old"), {}, ('"claims"', '"age"', "row 5", "'old'", "columns=[...], or --column")),
        (changed("age", 6, np.inf), {}, ('"claims"', '"age"', "row 6", "infinite", "replace it or drop")),
        (changed("age", 8, 1e9), {"scales": {"age": 16}}, ('"age"', "row 8", "scale 16", "lower the scale")),
        (changed("visits", 2, 2**40), {}, ('"visits"', "row 2", "2**30", '"real"')),
        (
            changed("visits", 2, 2),
            {"types": {"visits": "boolean"}},
            ('"visits"', "not a boolean", "correct it"),
        ),
        ({"age": 1e6 * GOOD["age"]}, {"scales": {"age": 1}}, ("'age'", "scale 1", "spread", "smaller scale")),
        ({}, {"columns": ["age", "cost"]}, ('"claims"', "'cost'", "columns names", "columns are")),
        ({}, {"types": {"agee": "real"}}, ('"claims"', "'agee'", 'Did you mean "age"')),
        ({}, {"name": "my/claims"}, ("'my/claims'", "rename it")),
        ({"age": GOOD["age"][:7]}, {}, ('"claims"', "different lengths", "make them equal")),
    ],
)
def test_uploads(plain, change, options, parts):
    with refused(*parts):
        upload(plain, change, **options)


def test_names_that_other_programs_write(plain, tmp_path):
    """From a file to a model, a summary and statistics, as they are."""
    names = ["RBC.Age", "Blood pressure (mmHg)", "a/b", "+x", "50 %", "Größe", "[b]x[/b]", "<i>"]
    columns = {name: RNG.normal(0, 1, 200).round(3) for name in names}
    columns |= {"id (nr.)": np.arange(200), "ill?": RNG.random(200) < 0.5}
    pd.DataFrame(columns).to_csv(tmp_path / "a.csv", index=False)
    options = {"key": "id (nr.)", "owner": "clinic"}
    table = plain.upload(tmp_path / "a.csv", name="names", ranges={"a/b": (-9, 9)}, **options)
    assert table.column_names == [*names, "ill?"]
    other = plain.upload(
        {"id (nr.)": np.arange(200), "c (d)": RNG.normal(0, 1, 200)}, name="others", **options
    )
    joined = table.join(other, on="id (nr.)")
    joined = joined.assign(**{"a/b * c": joined["a/b"].clip(-4, 4) * joined["c (d)"].clip(-4, 4)})
    features = [*names, "a/b * c"]
    model = LogisticRegression(penalty=None).fit(joined, target="ill?", features=features)
    summary = model.summary()
    for name in features:
        assert name in str(summary)
    assert html.escape("<i>") in summary._repr_html_()
    assert r"50 \%" in summary.to_latex()
    assert list(joined.describe(features).to_frame().columns) == features
    assert set(table.reveal()) == {*names, "ill?"}


def test_a_file_with_other_separators(plain, tmp_path):
    (tmp_path / "claims.csv").write_text("id;age\n1;2,5\n")
    with refused('"claims"', "separated by ';' instead of ','", "write it with ','"):
        plain.upload(tmp_path / "claims.csv", name="claims", key="id", owner="insurer")


# -- joins and splits ----------------------------------------------------------------------------------------


def test_joins_on_other_columns_than_the_key(plain):
    left, right = upload(plain), upload(plain, data=OTHER, name="costs")
    with refused("'claims'", "uploaded with key id", "cannot be joined on age", "upload it with key=['age']"):
        left.join(right, on="age")
    with refused("'claims'", "uploaded with key id", "on id, day"):
        left.join(right, on=["id", "day"])


def test_joins_of_keys_of_different_types(plain):
    words = {**OTHER, "id": [f"{number}" for number in OTHER["id"]]}
    left, right = upload(plain), upload(plain, data=words, name="costs")
    with refused(
        "key 'id' is integer in table 'claims' and string in table 'costs'", "types={'id': 'string'}"
    ):
        left.join(right, on="id")


def test_joins_of_composite_keys_in_different_order(plain):
    days = {"day": np.arange(ROWS) // 7}
    left = upload(plain, days, key=["id", "day"])
    right = upload(plain, days, data=OTHER, name="costs", key=["day", "id"])
    with refused(
        "'claims' and 'costs'", "different order", "id, day; day, id", "upload both with the same order"
    ):
        left.join(right, on=["id", "day"])


def test_joins_of_tables_that_share_a_column(plain):
    left, right = upload(plain), upload(plain, {"age": GOOD["age"]}, data=OTHER, name="costs")
    with refused("'age' is in table 'claims' and in table 'costs'", "rename it"):
        left.join(right, on="id")
    with refused("'age' is in table 'claims' and in table 'claims'"):
        left.join(left, on="id")


def test_joins_of_what_is_no_table(plain):
    left = upload(plain)
    with refused("two or more tables, got 1"):
        left.join(on="id")
    with refused("not a dict; upload it first"):
        left.join(OTHER, on="id")


def test_joins_across_lakes(plain):
    with tercet.local(protocol="plain") as other, refused("different lakes", "upload both to one"):
        upload(plain).join(upload(other, data=OTHER, name="costs"), on="id")


@pytest.mark.parametrize("size", [0, 1, -0.25, 1.5, 25])
def test_splits_of_no_sensible_size(plain, size):
    with refused(f"test_size={size}", "share of rows"):
        upload(plain).split(test_size=size)


def test_an_empty_join_is_a_table_that_nothing_can_be_learned_from(lake):
    far = {**OTHER, "id": OTHER["id"] + 1000}
    full = upload(lake)
    with pytest.warns(FewMatchesWarning, match="matches no rows"):
        empty = full.join(upload(lake, data=far, name="costs"), on="id")
    assert len(empty) == 0
    assert {name: values.size for name, values in empty.reveal().items()} == dict.fromkeys(
        empty.column_names, 0
    )
    assert (
        len(empty.join(upload(lake, {"cost": None, "fee": OTHER["cost"]}, data=OTHER, name="fees"), on="id"))
        == 0
    )
    model = LogisticRegression().fit(full, target="ill")
    uses = [
        lambda: empty.split(),
        lambda: StandardScaler().fit(empty),
        lambda: LogisticRegression().fit(empty, target="ill"),
        lambda: model.evaluate(empty),
        lambda: model.predict(empty),
        lambda: model.predict_proba(empty),
    ]
    for use in uses:
        with refused("'claims+costs' has 0 rows", "no key occurs in all the tables", "how they write it"):
            use()


# -- fits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        (
            {},
            {"target": "age"},
            ("'claims'", "target 'age' is real, not 0/1", "table.assign(age=table['age'] == 2)"),
        ),
        ({}, {"target": "visits"}, ("'claims'", "target 'visits' is integer, not 0/1")),
        ({}, {"target": "il"}, ("'claims' has no column 'il'", 'Did you mean "ill"')),
        ({}, {"target": "id"}, ("'claims'", "'id' is a key", "upload it as a second column")),
        (
            {},
            {"target": "ill", "features": ["agee"]},
            ("'claims' has no column 'agee'", 'Did you mean "age"'),
        ),
        ({}, {"target": "ill", "features": ["age", "ill"]}, ("'ill' is the target", "leave it out")),
        ({}, {"target": "ill", "features": ["age", "age"]}, ("'age' twice", "name each once")),
        ({}, {"target": "ill", "features": []}, ("no column but the target 'ill'", "join it with a table")),
        (
            {"ill": np.zeros(ROWS, bool)},
            {"target": "ill"},
            ("'claims'", "'ill'", "all 40 rows", "same outcome"),
        ),
        (
            {"ill": np.ones(ROWS, int)},
            {"target": "ill"},
            ("'claims'", "'ill'", "all 40 rows", "same outcome"),
        ),
    ],
)
def test_fits(plain, change, options, parts):
    with refused(*parts):
        LogisticRegression().fit(upload(plain, change), **options)


@pytest.mark.parametrize("rows", [3, 4])
def test_fits_with_as_many_features_as_rows(plain, rows):
    few = {
        "id": np.arange(rows),
        "ill": np.arange(rows) % 2,
        **{f"x{i}": RNG.normal(size=rows) for i in range(4)},
    }
    with refused("'claims'", f"{rows} rows for 4 features", "name fewer in features="):
        LogisticRegression().fit(upload(plain, data=few), target="ill")


@pytest.mark.parametrize("rows", [0, 1])
def test_fits_on_hardly_any_rows(plain, rows):
    few = {name: values[:rows] for name, values in GOOD.items()}
    with refused("'claims'", f"has {rows} rows", "needs at least 2"):
        LogisticRegression().fit(upload(plain, data=few), target="ill", features=["age"])


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"penalty": "l1"}, ("penalty='l1'", "'l2', or None")),
        ({"C": 0.0}, ("C=0.0", "positive")),
        ({"C": -1.0}, ("C=-1.0", "positive")),
        ({"C": float("inf")}, ("C=inf", "finite")),
        ({"C": float("nan")}, ("C=nan", "positive")),
        ({"solver": "lbfgs"}, ("solver='lbfgs'", "'newton' or 'gd'")),
        ({"max_iter": 0}, ("max_iter=0", "at least 1")),
        ({"max_iter": 2.5}, ("max_iter=2.5", "whole number")),
        ({"tol": 0.0}, ("tol=0.0", "leave it None")),
        ({"tol": 1.0}, ("tol=1.0", "leave it None")),
        ({"learning_rate": 0.0}, ("learning_rate=0.0", "positive")),
        ({"learning_rate": 65.0}, ("learning_rate=65.0", "at most 64")),
        ({"momentum": 1.0}, ("momentum=1.0", "between 0 and 1")),
        ({"z_bound": 0.5}, ("z_bound=0.5", "between 1 and 120")),
        ({"z_bound": 121}, ("z_bound=121", "between 1 and 120")),
        ({"sigmoid_error": 0.0}, ("sigmoid_error=0.0", "between")),
        ({"sigmoid_error": 1e-6, "z_bound": 120}, ("sigmoid_error=1e-06", "z_bound=120", "larger error")),
    ],
)
def test_options(plain, options, parts):
    with refused(*parts, error=PlanError):
        LogisticRegression(**options).fit(upload(plain), target="ill")


@pytest.mark.parametrize("options", [{"z_bound": 1}, {"solver": "gd", "learning_rate": 64.0, "z_bound": 8}])
def test_columns_that_tell_outcomes_apart_without_error(plain, options):
    """Without a penalty no coefficients are best, however large they are."""
    table = upload(plain, {"cost": np.where(GOOD["ill"], 1.0, -1.0) + 0.1 * RNG.normal(size=ROWS)})
    model = LogisticRegression(penalty=None, max_iter=200, **options)
    with refused(
        "fit of 'ill' on 'claims'",
        f"left [-{options['z_bound']}, ",
        "without error",
        "a penalty",
        "larger z_bound",
    ) as told:
        model.fit(table, target="ill")
    for rate in ("learning rate", "learning_rate"):  # Newton's method has none
        assert (rate in str(told.value)) is ("solver" in options)
    with refused("not fitted", error=PlanError):
        model.reveal()
    assert np.abs(LogisticRegression().fit(table, target="ill").reveal().coef_[0]).max() < 10


def test_separable_outcomes_never_pass_silently(plain):
    table = upload(plain, {"cost": np.where(GOOD["ill"], 1.0, -1.0) + 0.1 * RNG.normal(size=ROWS)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((SchemaError, ConvergenceWarning), match="fit of 'ill' on 'claims'"):
            LogisticRegression(penalty=None).fit(table, target="ill")


def test_a_learning_rate_that_is_too_large(plain):
    table = upload(plain, {"age": GOOD["age"] * 100, "cost": RNG.normal(size=ROWS) + 3 * GOOD["ill"]})
    with refused("fit of 'ill' on 'claims'", "learning rate is too large"):
        LogisticRegression(solver="gd", learning_rate=64.0, C=1e-3).fit(table, target="ill")


@pytest.mark.parametrize("balanced", [None, "balanced"])
def test_filters_that_leave_one_outcome_or_none(plain, balanced):
    table = upload(plain)
    for kept in (table.filter(table["visits"] > 100), table.filter(table["ill"] == 1)):
        with refused("target 'ill'", "all rows that count", "or no row counts", "filter, join"):
            LogisticRegression(class_weight=balanced).fit(kept, target="ill")
    with refused("target 'ill'", "have the same outcome, so there") as told:
        LogisticRegression(class_weight=balanced).fit(
            upload(plain, {"ill": np.zeros(ROWS, dtype=bool)}, name="well"), target="ill"
        )
    assert "no row" not in str(told.value)


def test_a_feature_with_the_name_of_the_intercept(plain):
    table = upload(plain, {"(intercept)": np.ones(ROWS) + GOOD["age"]})
    for fit in (
        lambda: LogisticRegression().fit(table, target="ill"),
        lambda: LogisticRegression(solver="gd").fit(table, target="ill", features=["(intercept)"]),
        lambda: LogisticRegression().submit(table, target="ill"),
    ):
        with refused("'claims'", "'(intercept)'", "rename it", "features="):
            fit()
    renamed = table.assign(renamed=table["(intercept)"])
    LogisticRegression(max_iter=2, check=False).fit(renamed, target="ill", features=["renamed"])
    model = LogisticRegression(fit_intercept=False).fit(table, target="ill")
    assert str(model.reveal()).count("(intercept)") == 1
    assert [line.split()[0] for line in str(model.reveal()).splitlines()[1:]] == list(model.feature_names_in_)


def test_columns_that_descent_cannot_take(plain):
    for size, C, why in ((1e-3, 1e-6, "with this penalty"), (1e-8, 1e6, "beside columns of ordinary size")):
        table = upload(plain, {"age": GOOD["age"] * size})
        with refused("column 'age'", "StandardScaler", "solver='newton'", error=PlanError) as told:
            LogisticRegression(solver="gd", C=C).fit(table, target="ill")
        assert why in str(told.value)


# -- using ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["predict", "predict_proba", "decision_function", "evaluate"])
def test_models_that_are_not_fitted(plain, use):
    with refused("not fitted yet", "fit(table, target=...)", error=PlanError):
        getattr(LogisticRegression(), use)(upload(plain))


def test_scalers_that_have_not_learned(plain):
    for use in (lambda: StandardScaler().transform(upload(plain)), lambda: StandardScaler().reveal()):
        with refused("not learned anything yet", "fit(table)", error=PlanError):
            use()


def test_scalers_without_columns(plain):
    table = upload(plain, {"age": None, "visits": None})
    with refused("'claims' has no numeric column", "columns="):
        StandardScaler().fit(table)
    with refused("'claims' has no column 'agee'"):
        StandardScaler(columns="agee").fit(table)


@pytest.mark.parametrize("use", ["predict", "evaluate", "transform"])
def test_other_tables_than_the_one_learned_from(plain, use):
    table = upload(plain)
    subject = (
        StandardScaler().fit(table) if use == "transform" else LogisticRegression().fit(table, target="ill")
    )
    apply = getattr(subject, use)
    with refused("'lacking' has no column 'visits'", 'Did you mean "visit"?'):
        apply(upload(plain, {"visits": None, "visit": GOOD["visits"]}, name="lacking"))
    scale = table.column("age").schema.scale
    with refused("'age' has scale 3", "'scaled'", f"scale {scale} in 'claims'", f"scales={{'age': {scale}}}"):
        apply(upload(plain, name="scaled", scales={"age": 3}))
    near = upload(plain, name="near", scales={"age": scale - 2})
    assert apply(near).reveal() is not None
    with tercet.local(protocol="plain") as other, refused("'far' is in another lake than 'claims'"):
        apply(upload(other, name="far"))


def test_evaluations_without_outcomes(plain):
    model = LogisticRegression().fit(upload(plain), target="ill")
    with refused("'new' has no column 'ill'"):
        model.evaluate(upload(plain, {"ill": None}, name="new"))
    with refused("'new', target 'ill' is integer, not 0/1"):
        model.evaluate(upload(plain, {"ill": GOOD["visits"]}, name="new"))
    assert model.predict(upload(plain, {"ill": None}, name="new")).rows == ROWS


def test_metrics_that_do_not_exist(plain):
    table = upload(plain)
    evaluation = LogisticRegression().fit(table, target="ill").evaluate(table)
    with refused("no metric 'auc'", "roc_auc", error=PlanError):
        evaluation.reveal("auc")
    scores = evaluation.reveal(["accuracy"])
    with pytest.raises(AttributeError, match="'roc_auc' was not revealed"):
        _ = scores.roc_auc
    with pytest.raises(AttributeError, match="auc"):
        _ = scores.auc


def test_columns_that_do_not_exist(plain):
    with refused("'claims' has no column 'agee'", 'Did you mean "age"'):
        upload(plain).reveal("agee")
    with refused("'id' is a key"):
        upload(plain).reveal(["id"])


def test_protocols_that_do_not_exist():
    with pytest.raises(TercetError, match=r"'replicatd'.*replicated"), tercet.local(protocol="replicatd"):
        pass
