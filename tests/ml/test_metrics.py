"""Metrics at their edges: one row, one outcome, nothing predicted, all the same; chosen ones only."""

import functools
import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn import metrics

from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression
from tercet.ml.disclosure import UNDEFINED
from tercet.ml.metrics import METRICS, Calibration, sums
from tercet.ml.metrics import evaluation as evaluation_of
from tercet.ml.metrics.evaluation import rule_on

pytestmark = [pytest.mark.cases, pytest.mark.early]
RNG = np.random.default_rng(31)
X = RNG.normal(size=(200, 2))
Y = (RNG.random(200) < 1 / (1 + np.exp(-X @ [2.0, -1.0]))).astype(int)


@pytest.fixture(scope="module")
def model(put):
    return LogisticRegression().fit(put(X, Y), target="y")


def far(sign, rows):
    """Rows far on one side, where labels are certain."""
    return np.tile([3.0 * sign, -3.0 * sign], (rows, 1)) + 0.1 * RNG.normal(size=(rows, 2))


def test_losses_of_many_rows_have_fewer_bits(model, put, monkeypatch):
    """As 2^31 rows would have them: 30 fractional bits."""
    table = put(X, Y)
    few = model.evaluate(table, metrics=["log_loss", "brier"]).reveal()
    monkeypatch.setattr(sums, "SUM_BITS", 30 + (len(X) - 1).bit_length())
    many = model.evaluate(table, metrics=["log_loss", "brier"]).reveal()
    assert many.log_loss == pytest.approx(few.log_loss, abs=1e-5)
    assert many.brier == pytest.approx(few.brier, abs=1e-5)


