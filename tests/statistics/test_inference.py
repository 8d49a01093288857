"""Summaries of fits against statsmodels: standard errors, tests, likelihoods, on public data sets."""

import functools

import numpy as np
import pytest
import statsmodels.api as sm

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression
from tercet.ml.fitting import MOVING, ONE_CLASS, OUT_OF_RANGE

pytestmark = [pytest.mark.cases, pytest.mark.early]
SETS = ["spector", "heart", "fair", "star98", "anes96", "tumours", "randhie", "digits", "1 in 100"]
"""From 32 rows to 20,190, from 2 columns to 52, from 1 % of positive outcomes to 69 %."""


def clear_fit(source):
    """statsmodels' fit, its intercept last."""
    return sm.Logit(source.y, np.column_stack([source.X, np.ones(len(source.y))])).fit(disp=False, tol=1e-12)


@pytest.fixture(scope="module")
def fitted(put, data):
    """The fit of a data set by name, made once in each lake: `fitted("spector")`. Tests only ask it."""
    return functools.cache(lambda name: LogisticRegression(penalty=None).fit(put(data(name)), target="y"))


@pytest.fixture(scope="module")
def summarised(fitted):
    """The summary of such a fit, made once."""
    return functools.cache(lambda name: fitted(name).summary())


@pytest.mark.parametrize("name", SETS)
def test_against_statsmodels(summarised, data, name):
    source = data(name)
    clear = clear_fit(source)
    found = summarised(name)
    assert found.names_ == (*source.names, "(intercept)")
    assert (np.abs(found.params - clear.params) / clear.bse).max() < 0.01
    np.testing.assert_allclose(found.bse, clear.bse, rtol=1e-3)
    np.testing.assert_allclose(found.tvalues, clear.tvalues, rtol=1e-3, atol=0.01)
    np.testing.assert_allclose(found.pvalues, clear.pvalues, atol=1e-3)
    np.testing.assert_allclose((found.conf_int() - clear.conf_int()) / clear.bse[:, None], 0, atol=0.015)
    np.testing.assert_allclose(np.log(found.odds_ratio), found.params, atol=1e-9)
    figures = (found.llf, found.llnull, found.aic, found.bic)
    np.testing.assert_allclose(figures, (clear.llf, clear.llnull, clear.aic, clear.bic), rtol=1e-4)
    np.testing.assert_allclose(found.llr, clear.llr, rtol=1e-3, atol=1e-4 * abs(clear.llf))
    assert abs(found.llr_pvalue - clear.llr_pvalue) < 1e-3
    assert abs(found.prsquared - clear.prsquared) < 2e-4
    p = clear.predict()
    assert abs(found.tjur - (p[source.y == 1].mean() - p[source.y == 0].mean())) < 1e-4
    assert found.nobs == len(source.y)


ALONE = ["z", "p", "significant", "sign", "llr", "llr_pvalue", "prsquared", "llnull"]


@pytest.mark.parametrize("name", ["spector", "fair", "star98", "anes96"])
def test_figures_alone(lake, fitted, data, name):
    """Each is computed in MPC, and nothing else is told."""
    clear, model = clear_fit(data(name)), fitted(name)
    expected = {
        "z": (clear.tvalues, 0.01 + 1e-3 * np.abs(clear.tvalues)),
        "p": (clear.pvalues, 1e-3),
        "significant": (clear.pvalues < 0.05, 0),
        "sign": (np.sign(clear.params), 0),
        "llr": (clear.llr, 1e-4 * abs(clear.llf) + 1e-3 * clear.llr),
        "llr_pvalue": (clear.llr_pvalue, 1e-3),
        "prsquared": (clear.prsquared, 2e-4),
        "llnull": (clear.llnull, 1e-4 * abs(clear.llnull)),
    }
    for figure in ALONE:
        lake.disclosed.clear()
        summary = model.summary(reveal=[figure], to="hospital")
        right, most = expected[figure]
        assert (np.abs(np.asarray(summary.values[figure], dtype=float) - right) <= most).all(), figure
        assert list(summary.values) == [figure]
        bits = ["whether standard errors cannot be made exact"] * (figure in ("z", "p", "significant"))
        told = [item.what for item in lake.disclosed]
        assert told[: len(bits)] == bits
        assert len(told) == len(bits) + 1
        assert {item.to for item in lake.disclosed} == {"hospital"}
    with pytest.raises(AttributeError, match="'params' was not revealed"):
        _ = summary.params


