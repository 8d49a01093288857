"""Fits by Newton's method against scikit-learn and statsmodels, in standard errors.

A standard error is what the data themselves leave open, so a difference of a hundredth of one means nothing.
"""

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression as Clear

import tercet
from tercet.errors import ConvergenceWarning, PlanError
from tercet.ml import LogisticRegression, StandardScaler

pytestmark = pytest.mark.cases


def standard_errors(X, z, C):
    """Roots of the diagonal of the inverse Hessian: coefficients, then the intercept of centred columns."""
    p = 1 / (1 + np.exp(-z))
    X1 = np.column_stack([X - X.mean(0), np.ones(len(X))])
    penalty = np.append(np.full(X.shape[1], 0 if C is None else 1 / C), 0)
    hessian = (X1 * (p * (1 - p))[:, None]).T @ X1 + np.diag(penalty)
    return np.sqrt(np.diag(np.linalg.inv(hessian)))


def clear_fit(X, y, C):
    """scikit-learn's coefficients and intercept, of centred columns, and back."""
    scale, mean = X.std(0), X.mean(0)
    if C is not None:  # the penalty is on the columns as they are
        scale = 1.0
    fit = Clear(C=np.inf if C is None else C, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    fit.fit((X - mean) / scale, y)
    coefficients = fit.coef_[0] / scale
    return coefficients, fit.intercept_[0] - coefficients @ mean


def distances(model, X, y, C):
    """Differences from scikit-learn's fit in standard errors."""
    coefficients, intercept = clear_fit(X, y, C)
    errors = standard_errors(X, X @ coefficients + intercept, C)
    centred = model.intercept_[0] - intercept + (model.coef_[0] - coefficients) @ X.mean(0)
    return np.abs(np.append(model.coef_[0] - coefficients, centred)) / errors


CASES = [
    ("breast cancer", 1.0, 0.005),
    ("breast cancer", 0.01, 0.005),
    ("fair", None, 0.0015),
    ("fair", 1.0, 0.0015),
    ("fair", 1e-3, 0.0015),
    ("spector", None, 0.0015),
    ("spector", 0.1, 0.0015),
    ("heart", None, 0.0015),
    ("heart", 1e-4, 0.0015),
    ("star98", None, 0.0015),
    ("star98", 10.0, 0.0015),
    ("1 in 100", None, 0.01),
    ("1 in 100", 1.0, 0.01),
    ("1 in 1000", None, 0.05),
    ("large", None, 0.005),
]


@pytest.mark.parametrize(("name", "C", "most"), CASES)
def test_coefficients(put, data, name, C, most):
    source = data(name)
    model = LogisticRegression(penalty=None if C is None else "l2", C=C or 1.0).fit(put(source), target="y")
    assert model.converged_
    found = model.reveal()
    assert tuple(found.feature_names_in_) == source.names
    assert found.target_ == "y"
    assert distances(found, source.X, source.y, C).max() < most


@pytest.mark.parametrize("name", ["fair", "spector", "heart", "star98"])
def test_coefficients_against_statsmodels(put, data, name):
    source = data(name)
    clear = sm.Logit(source.y, sm.add_constant(source.X)).fit(disp=False, tol=1e-12)
    found = LogisticRegression(penalty=None).fit(put(source), target="y").reveal()
    assert (np.abs(found.coef_[0] - clear.params[1:]) / clear.bse[1:]).max() < 0.0015
    assert abs(found.intercept_[0] - clear.params[0]) / clear.bse[0] < 0.0015


def test_columns_of_wildly_different_scale(put, data):
    """Coefficients in raw units: times the spread of their columns, they are those of standardised
    columns."""
    source = data("fair")
    units = 10.0 ** np.array([-6, 9, 0, 3, -3, 1, 7, -5])
    wild = type(source)(source.X * units, source.y, source.names)
    found = LogisticRegression(penalty=None).fit(put(wild), target="y").reveal()
    clear, _ = clear_fit(source.X, source.y, None)
    errors = standard_errors(source.X, source.X @ clear, None)[:-1]
    np.testing.assert_allclose(found.coef_[0] * units / errors, clear / errors, atol=0.0015)


def test_a_penalty_on_columns_of_wildly_different_scale(put, data):
    """The penalty weighs columns as they are: those of tiny spread get next to nothing, as in
    scikit-learn."""
    source = data("fair")
    units = 10.0 ** np.array([-6, 5, 0, 3, -3, 1, 4, -5])
    wild = type(source)(source.X * units, source.y, source.names)
    found = LogisticRegression(C=1.0).fit(put(wild), target="y").reveal()
    mean, spread = wild.X.mean(0), wild.X.std(0)
    # The same problem in standardised columns, by scaling each column to its share of the penalty.
    clear = newton_in_the_clear((wild.X - mean) / spread, source.y, 1 / spread**2)
    np.testing.assert_allclose(found.coef_[0] * spread, clear[:-1], atol=2e-4)


def newton_in_the_clear(Z, y, penalties):
    """Newton's method for standardised columns with a penalty each, and an intercept last."""
    Z, penalties = np.column_stack([Z, np.ones(len(Z))]), np.append(penalties, 0)
    w = np.zeros(Z.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-Z @ w))
        hessian = (Z * (p * (1 - p))[:, None]).T @ Z + np.diag(penalties)
        w -= np.linalg.solve(hessian, Z.T @ (p - y) + penalties * w)
    return w


