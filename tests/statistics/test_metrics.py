"""Metrics and predictions against scikit-learn's, on the same rows with the same model."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression as Clear

from tercet.ml import LogisticRegression

NAMES = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier")


def in_the_clear(y, z):
    """scikit-learn's metrics of decision values."""
    p, labels = 1 / (1 + np.exp(-z)), z > 0
    zero = {"zero_division": 0.0}
    return {
        "accuracy": metrics.accuracy_score(y, labels),
        "precision": metrics.precision_score(y, labels, **zero),
        "recall": metrics.recall_score(y, labels, **zero),
        "f1": metrics.f1_score(y, labels, **zero),
        "roc_auc": metrics.roc_auc_score(y, z),
        "log_loss": metrics.log_loss(y, p, labels=[0, 1]),
        "brier": metrics.brier_score_loss(y, p),
        "confusion_matrix": metrics.confusion_matrix(y, labels, labels=[0, 1]),
    }


def check(found, y, z, most=1e-4):
    expected = in_the_clear(y, z)
    np.testing.assert_array_equal(found.confusion_matrix, expected.pop("confusion_matrix"))
    got = np.array([getattr(found, name) for name in NAMES])
    np.testing.assert_allclose(got, [expected[name] for name in NAMES], atol=most)


@pytest.mark.parametrize("name", ["breast cancer", "fair", "spector", "heart", "star98", "1 in 100"])
def test_metrics_and_predictions(put, data, name):
    source = data(name)
    rows = np.random.default_rng(5).permutation(len(source.y))
    size = min(2000, len(rows) // 2)
    train, test = rows[size:], rows[:size]
    model = LogisticRegression().fit(put(source, train), target="y")
    table = put(source, test)
    clear = Clear(C=1.0, tol=1e-10, max_iter=100_000).fit(
        source.X[train] - source.X[train].mean(0), source.y[train]
    )
    z = clear.decision_function(source.X[test] - source.X[train].mean(0))
    y = source.y[test]
    decided = model.decision_function(table).reveal()
    np.testing.assert_allclose(decided, z, atol=2e-3 * max(1, np.abs(z).max()))
    # What follows from decision values is exact given those; rows on the very border may fall to either side.
    exact = np.round(decided, 5)
    assert (np.abs(decided) > 1e-5).all()
    np.testing.assert_array_equal(model.predict(table).reveal(), decided > 0)
    np.testing.assert_allclose(model.predict_proba(table).reveal(), 1 / (1 + np.exp(-decided)), atol=1e-4)
    scores = model.evaluate(table).reveal()
    assert scores.rows == len(test)
    check(scores, y, exact)
    check(scores, y, np.round(z, 9), most=1e-3 if name != "breast cancer" else 5e-3)


def test_tied_decision_values(put, data):
    """Few distinct rows: most pairs are tied, and each counts one half."""
    generator = np.random.default_rng(6)
    for values, rows in ((2, 50), (3, 400), (7, 1000)):
        x = generator.integers(0, values, rows)
        y = (generator.random(rows) < (x + 1) / (values + 1)).astype(int)
        source = type(data("fair"))(x[:, None], y, ("x",))
        table = put(source, types={"x": "integer"})
        model = LogisticRegression().fit(table, target="y")
        scores = model.evaluate(table).reveal()
        assert abs(scores.roc_auc - metrics.roc_auc_score(y, x)) < 5e-5
        # Broken in the order of rows, the worst way and the best, ties would show.
        spread = metrics.roc_auc_score(y, x + 0.5 * y) - metrics.roc_auc_score(y, x - 0.5 * y)
        assert spread > 0.1


def test_all_rows_tied(put, data):
    x, y = np.ones(130), np.arange(130) % 3 == 0
    source = type(data("fair"))(np.column_stack([x, np.arange(130)]), y, ("x", "n"))
    table = put(source)
    model = LogisticRegression().fit(table, target="y", features=["x"])
    found = model.reveal()
    assert found.coef_ == [0.0]
    assert abs(found.intercept_ - np.log(y.mean() / (1 - y.mean()))) < 1e-4
    assert abs(model.evaluate(table).reveal("roc_auc").roc_auc - 0.5) < 5e-5
