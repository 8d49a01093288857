"""Fits that are hard: what comes out is right, or it is said that it is not.

The hard cases are synthetic and random, and compared with Newton's method in the clear, with step halving.
"""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm

import tercet
from tercet.errors import ConvergenceWarning, PlanError, SchemaError
from tercet.ml import LogisticRegression
from tercet.ml.fitting import APART, FAR_OFFSET, MOVING, ONE_CLASS, OUT_OF_RANGE
from tercet.ml.newton import Newton

pytestmark = pytest.mark.cases


@pytest.fixture(scope="module")
def plain():
    with tercet.local(protocol="plain") as lake:
        yield lake


def upload(lake, X, y):
    columns = {f"x{place}": X[:, place] for place in range(X.shape[1])}
    types = dict.fromkeys(columns, "real")
    columns |= {"y": y, "id": np.arange(len(y))}
    return lake.upload(columns, name="table", key="id", owner="owner", types=types)


def objective(Z, y, penalties, w):
    z = Z @ w
    return float((np.logaddexp(0, z) - y * z).sum() + 0.5 * (penalties * w * w).sum())


def best(X, y, C):
    """Coefficients, intercept and standard errors of coefficients, by Newton's method with step halving."""
    mean, spread = X.mean(0), X.std(0)
    spread = np.where(spread > 0, spread, 1)
    Z = np.column_stack([(X - mean) / spread, np.ones(len(X))])
    penalties = np.append(1 / (C * spread**2), 0)
    w = np.zeros(Z.shape[1])
    for _ in range(200):
        p = 1 / (1 + np.exp(-np.clip(Z @ w, -500, 500)))
        gradient = Z.T @ (p - y) + penalties * w
        hessian = (Z * (p * (1 - p))[:, None]).T @ Z + np.diag(penalties)
        step = np.linalg.solve(hessian + 1e-12 * np.trace(hessian) * np.eye(len(w)), gradient)
        size = 1.0
        while (
            size > 1e-8 and objective(Z, y, penalties, w - size * step) > objective(Z, y, penalties, w) + 1e-9
        ):
            size /= 2
        w -= size * step
        if np.abs(gradient).max() < 1e-9 * len(y):
            break
    errors = np.sqrt(np.diag(np.linalg.pinv(hessian)))[:-1]
    coefficients = w[:-1] / spread
    return coefficients, w[-1] - coefficients @ mean, errors / spread