def test_booleans_integers_and_reals(put, data):
    generator = np.random.default_rng(4)
    columns = np.column_stack(
        [
            generator.random(3000) < 0.1,
            generator.integers(0, 2, 3000),
            generator.poisson(3, 3000),
            generator.integers(1_900_000, 1_900_400, 3000),
            generator.normal(size=3000),
        ]
    ).astype(float)
    z = columns @ [1.0, -1.0, 0.3, 0.004, 0.5] - 7602
    y = (generator.random(3000) < 1 / (1 + np.exp(-z))).astype(int)
    source = type(data("fair"))(columns, y, ("flag", "bit", "count", "date", "real"))
    types = {"flag": "boolean", "bit": "integer", "count": "integer", "date": "integer"}
    table = put(source, types=types)
    assert [column.schema.kind for column in table.columns[:5]] == ["boolean", *["integer"] * 3, "real"]
    found = LogisticRegression(penalty=None).fit(table, target="y").reveal()
    assert distances(found, columns, y, None).max() < 0.0015


def test_some_of_the_columns(put, data):
    source = data("fair")
    chosen = ("x6", "x0", "x3")
    found = LogisticRegression(C=0.5).fit(put(source), target="y", features=chosen).reveal()
    assert tuple(found.feature_names_in_) == chosen
    X = source.X[:, [6, 0, 3]]
    assert distances(found, X, source.y, 0.5).max() < 0.0015


def test_a_tolerance_stops_early_and_finds_the_same(put, data, lake):
    source = data("spector")
    table = put(source)
    lake.disclosed.clear()
    model = LogisticRegression(tol=1e-3).fit(table, target="y")
    assert model.converged_
    assert model.n_iter_ < 12
    told = [item.what for item in lake.disclosed]
    assert told == ["whether the fit has converged"] * int(model.n_iter_[0]) + [
        "whether a decision value or a coefficient left its range",
        "whether only one outcome occurs",
        "whether the last step still moved the fit",
    ]
    assert all((item.to, item.size) == ("analyst", "1") for item in lake.disclosed)
    assert distances(model.reveal(), source.X, source.y, 1.0).max() < 0.002


