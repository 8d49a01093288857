"""Summaries as they are read: names of statsmodels, intervals beside effects, columns without errors."""

import sys

import attrs
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import tercet
from tercet.errors import ConvergenceWarning, PlanError, SchemaError
from tercet.ml import LogisticRegression

pytestmark = pytest.mark.cases


@pytest.fixture(scope="module")
def plain_spector(data):
    """A fit in the clear reference."""
    source = data("spector")
    with tercet.local(protocol="plain") as lake:
        columns = dict(zip(source.names, source.X.T, strict=True)) | {"y": source.y, "id": np.arange(32)}
        table = lake.upload(columns, name="spector", key="id", owner="owner")
        yield LogisticRegression(penalty=None).fit(table, target="y")


@pytest.fixture(scope="module")
def spector(put, data):
    """The summary of a fit, made once in each lake; tests only read it."""
    return LogisticRegression(penalty=None).fit(put(data("spector")), target="y").summary()


# -- names and what stands beside what -----------------------------------------------------------------------


def test_the_names_are_those_of_statsmodels(spector, data):
    """What a user of its results writes: series and frames by name."""
    source = data("spector")
    X = pd.DataFrame(source.X, columns=source.names).assign(**{"(intercept)": 1.0})
    clear, found = sm.Logit(source.y, X).fit(disp=False, tol=1e-12), spector
    for name in ("params", "bse", "tvalues", "pvalues"):
        mine, theirs = getattr(found, name), getattr(clear, name)
        assert isinstance(mine, pd.Series)
        assert list(mine.index) == list(theirs.index)
        np.testing.assert_allclose(mine, theirs, rtol=5e-3)
    for alpha in (None, 0.05, 0.01, 0.3):
        mine = found.conf_int() if alpha is None else found.conf_int(alpha)
        theirs = clear.conf_int(alpha or 0.05)
        assert (list(mine.index), list(mine.columns)) == (list(theirs.index), list(theirs.columns))
        np.testing.assert_allclose(mine, theirs, rtol=5e-3)
        np.testing.assert_allclose(found.odds_ratio_conf_int(alpha), np.exp(mine))
    for name in ("llf", "llnull", "llr", "llr_pvalue", "prsquared", "aic", "bic", "df_model"):
        assert getattr(found, name) == pytest.approx(getattr(clear, name), rel=1e-3)
    assert found.nobs == clear.nobs
    for old in ("coef", "se", "z", "p", "ci", "lr", "lr_p", "mcfadden"):
        with pytest.raises(AttributeError, match=f"a summary has no '{old}'; it has params, bse"):
            getattr(found, old)
    with pytest.raises(PlanError, match="alpha=95 is not between 0 and 1"):
        found.conf_int(95)
    with pytest.raises(PlanError, match=r"alpha='0\.05' is not between"):
        found.conf_int("0.05")


def test_without_pandas_figures_are_arrays(spector, monkeypatch):
    named = spector.params, spector.conf_int()
    monkeypatch.setitem(sys.modules, "pandas", None)
    for mine, theirs in zip((spector.params, spector.conf_int()), named, strict=True):
        assert isinstance(mine, np.ndarray)
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        (["odds_ratio", "ci"], ["odds_ratio", "odds_ratio_ci_low", "odds_ratio_ci_high"]),
        (["ci", "odds_ratio"], ["odds_ratio", "odds_ratio_ci_low", "odds_ratio_ci_high"]),
        (["coef", "ci"], ["coef", "ci_low", "ci_high"]),
        (["params", "conf_int"], ["coef", "ci_low", "ci_high"]),
        ("ci", ["ci_low", "ci_high"]),
        ("odds_ratio_ci", ["odds_ratio_ci_low", "odds_ratio_ci_high"]),
        (
            ["coef", "odds_ratio", "ci"],
            ["coef", "ci_low", "ci_high", "odds_ratio", "odds_ratio_ci_low", "odds_ratio_ci_high"],
        ),
        (["odds_ratio", "p", "ci"], ["p", "odds_ratio", "odds_ratio_ci_low", "odds_ratio_ci_high"]),
    ],
)
def test_an_interval_is_that_of_what_it_stands_beside(plain_spector, asked, columns):
    summary = plain_spector.summary(asked)
    frame = summary.to_frame()
    assert list(frame.columns) == columns
    for effect, ends in (("coef", "ci"), ("odds_ratio", "odds_ratio_ci")):
        if {effect, f"{ends}_low"} <= set(columns):
            assert (frame[f"{ends}_low"] < frame[effect]).all()
            assert (frame[effect] < frame[f"{ends}_high"]).all()
    if "odds_ratio_ci_low" in columns:
        assert (frame["odds_ratio_ci_low"] > 0).all()
        assert "OR 2.5%" in str(summary)
    assert (" 2.5%" in str(summary).replace("OR 2.5%", "")) == ("ci_low" in columns)
    np.testing.assert_allclose(np.log(summary.odds_ratio_conf_int()), summary.conf_int())


