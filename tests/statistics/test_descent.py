"""Gradient descent makes the very steps that its documentation says, as numpy makes them in the clear."""

import numpy as np
import pytest

from tercet.errors import ConvergenceWarning
from tercet.ml import LogisticRegression, StandardScaler

pytestmark = pytest.mark.cases


def descend(X, y, *, steps, rate, momentum=0.0, C=np.inf):
    """Gradient descent on the mean loss; weights of centred columns, and their intercept last."""
    rows = len(X)
    x = np.column_stack([X - X.mean(0), np.ones(rows)])
    penalty = np.append(np.full(X.shape[1], 1 / (C * rows)), 0)
    w, m = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    changes = []
    for _ in range(steps):
        p = 1 / (1 + np.exp(-x @ w))
        m = momentum * m + rate * (x.T @ (p - y) / rows + penalty * w)
        w = w - m
        changes.append(np.abs(m).max())
    return w, np.array(changes)


def compare(model, X, weights, most=5e-4):
    found = model.reveal()
    np.testing.assert_allclose(found.coef_[0], weights[:-1], atol=most)
    np.testing.assert_allclose(found.intercept_[0] + found.coef_[0] @ X.mean(0), weights[-1], atol=most)


@pytest.mark.parametrize("name", ["breast cancer", "fair"])
@pytest.mark.parametrize(
    "options",
    [
        {"max_iter": 1},
        {"max_iter": 10, "learning_rate": 0.5},
        {"max_iter": 40, "momentum": 0.5},
        {"max_iter": 25, "momentum": 0.9, "learning_rate": 0.1, "C": 0.01},
        {"max_iter": 20, "C": 1.0, "learning_rate": 1.7},
    ],
)
def test_steps(put, data, name, options):
    source = data(name)
    X = (source.X - source.X.mean(0)) / source.X.std(0)
    table = put(type(source)(X, source.y, source.names))
    penalty = {} if "C" in options else {"penalty": None}
    model = LogisticRegression(solver="gd", **penalty, **options).fit(table, target="y")
    assert model.n_iter_ == options["max_iter"]
    assert model.converged_ is None
    weights, _ = descend(
        X,
        source.y,
        steps=options["max_iter"],
        rate=options.get("learning_rate", 1.0),
        momentum=options.get("momentum", 0.0),
        C=options.get("C", np.inf),
    )
    compare(model, X, weights)


def test_columns_standardised_by_the_scaler(put, data):
    source = data("star98")
    X = (source.X - source.X.mean(0)) / source.X.std(0)
    table = StandardScaler().fit_transform(put(source))
    model = LogisticRegression(solver="gd", max_iter=30, C=0.1).fit(table, target="y")
    compare(model, X, descend(X, source.y, steps=30, rate=1.0, C=0.1)[0], most=2e-3)


def test_a_tolerance(put, data):
    """The fit stops after the first step that changes no weight by as much."""
    source = data("star98")
    X = (source.X - source.X.mean(0)) / source.X.std(0)
    table = put(type(source)(X, source.y, source.names))
    weights, changes = descend(X, source.y, steps=200, rate=1.0, C=1.0)
    tol = 0.01
    steps = int(np.argmax(changes < tol)) + 1
    assert np.abs(changes[steps - 2 : steps] - tol).min() > 1e-4  # no close call
    model = LogisticRegression(solver="gd", max_iter=200, tol=tol).fit(table, target="y")
    assert model.n_iter_ == steps
    assert model.converged_ is True
    compare(model, X, descend(X, source.y, steps=steps, rate=1.0, C=1.0)[0])
    with pytest.warns(ConvergenceWarning, match="still moving after 3 steps"):
        model = LogisticRegression(solver="gd", max_iter=3, tol=1e-3).fit(table, target="y")
    assert model.converged_ is False
    compare(model, X, descend(X, source.y, steps=3, rate=1.0, C=1.0)[0])
    assert np.abs(weights).max() > 0.1
