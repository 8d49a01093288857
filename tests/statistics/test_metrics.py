"""Metrics and predictions against scikit-learn's, on the same rows with the same model."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from sklearn.linear_model import LogisticRegression as Clear

from tercet.ml import LogisticRegression
from tercet.ml.metrics import METRICS
from tercet.ml.tails import chi_square_tail

pytestmark = pytest.mark.cases
NAMES = [name for name in METRICS if name != "confusion_matrix"]


def delong(y, z):
    """Standard error of the AUC from the shares of pairs that each row is right in (DeLong et al. 1988)."""
    right = (z[y == 1][:, None] > z[y == 0]) + 0.5 * (z[y == 1][:, None] == z[y == 0])
    return np.sqrt(sum(right.mean(axis).var(ddof=1) / right.shape[1 - axis] for axis in (0, 1)))


def in_the_clear(y, z):
    """scikit-learn's metrics of decision values."""
    p, labels = 1 / (1 + np.exp(-z)), z > 0
    zero = {"zero_division": 0.0}
    return {
        "accuracy": metrics.accuracy_score(y, labels),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, labels),
        "specificity": metrics.recall_score(y, labels, pos_label=0, **zero),
        "mcc": metrics.matthews_corrcoef(y, labels),
        "roc_auc_se": delong(y, z),
        "average_precision": metrics.average_precision_score(y, z),
        "precision": metrics.precision_score(y, labels, **zero),
        "recall": metrics.recall_score(y, labels, **zero),
        "f1": metrics.f1_score(y, labels, **zero),
        "roc_auc": metrics.roc_auc_score(y, z),
        "log_loss": metrics.log_loss(y, p, labels=[0, 1]),
        "brier": metrics.brier_score_loss(y, p),
        "confusion_matrix": metrics.confusion_matrix(y, labels, labels=[0, 1]),
    }


def check(found, y, z, most=1e-4, known_to=0.0):
    """Metrics as scikit-learn has them of decision values `z`, each known to within `known_to`.

    Two rows nearer than that may come in either order, which a rare outcome's precision shows. Both areas are
    then between those with all positive rows as far down, and as far up, as they may be.
    """
    expected = in_the_clear(y, z)
    np.testing.assert_array_equal(found.confusion_matrix, expected.pop("confusion_matrix"))
    areas = {"roc_auc": metrics.roc_auc_score, "average_precision": metrics.average_precision_score}
    for name, area in areas.items():
        least, greatest = (area(y, z + sign * 2 * known_to * y) for sign in (-1, 1))
        expected[name] = np.clip(getattr(found, name), least, greatest)
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
    assert (np.abs(decided) > 1e-5).all()
    np.testing.assert_array_equal(model.predict(table).reveal(), decided > 0)
    np.testing.assert_allclose(model.predict_proba(table).reveal(), 1 / (1 + np.exp(-decided)), atol=1e-4)
    scores = model.evaluate(table).reveal()
    assert scores.rows == len(test)
    check(scores, y, decided, known_to=1e-5)
    check(scores, y, z, most=1e-3 if name != "breast cancer" else 5e-3)


def test_tied_decision_values(put, data):
    """Few distinct rows: most pairs are tied, and each counts one half."""
    generator = np.random.default_rng(6)
    for values, rows in ((2, 50), (3, 400), (7, 1000)):
        x = generator.integers(0, values, rows)
        y = (generator.random(rows) < (x + 1) / (values + 1)).astype(int)
        source = type(data("fair"))(x[:, None], y, ("x",))
        table = put(source, types={"x": "integer"})
        model = LogisticRegression().fit(table, target="y")
        evaluation = model.evaluate(table, metrics=["roc_auc", "roc_auc_se", "average_precision"])
        scores = evaluation.reveal()
        assert abs(scores.roc_auc - metrics.roc_auc_score(y, x)) < 1e-6
        assert abs(scores.average_precision - metrics.average_precision_score(y, x)) < 1e-6
        assert abs(scores.roc_auc_se - delong(y, x)) < 1e-5
        # Broken in the order of rows, the worst way and the best, ties would show.
        spread = metrics.roc_auc_score(y, x + 0.5 * y) - metrics.roc_auc_score(y, x - 0.5 * y)
        assert spread > 0.1
        check_roc(evaluation.roc_curve(points=9), y, x)