@pytest.mark.parametrize("outcome", [0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
def test_one_row(model, put, outcome, sign):
    scores = model.evaluate(put(far(sign, 1), [outcome], types={"y": "boolean"})).reveal()
    right, label = (sign > 0) == outcome, int(sign > 0)
    matrix = np.zeros((2, 2), int)
    matrix[outcome, label] = 1
    np.testing.assert_array_equal(scores.confusion_matrix, matrix)
    both = float(label and outcome)
    nan = np.nan
    expected = {
        "accuracy": right,
        "precision": both if label else nan,
        "recall": both if outcome else nan,
        "specificity": nan if outcome else float(right),
        "f1": both if label or outcome else nan,
        **dict.fromkeys(("balanced_accuracy", "mcc", "roc_auc", "roc_auc_se"), nan),
        "average_precision": 1.0 if outcome else nan,
    }
    for name, value in expected.items():
        assert getattr(scores, name) == pytest.approx(float(value), abs=1e-4, nan_ok=True), name
    assert scores.rows == 1
    if right:
        assert 0 < scores.log_loss < 0.1
        assert 0 < scores.brier < 0.01
    else:
        assert scores.log_loss > 2
        assert 0.8 < scores.brier <= 1


@pytest.mark.parametrize("rows", [3, 64, 100])
def test_nothing_is_predicted(model, put, rows):
    """Of no rows there is no precision, as scikit-learn's zero_division=nan."""
    outcomes = np.arange(rows) % 3 == 0
    scores = model.evaluate(put(far(-1, rows), outcomes)).reveal()
    positives = int(outcomes.sum())
    np.testing.assert_array_equal(scores.confusion_matrix, [[rows - positives, 0], [positives, 0]])
    assert np.isnan((scores.precision, scores.mcc)).all()
    assert (scores.recall, scores.f1) == pytest.approx((0, 0), abs=1e-6)
    assert scores.accuracy == pytest.approx(1 - positives / rows, abs=1e-4)


DEFINED = {
    "accuracy": metrics.accuracy_score,
    "precision": functools.partial(metrics.precision_score, zero_division=np.nan),
    "recall": functools.partial(metrics.recall_score, zero_division=np.nan),
    "specificity": functools.partial(metrics.recall_score, pos_label=0, zero_division=np.nan),
    "f1": functools.partial(metrics.f1_score, zero_division=np.nan),
}
"""Of labels, by scikit-learn."""
WANTING = {"balanced_accuracy", "mcc", "roc_auc", "roc_auc_se"}
"""What takes rows of both outcomes, whatever the labels."""


@pytest.mark.parametrize(
    ("outcome", "side", "filtered"),
    [(False, 0, False), (True, 0, False), (True, -1, True), (False, 1, True)],
)
def test_one_outcome(model, put, lake, outcome, side, filtered):
    """What is not defined is missing, and says why; all else is right. A filter makes no difference."""
    rows = X[:70] if side == 0 else far(side, 70)
    table = put(np.column_stack([rows, np.arange(70)]), np.arange(70) < 40 if filtered else [outcome] * 70)
    if filtered:
        table = table.filter((table["y"] == 1) if outcome else (table["y"] == 0))
    lake.disclosed.clear()
    evaluation = model.evaluate(table)
    scores = evaluation.reveal()
    assert {item.what for item in lake.disclosed[1:]} == set(METRICS)  # no bit beside them
    labels = model.predict(table).reveal()
    kept = (np.arange(70) < 40) == outcome if filtered else np.full(70, True)
    labels, truth = labels[kept], np.full(kept.sum(), outcome)
    for name, wanted in DEFINED.items():
        expected = wanted(truth, labels)
        assert getattr(scores, name) == pytest.approx(expected, abs=1e-4, nan_ok=True), name
    missing = {name for name in METRICS[:-1] if np.isnan(getattr(scores, name))}
    assert missing >= WANTING
    assert ("average_precision" in missing) == (not outcome)
    assert {"log_loss", "brier"}.isdisjoint(missing)
    assert set(scores.reasons) == missing
    assert "roc_auc           nan: takes rows of both outcomes" in str(scores)
    assert np.isnan(scores.roc_auc_interval()).all()
    curve = evaluation.roc_curve(points=5)
    known, unknown = (curve.tpr, curve.fpr) if outcome else (curve.fpr, curve.tpr)
    assert np.isnan(unknown).all()
    assert (np.diff(known) >= -1e-6).all()
    assert (known[0], known[-1]) == (0, 1)


def test_no_row_counts(model, put, lake):
    """Nothing is defined but the counts, which are zero."""
    table = put(X, Y)
    evaluation = model.evaluate(table.filter(table["x0"] > 50))
    scores = evaluation.reveal()
    assert {name for name in METRICS if name not in scores.reasons} == {"confusion_matrix"}
    assert np.isnan([getattr(scores, name) for name in METRICS[:-1]]).all()
    assert scores.confusion_matrix.tolist() == [[0, 0], [0, 0]]
    curve = evaluation.roc_curve(points=5)
    assert np.isnan([curve.fpr, curve.tpr]).all()
    with pytest.raises(SchemaError, match="a filter leaves no row; filter by a wider condition"):
        evaluation.calibration(bins=3)


def test_what_is_not_defined_tells_nothing_else(model, put, lake, monkeypatch):
    """What reaches the receiver is one number for all that is not defined: no trace of its terms."""
    seen, decoded = {}, evaluation_of.decode
    monkeypatch.setattr(
        evaluation_of, "decode", lambda name, told: seen.update({name: told}) or decoded(name, told)
    )
    model.evaluate(put(X[:70], [True] * 70)).reveal()
    for name in (*WANTING, "specificity"):
        assert seen[name] == pytest.approx(UNDEFINED, abs=1e-7), name


def test_right_and_wrong_without_exception(model, put):
    rows = np.concatenate([far(1, 50), far(-1, 50)])
    outcomes = np.arange(100) < 50
    right, wrong = (model.evaluate(put(rows, y)).reveal() for y in (outcomes, ~outcomes))
    for name in ("accuracy", "precision", "recall", "f1", "roc_auc"):
        assert getattr(right, name) == pytest.approx(1, abs=2e-5)
        assert getattr(wrong, name) == pytest.approx(0, abs=2e-5)
        assert getattr(right, name) <= 1
        assert getattr(wrong, name) >= 0


def test_one_row_of_an_outcome(model, put):
    """A variance needs two rows of each outcome, an area does not."""
    x = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    scores = model.evaluate(put(x, [0, 1, 0, 0])).reveal(["roc_auc", "roc_auc_se", "average_precision"])
    assert scores.roc_auc == pytest.approx(2 / 3, abs=1e-6)
    assert scores.average_precision == pytest.approx(1 / 2, abs=1e-6)
    assert np.isnan(scores.roc_auc_se)
    assert np.isnan(scores.roc_auc_interval()).all()
    scores = model.evaluate(put(x, [1, 1, 0, 0])).reveal("roc_auc_se")
    # Its square is the sum of two numbers, each known to within 4 units of 2^-30: at most 2^-27 off.
    assert 0 <= scores.roc_auc_se <= 1e-4
    scores = model.evaluate(put(x, [1, 0, 1, 0])).reveal("roc_auc_se")
    assert scores.roc_auc_se == pytest.approx(np.sqrt(2 * np.var([0.5, 1], ddof=1) / 2), abs=1e-5)


def test_decision_values_beyond_all_series(lake, put):
    """Beyond 56, losses still grow by the decision value."""
    model = LogisticRegression(C=100.0).fit(put(X, Y), target="y")
    found = model.reveal()
    rows = np.array([[100.0, 0.0], [-100.0, 0.0], [3.0, 3.0], [400.0, -400.0]])
    outcomes = np.array([0, 1, 1, 1])
    z = rows @ found.coef_[0] + found.intercept_[0]
    assert np.abs(z).max() > 200
    table = put(rows, outcomes)
    scores = model.evaluate(table).reveal()
    losses = np.logaddexp(0, z) - outcomes * z
    # A wrong decision value is cut off at 56.
    assert scores.log_loss == pytest.approx(np.minimum(losses, 56).mean(), rel=1e-4)
    np.testing.assert_allclose(model.predict_proba(table).reveal(), 1 / (1 + np.exp(-z)), atol=1e-4)
    np.testing.assert_array_equal(model.predict(table).reveal(), z > 0)


def test_only_what_is_asked_for_is_computed(model, put, lake):
    table = put(X, Y)
    lake.disclosed.clear()
    few = model.evaluate(table, metrics=["accuracy", "mcc"])
    assert lake.disclosed == []  # no sort
    cost = lake.phases[-1]
    assert set(few.reveal().as_dict()) == {"accuracy", "mcc"}
    assert [(item.what, item.to) for item in lake.disclosed] == [("accuracy", "analyst"), ("mcc", "analyst")]
    full = model.evaluate(table)
    assert full.metrics == METRICS
    if lake.protocol != "plain":
        assert sum(cost.bytes_sent) < 0.1 * sum(lake.phases[-1].bytes_sent)
    with pytest.raises(PlanError, match=r"left out 'roc_auc'; evaluate again, with metrics=\['roc_auc'\]"):
        few.reveal("roc_auc")
    with pytest.raises(PlanError, match="did not sort its rows, and the ROC curve needs their order"):
        few.roc_curve()
    with pytest.raises(PlanError, match="the calibration needs their order"):
        few.calibration()
    with pytest.raises(PlanError, match="there is no metric 'auc'; known are accuracy"):
        model.evaluate(table, metrics="auc")


def test_rows_that_a_filter_leaves_out_do_not_count(model, put, lake):
    """Metrics of a filtered table are those of the rows that it keeps, whose number stays secret."""
    table, kept = put(np.round(X, 1), Y), np.round(X[:, 0], 1) > -0.5
    secret = table.filter(table["x0"] > -0.5)
    lake.disclosed.clear()
    evaluation = model.evaluate(secret)
    assert [item.what for item in lake.disclosed] == ["comparisons of shuffled rows, a random order"]
    found, expected = evaluation.reveal(), model.evaluate(put(np.round(X, 1)[kept], Y[kept])).reveal()
    np.testing.assert_array_equal(found.confusion_matrix, expected.confusion_matrix)
    assert found.confusion_matrix.sum() == kept.sum() < 200
    for name in METRICS[:-1]:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=2e-5), name


def test_metrics_keep_the_minimum_count_of_owners(model, put, lake):
    """What rests on fewer rows stays secret, and shows as missing."""
    rows, outcomes = np.concatenate([far(1, 30), far(-1, 40)]), np.arange(70) < 9
    evaluation = model.evaluate(put(rows, outcomes, min_count=10))
    lake.disclosed.clear()
    found = evaluation.reveal()
    assert found.precision == pytest.approx(0.3, abs=1e-6)  # 9 of 30 rows labelled 1
    assert found.accuracy == pytest.approx(49 / 70, abs=1e-6)
    assert found.specificity == pytest.approx(40 / 61, abs=1e-6)
    for name in ("recall", "f1", "mcc", "roc_auc", "average_precision", "confusion_matrix"):
        assert np.isnan(getattr(found, name)), name
    told = {item.what for item in lake.disclosed}
    assert told == {
        *METRICS,
        *(rule_on(name) for name in METRICS if name not in ("accuracy", "log_loss", "brier")),
    }
    assert "confusion_matrix  nan: rests on fewer than 10 rows, which owners do not allow" in str(found)
    with pytest.raises(
        SchemaError, match="at least 10 rows, and no point of it has so many of both outcomes"
    ):
        evaluation.roc_curve()
    with pytest.raises(SchemaError, match="at least 10 rows, and fewer have one of both outcomes"):
        evaluation.calibration()
    with pytest.raises(SchemaError, match="has 70 rows, and metrics have to rest on at least 71"):
        model.evaluate(put(rows, outcomes, min_count=71))


def test_interval_of_the_area(model, put):
    scores = model.evaluate(put(X, Y), metrics=["roc_auc", "roc_auc_se"]).reveal()
    low, high = scores.roc_auc_interval()
    assert (high + low) / 2 == pytest.approx(scores.roc_auc)
    assert (high - low) / 2 == pytest.approx(1.959964 * scores.roc_auc_se)
    wide = scores.roc_auc_interval(level=0.999999999999)
    assert wide[0] < low
    assert wide[1] <= 1
    with pytest.raises(PlanError, match="level=95 is not a number between 0 and 1"):
        scores.roc_auc_interval(95)


def test_curves_disclose_what_they_say(model, put, lake):
    evaluation = model.evaluate(put(X, Y), metrics="roc_auc")
    lake.disclosed.clear()
    curve = evaluation.roc_curve(points=11, to="hospital")
    table = evaluation.calibration(bins=4)
    assert [(item.what, item.to, item.size) for item in lake.disclosed] == [
        ("true positive rates", "hospital", "9"),
        ("false positive rates", "hospital", "9"),
        ("outcomes up to borders of groups of risk", "analyst", "4"),
        ("sums of probabilities up to borders of groups of risk", "analyst", "4"),
    ]
    assert curve.tpr.shape == (11,)
    assert table.observed.sum() == Y.sum()
    lines = str(table).splitlines()
    assert len(lines) == 6
    assert lines[2].split()[:2] == ["50", f"{table.observed[0]:.0f}"]
    with pytest.raises(PlanError, match="points=2 is not a whole number between 3"):
        evaluation.roc_curve(points=2)
    with pytest.raises(PlanError, match="bins=201 is not between 1 and the 200 rows"):
        evaluation.calibration(bins=201)
    with pytest.raises(PlanError, match="2 groups leave 0 degrees of freedom"):
        evaluation.calibration(bins=2).hosmer_lemeshow()


def ordered(model, table):
    """Outcomes and probabilities by falling risk, in the clear."""
    found = model.predict_proba(table).reveal()
    by = np.argsort(-found, kind="stable")
    return table.reveal("y")["y"][by].astype(int), found[by]


def test_curves_of_a_filtered_table(model, put, lake):
    """They are those of the rows that it keeps; the ROC curve does not tell how many those are."""
    table, kept = put(X, Y), X[:, 0] > -0.5
    outcomes, risks = ordered(model, put(X[kept], Y[kept]))
    rows, positives = len(outcomes), outcomes.sum()
    evaluation = model.evaluate(table.filter(table["x0"] > -0.5), metrics="roc_auc")
    lake.disclosed.clear()
    curve = evaluation.roc_curve(points=12)
    assert [item.what for item in lake.disclosed] == ["true positive rates", "false positive rates"]
    before = np.floor(np.linspace(0, 1, 12)[1:-1] * rows + 1e-9).astype(int)
    hits = np.append(0, np.cumsum(outcomes))[before]
    np.testing.assert_allclose(curve.tpr[1:-1], hits / positives, atol=1e-6)
    np.testing.assert_allclose(curve.fpr[1:-1], (before - hits) / (rows - positives), atol=1e-6)
    lake.disclosed.clear()
    found = evaluation.calibration(bins=7)
    assert [item.what for item in lake.disclosed] == [
        "outcomes up to borders of groups of risk",
        "sums of probabilities up to borders of groups of risk",
        "rows up to borders of groups of risk",
    ]
    assert found.rows.sum() == rows
    assert found.rows.max() - found.rows.min() <= 1
    borders = np.append(0, np.cumsum(found.rows[::-1]))
    for wanted, values in ((found.observed, outcomes), (found.expected, risks)):
        sums = [values[start:stop].sum() for start, stop in itertools.pairwise(borders)]
        np.testing.assert_allclose(wanted[::-1], sums, atol=2e-3)


@pytest.mark.parametrize(("least", "filtered"), [(3, False), (12, False), (12, True), (30, True)])
def test_points_of_curves_that_owners_allow(model, put, lake, least, filtered):
    """Between two points, as many rows of both outcomes; of the points that are asked for, the first such."""
    table = put(X, Y, min_count=least)
    kept = X[:, 0] > -0.5 if filtered else np.full(len(Y), fill_value=True)
    outcomes, _ = ordered(model, put(X[kept], Y[kept]))
    evaluation = model.evaluate(table.filter(table["x0"] > -0.5) if filtered else table, metrics="roc_auc")
    lake.disclosed.clear()
    groups = evaluation.calibration(bins=20)
    if least == 30:  # no point is far enough from both ends, and they alone are no curve
        with pytest.raises(SchemaError, match="no point of it has so many"):
            evaluation.roc_curve(points=21)
    else:
        curve = evaluation.roc_curve(points=21)
    told = {item.what for item in lake.disclosed}
    assert {"which points of the ROC curve the rule allows"} < told
    assert "which borders of groups of risk the rule allows" in told
    places = np.linspace(0, 1, 21)[1:-1] * len(outcomes)
    places = np.floor(places + 1e-9) if filtered else np.rint(places)
    counts = np.array(
        [[outcomes[: int(place)].sum(), (1 - outcomes[: int(place)]).sum()] for place in places]
    )
    totals = np.array([outcomes.sum(), (1 - outcomes).sum()])
    wanted, last = [], np.zeros(2)
    for count in counts:
        if (count - last >= least).all() and (totals - count >= least).all():
            wanted.append(count)
            last = count
    assert bool(wanted) == (least < 30)
    if wanted:
        wanted = np.array([[0, 0], *wanted, totals]) / totals
        np.testing.assert_allclose(np.column_stack([curve.tpr, curve.fpr]), wanted, atol=1e-6)
    assert (groups.observed >= least).all()
    assert (groups.rows - groups.observed >= least).all()
    assert groups.rows.sum() == len(outcomes)
    assert groups.observed.sum() == outcomes.sum()


def test_curves_of_a_few_rows(model, put):
    """More points than rows: every place is one, once."""
    evaluation = model.evaluate(put(far(1, 3), [1, 0, 1]), metrics="roc_auc")
    curve = evaluation.roc_curve(points=50)
    assert len(curve.tpr) == 4
    assert set(np.round(curve.tpr, 6)) <= {0, 0.5, 1}


def test_a_curve_of_one_row(model, put):
    with pytest.raises(SchemaError, match="takes rows of both outcomes, and there is one row in all"):
        model.evaluate(put(X[:1], [1], types={"y": "boolean"}), metrics="roc_auc").roc_curve()


def test_groups_whose_outcomes_cannot_be():
    """Probabilities of exactly 0 rule an outcome out; nothing else of such a group counts."""
    rows, expected = np.array([5, 5, 5]), np.array([0.0, 2.5, 2.5])
    wrong = Calibration("x", rows, np.array([1.0, 2.0, 3.0]), expected).hosmer_lemeshow()
    assert (wrong.statistic, wrong.p_value) == (np.inf, 0)
    right = Calibration("x", rows, np.array([0.0, 2.0, 3.0]), expected).hosmer_lemeshow()
    assert right.statistic == pytest.approx(0.4)


def test_plots(model, put):
    evaluation = model.evaluate(put(X, Y), metrics="roc_auc")
    curve, table = evaluation.roc_curve(points=5), evaluation.calibration(bins=3)
    axes = Figure().subplots()
    assert curve.plot(axes) is axes
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), curve.fpr)
    axes = table.plot(Figure().subplots())
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), table.observed / table.rows)
    assert axes.get_xlabel() == "predicted risk"