def test_no_p_value_is_printed_as_zero(plain_spector):
    summary = plain_spector.summary()
    tiny = attrs.evolve(
        summary,
        values=summary.values | {"p": np.array([0.0, 9.9e-5, 1.1e-4, 0.99999]), "llr_pvalue": 1e-30},
    )
    text, page, latex = str(tiny), tiny._repr_html_(), tiny.to_latex()
    assert text.count("<0.0001") == 3
    assert "0.0000" not in text
    assert page.count("<td>&lt;0.0001</td>") == 3
    assert latex.count("$<$0.0001") == 2
    assert "0.0001" in text.replace("<0.0001", "")


# -- columns that nothing can be said of ---------------------------------------------------------------------


def tricky(kind):
    """Columns by name, outcomes, which coefficients are named, and rows that say nothing."""
    generator = np.random.default_rng(21)
    rows = 600
    x, level = generator.normal(size=rows), generator.integers(0, 4, rows)
    y = (generator.random(rows) < 1 / (1 + np.exp(-(x + 0.5 * level - 1)))).astype(int)
    dummies = {f"level{place}": (level == place) * 1.0 for place in range(4)}
    none = np.zeros(rows, dtype=bool)
    match kind:
        case "a dummy":  # first, so that its place is not what names it
            y[level == 2] = 1
            return (
                {"level2": dummies["level2"], "x": x, "level3": dummies["level3"]},
                y,
                ["level2"],
                level == 2,
            )
        case "two dummies":
            y[level == 1], y[level == 2] = 0, 1
            columns = {"x": x} | {name: dummies[name] for name in ("level1", "level2", "level3")}
            return columns, y, ["level1", "level2"], (level == 1) | (level == 2)
        case "the reference":  # all others are apart from it, so one of them takes its place
            y[level == 0] = 0
            columns = {name: dummies[name] for name in ("level1", "level2", "level3")} | {"x": x}
            return columns, y, ["level3"], level == 0
        case "one row":
            return (
                {"x": x, "only": (np.arange(rows) == int(y.argmax())) * 1.0},
                y,
                ["only"],
                np.arange(rows) == y.argmax(),
            )
        case "all dummies":
            return {**dummies, "x": x}, y, ["level3"], none
        case "a sum":
            return {"x": x, "level": level * 1.0, "sum": 2 * x + level}, y, ["sum"], none
        case "a constant":
            return {"constant": np.full(rows, 3.7), "x": x}, y, ["constant"], none
        case "a copy and a dummy":
            y[level == 3] = 1
            columns = {"x": x, "copy": -3 * x, "level3": dummies["level3"]}
            return columns, y, ["copy", "level3"], level == 3
    raise ValueError(kind)


KINDS = ["a dummy", "two dummies", "the reference", "one row", "all dummies", "a sum", "a constant"]
KINDS += ["a copy and a dummy"]