def difficult(generator):
    """A random problem: collinear, heavy-tailed, sparse, rare or nearly separable, of any scale."""
    rows = int(np.exp(generator.uniform(np.log(20), np.log(2000))))
    count = int(min(rows - 2, np.exp(generator.uniform(0, np.log(40)))))
    X = generator.normal(size=(rows, count))
    match generator.integers(0, 6):
        case 0:
            X = X @ generator.normal(size=(count, count))
        case 1:
            X = generator.normal(size=(rows, 1)) + generator.choice([0.1, 0.01]) * X
        case 2:
            X = np.exp(generator.uniform(0.5, 2) * X)
        case 3:
            X = generator.standard_t(1.5, size=(rows, count))
        case 4:
            X = (generator.uniform(0, 2.5, size=count) < X).astype(float)
    spread = X.std(0)
    Z = (X - X.mean(0)) / np.where(spread > 0, spread, 1)
    z = Z @ generator.normal(size=count) * generator.choice([0, 0.3, 1, 3, 10]) / np.sqrt(count)
    z -= np.quantile(z, 1 - generator.choice([0.5, 0.3, 0.1, 0.02]))
    y = (generator.random(rows) < 1 / (1 + np.exp(-z))).astype(int)
    if y.min() == y.max():
        y[: max(1, rows // 50)] = 1 - y[0]
    X = (Z if generator.random() < 0.5 else X) * 10.0 ** generator.choice([0.0, 0.0, -3.0, 4.0], size=count)
    return X, y, float(10.0 ** generator.choice([-2, -1, 0, 0, 0, 1, 2]))


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_nothing_is_wrong_in_silence(plain, first):
    """Fits that say nothing are within a twentieth of a standard error, and their probabilities too."""
    said = 0
    for seed in range(first, first + 10):
        X, y, C = difficult(np.random.default_rng(seed))
        coefficients, intercept, errors = best(X, y, C)
        z = X @ coefficients + intercept
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                model = LogisticRegression(C=C).fit(upload(plain, X, y), target="y")
            except SchemaError:
                sizes = np.abs(z).max(), np.abs(coefficients * X.std(0)).max()
                assert max(sizes) > 80, f"seed {seed} was refused, with decision values and such of {sizes}"
                said += 1
                continue
        assert model.converged_ is not any(one.category is ConvergenceWarning for one in told)
        if not model.converged_:
            said += 1
            continue
        found = model.reveal()
        distance = np.abs(found.coef_[0] - coefficients) / errors
        p, q = (1 / (1 + np.exp(-each)) for each in (z, X @ found.coef_[0] + found.intercept_[0]))
        assert distance.max() < 0.05, f"seed {seed}: {distance.max()} standard errors"
        assert np.abs(p - q).max() < 2e-3, f"seed {seed}: probabilities differ by {np.abs(p - q).max()}"
    assert said <= 3


@pytest.mark.parametrize("copies", [2, 3])
def test_columns_that_repeat_others_share_their_coefficient(lake, put, data, copies):
    source = data("star98")
    X = np.column_stack([source.X, *[source.X[:, 0]] * (copies - 1)])
    names = tuple(f"x{place}" for place in range(X.shape[1]))
    found = LogisticRegression(penalty=None).fit(put(type(source)(X, source.y, names)), target="y").reveal()
    alone = LogisticRegression(penalty=None).fit(put(source), target="y").reveal()
    same = [0, *range(len(source.names), len(names))]
    np.testing.assert_allclose(found.coef_[0, same].sum() / alone.coef_[0, 0], 1, atol=1e-3)
    np.testing.assert_allclose(found.coef_[0, same] * copies / alone.coef_[0, 0], 1, atol=0.2)
    np.testing.assert_allclose(found.coef_[0, 1 : len(source.names)] / alone.coef_[0, 1:], 1, atol=3e-3)


def test_all_dummies_of_a_category(lake, put, data):
    """They add up to the column of ones: coefficients are one choice of many, and probabilities are right."""
    generator = np.random.default_rng(11)
    level = generator.integers(0, 4, 2000)
    share = np.array([0.1, 0.3, 0.5, 0.8])
    y = (generator.random(2000) < share[level]).astype(int)
    X = np.eye(4)[level]
    source = type(data("fair"))(X, y, ("a", "b", "c", "d"))
    table = put(source, types=dict.fromkeys("abcd", "boolean"))
    model = LogisticRegression(penalty=None).fit(table, target="y")
    expected = np.array([y[level == each].mean() for each in range(4)])[level]
    np.testing.assert_allclose(model.predict_proba(table).reveal(), expected, atol=1e-3)


@pytest.mark.parametrize("C", [None, 1.0])
def test_a_constant_column_changes_nothing(lake, put, data, C):
    source = data("star98")
    X = np.column_stack([source.X, np.full(len(source.y), 3.7)])
    wide = type(source)(X, source.y, (*source.names, "constant"))
    options = {"penalty": None} if C is None else {"C": C}
    found = LogisticRegression(**options).fit(put(wide), target="y").reveal()
    alone = LogisticRegression(**options).fit(put(source), target="y").reveal()
    assert abs(found.coef_[0, -1]) < 1e-6
    np.testing.assert_allclose(found.coef_[0, :-1] / alone.coef_[0], 1, atol=2e-3)


def test_a_subset_of_the_uploaded_rows(lake, put, data):
    """Spreads are promised over all rows of an upload; a few of its rows may have a larger one."""
    generator = np.random.default_rng(12)
    x = np.concatenate([generator.normal(size=2000), 40 * generator.normal(size=40)])
    y = (generator.random(2040) < 1 / (1 + np.exp(-x / 30))).astype(int)
    whole = put(type(data("fair"))(np.column_stack([x, x > 3]), y, ("x", "large")))
    keys = {"id": np.arange(2000, 2040), "z": generator.normal(size=40)}
    few = whole.join(lake.upload(keys, name="few", key="id", owner="other"), on="id")
    assert len(few) == 40
    model = LogisticRegression(C=1.0).fit(few, target="y", features=["x", "z"]).reveal()
    rows = np.column_stack([x[2000:], keys["z"]])
    coefficients, _, errors = best(rows, y[2000:], 1.0)
    assert (np.abs(model.coef_[0] - coefficients) / errors).max() < 0.01


def test_more_columns_than_fit_a_tile(data):
    """Comparisons of all columns with all bounds are cut where they exceed a tile."""
    generator = np.random.default_rng(13)
    X = generator.normal(size=(300, 40))
    y = (generator.random(300) < 1 / (1 + np.exp(-X[:, 0]))).astype(int)
    with tercet.local(protocol="plain", tile_rows=64) as small:
        found = LogisticRegression(C=0.1).fit(upload(small, X, y), target="y").reveal()
    coefficients, _, errors = best(X, y, 0.1)
    assert (np.abs(found.coef_[0] - coefficients) / errors).max() < 0.005


OFFSETS = {"a column takes it back": 3.0, "it is a column's effect": 3.0, "it says next to nothing": 1.0}


def with_offset(what):
    """Features, outcomes and an offset that most outcomes contradict."""
    generator = np.random.default_rng(5)
    X = generator.normal(size=(500, 4))
    offset = OFFSETS[what] * (X[:, 0] if "effect" in what else generator.normal(size=500))
    y = (generator.random(500) < 1 / (1 + np.exp(-X @ [-1.0, 0.5, 0.0, 1.0]))).astype(int)
    return (np.column_stack([X, offset]) if "back" in what else X), y, offset


def fit_with_offset(lake, what):
    X, y, offset = with_offset(what)
    columns = {f"x{place}": column for place, column in enumerate(X.T)}
    columns |= {"offset": offset, "y": y, "id": np.arange(len(y))}
    table = lake.upload(columns, name="table", key="id", owner="owner", types={"y": "boolean"})
    return LogisticRegression(penalty=None).fit(table, target="y", offset="offset")


@pytest.mark.parametrize("what", OFFSETS)
def test_steps_that_overshoot_are_halved(lake, what):
    X, y, offset = with_offset(what)
    family = sm.families.Binomial()
    clear = sm.GLM(y, sm.add_constant(X), family=family, offset=offset).fit(tol=1e-12, maxiter=200)
    lake.disclosed.clear()
    model = fit_with_offset(lake, what)
    assert model.converged_
    assert {item.what for item in lake.disclosed} == {OUT_OF_RANGE, ONE_CLASS, FAR_OFFSET, MOVING, APART}
    assert np.abs((model.reveal().coef_[0] - clear.params[1:]) / clear.bse[1:]).max() < 0.002


def test_steps_that_are_not_halved_diverge(plain, monkeypatch):
    """What the halving is for."""
    monkeypatch.setattr(Newton, "_damped", lambda self, last, fall, gradient, new: dict(new))
    monkeypatch.setattr(Newton, "_at_the_start", full_slopes)
    with pytest.raises(SchemaError, match="a decision value left"):
        fit_with_offset(plain, "it is a column's effect")


def full_slopes(self, state):
    """The first step as any other."""
    probabilities, slopes = self.functions(state, self.problem.probability, self.slope)
    return self.residuals(probabilities), self._curvature(state, slopes)


@pytest.mark.parametrize("rows", [2, 4, 12])
@pytest.mark.parametrize("weighted", [False, True])
def test_separation_is_told_in_small_tables_too(plain, rows, weighted):
    """After some steps, the next ones change so little that they look like the last ones."""
    x = np.linspace(-1, 1, rows)
    columns = {"x": np.append(x, 0), "y": np.append(x > 0, weighted), "id": np.arange(rows + 1)}
    columns["w"] = np.append(np.ones(rows, dtype=bool), False) if weighted else np.ones(rows + 1, dtype=bool)
    table = plain.upload(columns, name="table", key="id", owner="owner", types={"x": "real"})
    options = {"target": "y", "features": ["x"], "sample_weight": "w" if weighted else None}
    for steps in (16, 40):
        with pytest.warns(ConvergenceWarning, match="tell all outcomes apart without error"):
            LogisticRegression(penalty=None, max_iter=steps).fit(table, **options)
    assert LogisticRegression(C=1.0).fit(table, **options).converged_


def test_rare_outcomes(plain):
    generator = np.random.default_rng(2)
    X = generator.normal(size=(40_000, 2))
    chances = np.exp(X @ [1, 0.5])
    y = np.zeros(len(X), dtype=int)
    y[generator.choice(len(X), 10, replace=False, p=chances / chances.sum())] = 1
    model = LogisticRegression(penalty=None).fit(upload(plain, X, y), target="y")
    coefficients, _, errors = best(X, y, np.inf)
    assert model.converged_
    assert (np.abs(model.reveal().coef_[0] - coefficients) / errors).max() < 0.02


@pytest.mark.parametrize("unit", [1e-9, 1e-5])
def test_standard_errors_under_strong_penalties(plain, unit):
    """What the penalty leaves of a column in tiny units is its own spread, the root of C."""
    generator = np.random.default_rng(14)
    X = generator.normal(size=(400, 2)) * [1, unit]
    y = (generator.random(400) < 1 / (1 + np.exp(-X[:, 0]))).astype(int)
    table = upload(plain, X, y)
    found = LogisticRegression(C=4.0).fit(table, target="y").summary(["se"])
    np.testing.assert_allclose(found.bse["x1"], 2.0, rtol=1e-4)
    with pytest.raises(PlanError, match="the penalty leaves nothing of column 'x0'"):
        LogisticRegression(C=1e-40).fit(table, target="y").summary(["se"])