def test_what_follows_is_not_asked_for_twice(lake, fitted):
    model = fitted("spector")
    lake.disclosed.clear()
    found = model.summary(["coef", "se", "p", "z", "ci", "odds_ratio", "sign", "significant"])
    assert [item.what for item in lake.disclosed] == [
        "whether standard errors cannot be made exact",
        "coefficients of 'y'",
        "standard errors of 'y'",
    ]
    assert found.significant.tolist() == (found.pvalues < 0.05).tolist()
    lake.disclosed.clear()
    model.summary("odds_ratio")
    assert [item.what for item in lake.disclosed] == ["coefficients of 'y'"]


@pytest.mark.parametrize("kind", ["counts", "some"])
def test_weights_count_rows(put, data, kind):
    source = data("fair")
    generator = np.random.default_rng(3)
    rows = len(source.y)
    weights = generator.integers(0, 5, rows) if kind == "counts" else generator.random(rows) < 0.1
    columns = type(source)(np.column_stack([source.X, weights]), source.y, (*source.names, "w"))
    table = put(columns, types={"w": "boolean"} if kind == "some" else {})
    model = LogisticRegression(penalty=None).fit(table, target="y", sample_weight="w")
    X = np.column_stack([source.X, np.ones(rows)])
    clear = sm.GLM(source.y, X, family=sm.families.Binomial(), freq_weights=weights.astype(float)).fit(
        tol=1e-12
    )
    found = model.summary()
    assert (np.abs(found.params - clear.params) / clear.bse).max() < 0.01
    np.testing.assert_allclose(found.bse, clear.bse, rtol=1e-3)
    np.testing.assert_allclose((found.llf, found.llnull), (clear.llf, clear.llnull), rtol=1e-4)
    np.testing.assert_allclose(found.nobs, weights.sum(), rtol=1e-4)
    alone = model.summary(["p", "llr"])
    np.testing.assert_allclose(alone.pvalues, clear.pvalues, atol=1e-3)
    np.testing.assert_allclose(alone.llr, 2 * (clear.llf - clear.llnull), rtol=1e-3)


def test_weights_that_are_large_and_alike(put, data):
    """Their mean is many of their units, so it takes more digits than one over it leaves room for."""
    source = data("star98")
    X = (source.X - source.X.mean(0)) / source.X.std(0)
    weights = 1000 + np.random.default_rng(5).normal(size=len(X))
    table = put(type(source)(np.column_stack([X, weights]), source.y, (*source.names, "w")))
    model = LogisticRegression(penalty=None).fit(table, target="y", sample_weight="w")
    family = sm.families.Binomial()
    clear = sm.GLM(source.y, np.column_stack([X, np.ones(len(X))]), family=family, freq_weights=weights)
    clear = clear.fit(tol=1e-12)
    found = model.summary()
    assert (np.abs(found.params - clear.params) / clear.bse).max() < 0.01
    np.testing.assert_allclose(found.bse, clear.bse, rtol=2e-4)
    np.testing.assert_allclose((found.llf, found.llnull), (clear.llf, clear.llnull), rtol=1e-5)
    np.testing.assert_allclose(found.nobs, weights.sum(), rtol=2e-6)
    np.testing.assert_allclose(model.summary(["z"]).tvalues, clear.tvalues, rtol=1e-3, atol=5e-3)


def test_offset_and_no_intercept(put, data):
    source = data("star98")
    rows = len(source.y)
    offset = np.random.default_rng(4).normal(0, 1, rows)
    table = put(type(source)(np.column_stack([source.X, offset]), source.y, (*source.names, "o")))
    family = sm.families.Binomial()
    clear = sm.GLM(source.y, np.column_stack([source.X, np.ones(rows)]), family=family, offset=offset).fit(
        tol=1e-12
    )
    found = LogisticRegression(penalty=None).fit(table, target="y", offset="o").summary()
    np.testing.assert_allclose(found.bse, clear.bse, rtol=1e-3)
    assert abs(found.llf / clear.llf - 1) < 1e-4
    assert "llnull" not in found.values
    clear = sm.GLM(source.y, source.X, family=family).fit(tol=1e-12)
    model = LogisticRegression(penalty=None, fit_intercept=False).fit(table, "y", features=source.names)
    found = model.summary()
    np.testing.assert_allclose(found.bse, clear.bse, rtol=1e-3)
    assert found.names_ == source.names
    with pytest.raises(PlanError, match="'llr' compares a fit with a constant"):
        model.summary(["llr"])