@pytest.mark.filterwarnings("ignore:.*still moving")
@pytest.mark.parametrize("kind", KINDS)
def test_columns_without_errors_are_named_and_the_rest_is_shown(lake, put, data, kind):
    """The rest agrees with the fit of the rest, on the rows that are not certain: Stata's way."""
    columns, y, named, certain = tricky(kind)
    source = type(data("fair"))(np.column_stack(list(columns.values())), y, tuple(columns))
    model = LogisticRegression(penalty=None, max_iter=20).fit(
        put(source, types=dict.fromkeys(columns, "real")), target="y"
    )
    lake.disclosed.clear()
    found = model.summary()
    bits = [(item.what, item.size) for item in lake.disclosed][:9]
    exact = ("whether standard errors cannot be made exact", "1")
    assert bits[0] == exact
    size = str(len(columns) + 1)
    assert ("of which columns there are no standard errors", size) in bits
    assert list(found.without) == named
    rest = [name for name in columns if name not in named]
    X = pd.DataFrame(columns)[rest].assign(**{"(intercept)": 1.0})
    clear = sm.Logit(y[~certain], X[~certain]).fit(disp=False, tol=1e-12)
    shown = [*rest, "(intercept)"]
    assert ((found.params[shown] - clear.params) / clear.bse).abs().max() < 0.01
    np.testing.assert_allclose(found.bse[shown], clear.bse, rtol=1e-3)
    np.testing.assert_allclose(found.pvalues[shown], clear.pvalues, atol=1e-3)
    np.testing.assert_allclose(
        found.conf_int().loc[shown], clear.conf_int(), rtol=0.02, atol=0.02 * clear.bse.max()
    )
    assert found.llf == pytest.approx(clear.llf, abs=0.02)
    assert (found.df_model, found.aic) == (len(rest), pytest.approx(clear.aic, abs=0.05))
    for figure in (
        found.params,
        found.bse,
        found.tvalues,
        found.pvalues,
        found.odds_ratio,
        found.significant,
    ):
        assert figure[named].isna().all()
    assert found.conf_int().loc[named].isna().all(axis=None)
    for printed in (str(found), found._repr_html_(), found.to_latex().replace("\\", "")):
        assert f"left out, with no standard errors: {', '.join(named)} (a column that" in printed
    assert "nan" in str(found)


REST = ["weights", "offset", "no intercept", "a filter", "saved"]


@pytest.mark.cases(
    *(f"plain-{kind}" for kind in REST)
)  # above a rest is shown on shares, in `test_inference` weights
@pytest.mark.parametrize("kind", REST)
def test_the_rest_of_other_fits_is_shown_too(put, lake, data, kind):
    """What counts rows, moves or drops them makes no difference; nor does a model that was saved."""
    generator = np.random.default_rng(23)
    rows = 400
    x, certain = generator.normal(size=(rows, 2)), generator.random(rows) < 0.1
    y = ((generator.random(rows) < 1 / (1 + np.exp(-x @ [1.0, -0.5]))) | certain).astype(int)
    counts, offset = generator.integers(0, 4, rows), generator.normal(0, 0.3, rows)
    columns = {"a": x[:, 0], "certain": certain * 1.0, "b": x[:, 1], "copy": 2 * x[:, 1] - x[:, 0]}
    names = list(columns)
    columns |= {"w": counts * 1.0, "o": offset}
    source = type(data("fair"))(np.column_stack(list(columns.values())), y, tuple(columns))
    table = put(source, types=dict.fromkeys(columns, "real"))
    table = table.filter(table["w"] > 0.5) if kind == "a filter" else table
    given = {"weights": {"sample_weight": "w"}, "offset": {"offset": "o"}}.get(kind, {})
    model = LogisticRegression(penalty=None, max_iter=20, fit_intercept=kind != "no intercept")
    model.fit(table, "y", features=names, **given)
    if kind == "saved":
        model.save("certain")
    found = lake.model("certain").summary(table) if kind == "saved" else model.summary()
    assert found.without == ("certain", "copy")
    X = pd.DataFrame(columns)[["a", "b"]]
    X = X if kind == "no intercept" else X.assign(**{"(intercept)": 1.0})
    kept = ~certain & ((counts > 0) | (kind != "a filter"))
    options = {"weights": {"freq_weights": counts[kept]}, "offset": {"offset": offset[kept]}}.get(kind, {})
    clear = sm.GLM(y[kept], X[kept], family=sm.families.Binomial(), **options).fit(tol=1e-12)
    shown = list(X.columns)
    assert ((found.params[shown] - clear.params) / clear.bse).abs().max() < 0.01
    np.testing.assert_allclose(found.bse[shown], clear.bse, rtol=1e-3)


def test_with_a_penalty_nothing_is_named(put, data):
    """Then a certain category and a copy have coefficients, and errors under the prior."""
    columns, y, _, _ = tricky("a copy and a dummy")
    source = type(data("fair"))(np.column_stack(list(columns.values())), y, tuple(columns))
    found = LogisticRegression(C=1.0).fit(put(source), target="y").summary()
    assert found.without == ()
    assert np.isfinite(found.bse).all()