@pytest.mark.parametrize("options", [{}, {"class_weight": "balanced"}, {"solver": "gd", "max_iter": 4}])
@pytest.mark.filterwarnings("ignore::tercet.errors.ConvergenceWarning")
def test_what_plans_of_a_fit_store_for_each_other(lake, put, data, options):
    """The first plan stores rows in the solver's coordinates, no other does, and all goes with the fit."""
    source, stored = data("spector"), []
    table = put(type(source)((source.X - source.X.mean(0)) / source.X.std(0), source.y, source.names))
    lake.on_result = lambda _, result: stored.append(result.stored)
    try:
        model = LogisticRegression(tol=1e-3, **options).fit(table, target="y")
    finally:
        lake.on_result = None
    assert len(stored) >= 4
    grows = [sum(kind.shape[-1] == table.rows for kind in plan.values()) for plan in stored]
    assert grows == [2 if "class_weight" in options else 1] + [0] * (len(stored) - 1)
    for number, plan in enumerate(stored):
        for handle, kind in plan.items():
            builder = lake.builder("read")
            builder.input(handle, kind).sum().reveal("sum", to="analyst")
            if number == len(stored) - 1:
                assert np.isfinite(lake.run(builder.plan()).revealed["sum"]).all()
            else:
                with pytest.raises(PlanError, match="nothing is stored under"):
                    lake.run(builder.plan())
    assert np.isfinite(model.reveal().coef_[0]).all()


def test_wider_ranges_are_tried_by_themselves(put, data, lake):
    """Decision values reach 94, so the first try is given up, and the second one takes more steps."""
    source = data("breast cancer")
    table = put(source)
    tries = len(lake.phases)
    model = LogisticRegression(C=10.0, max_iter=32).fit(table, target="y")
    plans = [phase.plan for phase in lake.phases[tries:]]
    assert plans.count(f"fit y on {table.name}") == 2
    assert all(plan.startswith(f"fit y on {table.name}") for plan in plans)
    assert model.converged_
    assert distances(model.reveal(), source.X, source.y, 10.0).max() < 0.02


def test_a_fit_that_is_not_done_says_so(put, data):
    source = data("breast cancer")
    with pytest.warns(ConvergenceWarning, match="'y' on 'table.* still moving after 3 steps; raise max_iter"):
        model = LogisticRegression(max_iter=3).fit(put(source), target="y")
    assert model.converged_ is False
    assert model.n_iter_ == 3


@pytest.mark.parametrize("options", [{"tile_rows": 64}, {"tile_rows": 1024, "threads": 2}, {"threads": 2}])
def test_results_do_not_depend_on_tiles_and_threads(lake, put, data, options):
    source = data("star98")
    with tercet.local(protocol=lake.protocol, **options) as other:
        found = []
        for one in (lake, other):
            table = put(source, into=one)
            scaled = StandardScaler().fit_transform(table)
            model = LogisticRegression().fit(scaled, target="y")
            scores = model.evaluate(scaled).reveal().as_dict()
            confusion = scores.pop("confusion_matrix")
            found.append((model.reveal().coef_[0], np.array(list(scores.values())), confusion))
        for left, right in zip(*found, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-4)


@pytest.mark.parametrize(
    ("solver", "rows", "rounds"),
    [
        ("newton", 400, 16),
        ("newton", 3_538, 16),
        ("newton", 3_539, 18),
        ("newton", 32_769, 18),
        ("gd", 400, 6),
    ],
)
@pytest.mark.filterwarnings("ignore::tercet.errors.ConvergenceWarning")
def test_rounds_of_a_step(data, solver, rows, rounds):
    """What decision 0009 says, which does not depend on the number of columns."""
    source = data("large")
    columns = {"x": source.X[:rows, 0], "z": source.X[:rows, 1], "y": source.y[:rows], "id": np.arange(rows)}
    with tercet.local() as lake:
        table = lake.upload(columns, name="table", key="id", owner="owner")
        for steps in (2, 3):
            LogisticRegression(solver=solver, max_iter=steps).fit(table, target="y")
        short, long = (phase.rounds for phase in lake.phases if phase.name == "train")
    assert long - short == rounds