def test_a_penalty_is_a_prior(put, data):
    source = data("breast cancer")
    found = LogisticRegression(C=1.0).fit(put(source), target="y").summary(["coef", "se"])
    X = np.column_stack([source.X, np.ones(len(source.y))])
    p = 1 / (1 + np.exp(-X @ found.params))
    hessian = (X * (p * (1 - p))[:, None]).T @ X + np.diag([1.0] * source.X.shape[1] + [0.0])
    np.testing.assert_allclose(found.bse, np.sqrt(np.diag(np.linalg.inv(hessian))), rtol=1e-3)


def test_what_cannot_be(fitted):
    model = fitted("spector")
    with pytest.raises(PlanError, match="no figure 'r2' in a summary; known are coef"):
        model.summary(["r2"])
    with pytest.raises(PlanError, match="alpha=5 is not a number between 0 and 1"):
        model.summary(alpha=5)


FITS = {
    "penalised": ({"C": 0.1, "class_weight": "balanced"}, {"sample_weight": "w"}),
    "offset": ({"penalty": None}, {"sample_weight": "w", "offset": "o"}),
    "descent": ({"penalty": None, "solver": "gd", "learning_rate": 4.0}, {"offset": "o"}),
}


@pytest.fixture(scope="module")
def some(put, data):
    """A table of standardised columns, weights and an offset, and the names of its features."""
    source, generator = data("star98"), np.random.default_rng(6)
    X = (source.X - source.X.mean(0)) / source.X.std(0)
    more = np.column_stack([X, generator.random(len(X)) + 0.5, generator.normal(0, 0.3, len(X))])
    return put(type(source)(more[:, 2:], source.y, (*source.names[2:], "w", "o"))), source.names[2:]


@pytest.mark.parametrize("kind", FITS)
def test_models_that_were_saved(lake, some, kind):
    """A model tells on its rows what the fit tells, or what the fit by Newton's method does."""
    (options, roles), (table, names) = FITS[kind], some
    model = LogisticRegression(**options).fit(table, target="y", features=names, **roles)
    model.save("kept")
    lake.disclosed.clear()
    found = lake.model("kept").summary(table, ["coef", "se", "llf"], to="hospital")
    told = [(item.what, item.to) for item in lake.disclosed]
    bits = 3 + len(roles)  # of weights one, of offsets one
    assert told[:2] == [(OUT_OF_RANGE, "analyst"), (ONE_CLASS, "analyst")]
    assert told[bits - 1 :] == [
        (MOVING, "analyst"),
        ("whether standard errors cannot be made exact", "hospital"),
        ("coefficients of 'y'", "hospital"),
        ("standard errors of 'y'", "hospital"),
        ("log-likelihood of 'y'", "hospital"),
    ]
    if kind == "descent":
        np.testing.assert_allclose(model.summary(["se"]).bse, found.bse, rtol=1e-4)
        model = LogisticRegression(penalty=None).fit(table, target="y", features=names, **roles)
    right = model.summary()
    assert (np.abs(found.params - right.params) / right.bse).max() < 0.01
    np.testing.assert_allclose(found.bse, right.bse, rtol=5e-4)
    np.testing.assert_allclose(found.llf, right.llf, rtol=1e-5)


def test_models_that_are_not_the_best(lake, fitted, put, data, some):
    table, names = some
    early = LogisticRegression(solver="gd", max_iter=3).fit(table, target="y", features=names)
    lake.disclosed.clear()
    with pytest.raises(SchemaError, match=r"the model of 'y' is not the best one on 'table.*use the rows"):
        early.summary()
    assert {item.what for item in lake.disclosed} == {OUT_OF_RANGE, ONE_CLASS, MOVING}
    fitted("star98").save("whole")
    with pytest.raises(SchemaError, match="is not the best one"):
        lake.model("whole").summary(put(data("star98"), rows=slice(0, 200)))


@pytest.mark.parametrize("options", [{"tile_rows": 64}, {"threads": 2}])
def test_figures_do_not_depend_on_tiles_and_threads(lake, summarised, put, data, options):
    with tercet.local(protocol=lake.protocol, **options) as other:
        table = put(data("star98"), into=other)
        there = LogisticRegression(penalty=None).fit(table, target="y").summary()
    found = []
    for summary in (summarised("star98"), there):
        # An odds ratio of 1,400 is 7 in figures that have an absolute error.
        ratios = {name: np.log(summary.values[name]) for name in ("odds_ratio", "odds_ratio_ci")}
        values = summary.values | ratios
        found.append(np.concatenate([np.ravel(value) for value in values.values()]).astype(float))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-4)