def test_chosen_metrics(model, put, lake):
    evaluation = model.evaluate(put(X, Y))
    lake.disclosed.clear()
    scores = evaluation.reveal(["brier", "accuracy"])
    assert [item.what for item in lake.disclosed] == ["brier", "accuracy"]
    assert set(scores.as_dict()) == {"brier", "accuracy"}
    assert evaluation.reveal("brier").brier == pytest.approx(scores.brier, abs=1e-6)
    full = evaluation.reveal()
    assert tuple(full.as_dict()) == METRICS
    lines = str(full).splitlines()
    assert lines[0].endswith("200 rows")
    assert lines[-1].startswith("confusion_matrix")
    (tn, fp), (fn, tp) = full.confusion_matrix
    assert lines[-1].split()[1] == str(tn)
    assert tn + fp + fn + tp == 200
    assert f"accuracy          {full.accuracy:.4f}" in lines


def test_a_curve_without_a_point_that_may_be_told_is_refused(plain):
    rows = np.arange(60)
    columns = {"id": rows, "x": rows % 7 / 7, "y": rows % 2, "few": rows < 4}
    table = plain.upload(columns, name="curve", key="id", owner="o", min_count=10)
    model = LogisticRegression().fit(table, "y", features=["x"])
    with pytest.raises(SchemaError, match="no point of it has so many"):
        model.evaluate(table.filter(table["few"])).roc_curve()
    with pytest.raises(SchemaError, match="no point of it has so many"):
        model.evaluate(table.filter(table["y"] == 1)).roc_curve()