@pytest.mark.cases("plain")  # what is disclosed is the plan's to say; columns are named on shares above
def test_what_is_named_does_not_tell_the_rest(lake, put, data):
    """Of p-values alone, the bits and p-values are told; and nothing of coefficients before that."""
    columns, y, named, _ = tricky("one row")
    source = type(data("fair"))(np.column_stack(list(columns.values())), y, tuple(columns))
    model = LogisticRegression(penalty=None).fit(put(source), target="y")
    lake.disclosed.clear()
    found = model.summary(["p", "significant"], to="hospital")
    assert [(item.what, item.to) for item in lake.disclosed] == [
        ("whether standard errors cannot be made exact", "hospital"),
        ("p-values of 'y'", "hospital"),
        ("of which columns there are no standard errors", "hospital"),
        ("whether standard errors cannot be made exact", "hospital"),
        ("p-values of 'y'", "hospital"),
    ]
    assert np.isnan(found.pvalues["only"])
    assert found.pvalues["x"] < 0.01
    alone = model.summary(["significant", "sign"])
    assert np.isnan(alone.significant["only"])
    assert (alone.significant["x"], alone.sign["x"]) == (1, 1)
    assert str(alone).splitlines()[-2].split() == ["only", "nan", "nan"]
    assert named == ["only"]


def test_a_mean_far_beyond_the_spread_costs_the_error_of_the_intercept(put, data):
    generator = np.random.default_rng(22)
    x, year = generator.normal(size=500), 1e5 + generator.integers(0, 10, 500)
    y = (generator.random(500) < 1 / (1 + np.exp(-x + 0.1 * (year - 1e5)))).astype(int)
    table = put(type(data("fair"))(np.column_stack([x, year]), y, ("x", "year")), types={"year": "real"})
    found = LogisticRegression(penalty=None).fit(table, target="y").summary()
    assert found.without == ("(intercept)",)
    clear = sm.Logit(y, np.column_stack([x, year - 1e5, np.ones(500)])).fit(disp=False, tol=1e-12)
    np.testing.assert_allclose(found.bse[["x", "year"]], clear.bse[:2], rtol=1e-3)
    assert np.isnan(found.bse["(intercept)"])
    assert "no standard error: (intercept) (the mean of some column is too far" in str(found)
    assert found.df_model == 2


@pytest.mark.filterwarnings("ignore:.*still moving")
@pytest.mark.parametrize("kind", ["complete", "constant"])
def test_errors_that_cannot_be_exact_are_not_shown(put, data, kind):
    """If nothing is left, it is said what helps: without a penalty, no lower C."""
    x = np.linspace(-1, 1, 40)
    column = x if kind == "complete" else np.full(40, 3.7)
    y = x > 0 if kind == "complete" else np.arange(40) % 3 == 0
    table = put(type(data("fair"))(column[:, None], y, ("x",)), types={"x": "real"})
    model = LogisticRegression(penalty=None).fit(table, target="y")
    with pytest.raises(
        SchemaError, match="standard errors cannot be made exact: columns do not vary"
    ) as told:
        model.summary()
    assert "fit with a penalty (penalty='l2')" in str(told.value)
    assert "C" not in str(told.value).split("fit with")[1]
    assert model.summary(["llf"]).llf < 0


@pytest.mark.cases("plain")  # `test_estimators` has fits that move on shares; here it is what they are told
def test_what_helps_a_fit_that_moves_depends_on_its_penalty(put, data):
    x = np.linspace(-1, 1, 40)
    table = put(type(data("fair"))(x[:, None], x > 0, ("x",)), types={"x": "real"})
    with pytest.warns(ConvergenceWarning, match=r"use a penalty \(penalty='l2'\), or leave out columns"):
        LogisticRegression(penalty=None).fit(table, target="y")
    with pytest.warns(ConvergenceWarning, match="use a smaller C, or leave out columns"):
        LogisticRegression(C=1e4, max_iter=2).fit(table, target="y")


# -- print ---------------------------------------------------------------------------------------------------


def test_printed(spector, data):
    found = spector
    lines = str(found).splitlines()
    assert lines[0].startswith("logistic regression of 'y' on ")
    heads = next(place for place, line in enumerate(lines) if "P>|z|" in line)
    assert [line.split()[0] for line in lines[heads + 1 :]] == ["(intercept)", *data("spector").names]
    frame = found.to_frame()
    assert isinstance(frame, pd.DataFrame)
    np.testing.assert_array_equal(frame["ci_low"], found.conf_int()[0])
    np.testing.assert_array_equal(frame["odds_ratio_ci_high"], found.odds_ratio_conf_int()[1])
    assert list(frame.index) == list(found.names_)
    assert found._repr_html_().count("<tr>") == len(lines) - 1
    latex = found.to_latex()
    assert latex.count(r"\\") == 1 + len(found.names_)
    assert r"2.5\%" in latex