def check_roc(curve, y, z):
    """Every point is a corner of scikit-learn's curve, which is in order."""
    fpr, tpr, _ = metrics.roc_curve(y, z, drop_intermediate=False)
    corners = np.column_stack([fpr, tpr])
    for point in np.column_stack([curve.fpr, curve.tpr]):
        assert np.abs(corners - point).max(axis=1).min() < 1e-6
    assert (np.diff(curve.fpr) > -1e-9).all()
    assert (np.diff(curve.tpr) > -1e-9).all()


def test_curves(put, data):
    """Points at equal shares of the rows; groups of risk as numpy cuts them; the test as it is defined."""
    source = data("fair")
    rows = np.random.default_rng(8).permutation(len(source.y))[:1000]
    table = put(source, rows)
    model = LogisticRegression().fit(table, target="y")
    z, y = model.decision_function(table).reveal(), source.y[rows]
    evaluation = model.evaluate(table, metrics="roc_auc")
    curve = evaluation.roc_curve(points=21)
    check_roc(curve, y, np.round(z, 6))
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    labelled = curve.tpr * y.sum() + curve.fpr * (len(y) - y.sum())
    assert np.abs(labelled - np.linspace(0, 1000, 21)).max() < 60  # ties are not cut
    assert abs(np.trapezoid(curve.tpr, curve.fpr) - metrics.roc_auc_score(y, z)) < 0.01

    order = np.argsort(z)
    p = 1 / (1 + np.exp(-z[order]))
    table = evaluation.calibration(bins=7)
    np.testing.assert_array_equal(np.sort(table.rows), [142, 143, 143, 143, 143, 143, 143])
    cuts = np.cumsum(table.rows)[:-1]
    expected = [group.sum() for group in np.split(p, cuts)]
    np.testing.assert_allclose(table.expected, expected, atol=5e-3)
    assert np.abs(table.observed - [group.sum() for group in np.split(y[order], cuts)]).max() <= 2  # ties
    assert table.observed.sum() == y.sum()
    found = table.hosmer_lemeshow()
    risk = table.expected / table.rows
    statistic = ((table.observed - table.expected) ** 2 / (table.expected * (1 - risk))).sum()
    assert found.statistic == pytest.approx(statistic)
    assert (found.dof, table.hosmer_lemeshow(dof=7).dof) == (5, 7)
    assert found.p_value == pytest.approx(stats.chi2.sf(statistic, 5), abs=1e-12)


@pytest.mark.parametrize("dof", [1, 2, 3, 8, 17, 98])
def test_chi_square_tail(dof):
    for statistic in (0.0, 1e-3, 0.5, 3.0, 20.0, 150.0):
        assert chi_square_tail(statistic, dof) == pytest.approx(stats.chi2.sf(statistic, dof), rel=1e-9)


def test_all_rows_tied(put, data, lake):
    x, y = np.ones(130), np.arange(130) % 3 == 0
    source = type(data("fair"))(np.column_stack([x, np.arange(130)]), y, ("x", "n"))
    table = put(source)
    model = LogisticRegression().fit(table, target="y", features=["x"])
    found = model.reveal()
    rounding = 2.0**-15 if lake.cluster.protocol == "shamir" else 0.0  # which is by chance there
    assert abs(found.coef_[0][0]) <= rounding
    assert abs(found.intercept_[0] - np.log(y.mean() / (1 - y.mean()))) < 1e-4
    assert abs(model.evaluate(table).reveal("roc_auc").roc_auc - 0.5) < 5e-5
