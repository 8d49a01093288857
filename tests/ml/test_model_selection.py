"""Splits take every row once, at random, and keep rows whole; validation agrees with the clear."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Clear
from sklearn.metrics import log_loss
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from tercet.errors import PlanError, SchemaError, UndefinedMetricWarning
from tercet.ml import GridSearch, LogisticRegression, cross_validate, model_selection
from tercet.ml.disclosure import UNDEFINED
from tercet.ml.splitting import folds

pytestmark = [pytest.mark.cases, pytest.mark.early]


@pytest.mark.parametrize("rows", [2, 3, 7, 100, 1000])
@pytest.mark.parametrize("test_size", [0.001, 0.25, 0.5, 0.999])
def test_every_row_is_in_one_part(lake, put, rows, test_size):
    numbers = np.arange(rows)
    parts = put(np.column_stack([numbers, numbers * 2]), numbers % 2, types={"y": "boolean"}).split(
        test_size=test_size
    )
    sizes = [len(part) for part in parts]
    expected = min(rows - 1, math.ceil(test_size * rows))
    assert sizes == [rows - expected, expected]
    revealed = [part.reveal() for part in parts]
    together = {name: np.concatenate([part[name] for part in revealed]) for name in ("x0", "x1", "y")}
    np.testing.assert_array_equal(np.sort(together["x0"]), numbers)
    np.testing.assert_array_equal(together["x1"], together["x0"] * 2)
    np.testing.assert_array_equal(together["y"], together["x0"] % 2 == 1)


def test_splits_are_random(lake, put):
    """Each row is in the test half as often as not: 40 splits of 60 rows, false alarms below 1e-5."""
    table = put(np.arange(60)[:, None])
    counts = np.zeros(60)
    for _ in range(40):
        _, test = table.split(test_size=0.5)
        counts[test.reveal("x0")["x0"]] += 1
    assert np.abs(counts - 20).max() < 5.5 * np.sqrt(40 / 4)
    assert counts.std() > 1


def test_a_split_discloses_nothing(lake, put):
    lake.disclosed.clear()
    train, test = put(np.arange(10)[:, None]).split()
    assert lake.disclosed == []
    assert (len(train), len(test)) == (7, 3)
    assert train.name.endswith(".train")
    assert test.name.endswith(".test")


# -- strata --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "ones"), [(2, 1), (7, 0), (10, 10), (100, 7), (1001, 333)])
@pytest.mark.parametrize("test_size", [0.01, 0.3, 0.5])
def test_strata_keep_their_shares(lake, put, rows, ones, test_size):
    numbers, y = np.arange(rows), np.arange(rows) < ones
    table = put(np.column_stack([numbers, numbers * 2]), y, types={"y": "boolean"})
    parts = [part.reveal() for part in table.split(test_size=test_size, stratify="y")]
    together = {name: np.concatenate([part[name] for part in parts]) for name in ("x0", "x1", "y")}
    np.testing.assert_array_equal(np.sort(together["x0"]), numbers)
    np.testing.assert_array_equal(together["x1"], together["x0"] * 2)
    np.testing.assert_array_equal(together["y"], together["x0"] < ones)
    tested = len(parts[1]["y"])
    assert tested == min(rows - 1, math.ceil(test_size * rows))
    assert abs(parts[1]["y"].sum() - ones * tested / rows) < 1.5


@pytest.mark.cases("plain")
def test_stratified_splits_are_random(put):
    """Each row is tested on as often as not, each class in no order: 40 splits, false alarms below 1e-5."""
    table = put(np.arange(60)[:, None], np.arange(60) % 3 == 0)
    counts, places = np.zeros(60), []
    for _ in range(40):
        found = table.split(test_size=0.5, stratify="y")[1].reveal()
        counts[found["x0"]] += 1
        places += np.flatnonzero(found["y"]).tolist()
    assert np.abs(counts - 20).max() < 5.5 * np.sqrt(40 / 4)
    assert abs(np.mean(places) - 14.5) < 5 * np.sqrt(30**2 / 12 / 400)  # not ones first, nor last


def test_what_a_stratified_split_discloses(lake, put):
    table = put(np.arange(10)[:, None], np.arange(10) < 3)
    lake.disclosed.clear()
    table.split(stratify="y")
    found = [(item.what, item.to, item.size) for item in lake.disclosed]
    assert found == [("places of shuffled rows, a random order", "the nodes", "10")]
    with pytest.raises(SchemaError, match="stratify= 'x0' is integer, not 0/1"):
        table.split(stratify="x0")


@pytest.mark.parametrize(("rows", "count"), [(7, 2), (10, 3), (30, 30)])
@pytest.mark.parametrize("stratify", [None, "y"])
def test_every_row_is_in_one_fold(lake, put, rows, count, stratify):
    numbers = np.arange(rows)
    table = put(numbers[:, None], numbers % 3 == 0)
    made = lake.perform(folds(table, count, stratify), "folds")
    tested = [test.reveal() for _, test in made]
    np.testing.assert_array_equal(np.sort(np.concatenate([one["x0"] for one in tested])), numbers)
    for one, (train, test) in zip(tested, made, strict=True):
        assert len(test) in (rows // count, rows // count + 1)
        np.testing.assert_array_equal(
            np.sort(train.reveal("x0")["x0"]), np.setdiff1d(numbers, one["x0"], assume_unique=True)
        )
        if stratify:
            assert abs(one["y"].sum() - (numbers % 3 == 0).sum() / count) < 1.5


# -- validation ----------------------------------------------------------------------------------------------

RNG = np.random.default_rng(3)
FEW_X = RNG.normal(size=(6, 1))
FEW_Y = np.array([0, 1, 0, 1, 1, 0])


def left_out(C):
    """Losses of rows, each by a model of all the others."""
    p = cross_val_predict(Clear(C=C, tol=1e-10), FEW_X, FEW_Y, cv=LeaveOneOut(), method="predict_proba")
    return np.array([log_loss([y], [one], labels=[0, 1]) for y, one in zip(FEW_Y, p, strict=True)])


@pytest.mark.cases("plain")
def test_leaving_one_out_agrees_with_scikit_learn(lake, put):
    """Folds of one row leave no room for chance but in their order."""
    table = put(FEW_X, FEW_Y)
    lake.disclosed.clear()
    found = cross_validate(
        LogisticRegression(max_iter=5), table, "y", cv=6, scoring="log_loss", to="hospital"
    )
    np.testing.assert_allclose(np.sort(found["log_loss"]), np.sort(left_out(1.0)), atol=2e-3)
    assert [(item.what, item.to, item.size) for item in lake.disclosed] == [
        ("places of shuffled rows, a random order", "the nodes", "6"),
        ("whether a decision value or a coefficient left its range", "analyst", "1"),
        ("whether only one outcome occurs", "analyst", "1"),
        ("whether the last step still moved the fit", "analyst", "1"),
        ("log_loss of each fold", "hospital", "6"),
    ]
    lines = str(found).splitlines()
    assert lines[0].endswith("6 folds")
    assert lines[1].split()[1] == f"{found['log_loss'].mean():.4f},"


@pytest.mark.cases("plain")
def test_a_grid_finds_the_penalty_that_scores_best(lake, put):
    table = put(FEW_X, FEW_Y)
    lake.disclosed.clear()
    search = GridSearch(
        LogisticRegression(max_iter=5), C=[0.1, 1.0], scoring="log_loss", cv=6, stratify=False
    )
    search.fit(table, "y")
    expected = [left_out(C).mean() for C in (0.1, 1.0)]
    np.testing.assert_allclose(search.mean_scores_, expected, atol=1e-3)
    assert search.best_params_ == {"C": [0.1, 1.0][int(np.argmin(expected))]}
    shown = [(item.what, item.size) for item in lake.disclosed]
    assert shown[3] == ("sum over folds of log_loss, for each C", "2")
    assert len(shown) == 7  # the check bits of all folds, and those of the last fit
    clear = Clear(**search.best_params_, tol=1e-10).fit(FEW_X, FEW_Y)
    np.testing.assert_allclose(search.best_model_.reveal().coef_[0], clear.coef_[0], atol=1e-3)


def test_scores_stay_in_their_range():
    """Fixed point can leave it by a unit in the last place, in each fold and in their mean."""
    over = 1 + 2.0**-30
    found = model_selection._decoded("roc_auc", np.array([over, 1 - over, 0.5, UNDEFINED]))
    np.testing.assert_array_equal(found, [1.0, 0.0, 0.5, np.nan])
    search = GridSearch(LogisticRegression(), C=[0.1, 1.0])
    asked = SimpleNamespace(scoring=("roc_auc",), warn_of_folds=lambda *_: None)
    search._choose(asked, np.array([3 * over, 2.0]), np.ones((2, 3), bool))
    assert search.mean_scores_.tolist() == [1.0, pytest.approx(2 / 3)]


@pytest.mark.cases("replicated")
def test_folds_share_their_rounds(lake, put):
    """Three fits and evaluations take about the rounds of one."""
    X = RNG.normal(size=(60, 2))
    table = put(X, 3 * X[:, 0] + RNG.normal(size=60) > 0)
    model = LogisticRegression(max_iter=6)
    mark = len(lake.phases)
    model.fit(table, target="y").evaluate(table, metrics="roc_auc").reveal()
    one = sum(phase.rounds for phase in lake.phases[mark:])
    mark = len(lake.phases)
    scores = cross_validate(model, table, "y", cv=3, scoring=["roc_auc", "accuracy"])["roc_auc"]
    assert sum(phase.rounds for phase in lake.phases[mark:]) <= 1.1 * one
    assert scores.shape == (3,)
    assert 0.5 < scores.mean() <= 1


RARE_X = np.concatenate([np.linspace(-2, 1.2, 28), [1.0, 1.5]])[:, None]  # two negatives are beyond 1.0
RARE_Y = np.arange(30) >= 28


@pytest.mark.cases("plain")
def test_folds_without_an_outcome_are_told_and_in_no_mean(lake, put):
    """Of two positives among five folds, two folds have one each: areas of those, and no zeros."""
    table = put(RARE_X, RARE_Y, types={"y": "boolean"})
    model = LogisticRegression(max_iter=5)
    lake.disclosed.clear()
    with pytest.warns(UndefinedMetricWarning) as told:
        found = cross_validate(model, table, "y", cv=5, scoring=["roc_auc", "accuracy", "recall"])
    assert [item.what for item in lake.disclosed if "fold" in item.what] == [
        f"{name} of each fold" for name in ("roc_auc", "accuracy", "recall")
    ]
    missing = np.isnan(found["roc_auc"])
    assert missing.sum() == 3
    np.testing.assert_array_equal(np.isnan(found["recall"]), missing)
    assert not np.isnan(found["accuracy"]).any()
    numbers = ", ".join(map(str, np.flatnonzero(missing) + 1))
    first = str(told[0].message)
    assert f"roc_auc is not defined in fold {numbers} of 5, since it takes rows of both outcomes" in first
    assert first.endswith("the mean leaves such folds out; use fewer folds")
    assert len(told) == 2
    assert found.means["roc_auc"] == pytest.approx(found["roc_auc"][~missing].mean())
    assert found.means["roc_auc"] > 0.5
    lines = str(found).splitlines()
    least = found["roc_auc"][~missing].min()
    assert lines[1].startswith(f"roc_auc           {found.means['roc_auc']:.4f}, from {least:.4f}")
    assert lines[1].endswith(", in 2 of 5 folds")
    assert "folds" not in lines[2]


@pytest.mark.cases("plain")
def test_a_grid_chooses_by_folds_with_both_outcomes(lake, put):
    """Its means are those of the folds that have them; which these are is disclosed, and told."""
    table = put(RARE_X, RARE_Y, types={"y": "boolean"})
    lake.disclosed.clear()
    search = GridSearch(LogisticRegression(max_iter=5), C=[0.01, 1.0], cv=5)
    with pytest.warns(UndefinedMetricWarning, match="roc_auc is not defined in fold"):
        search.fit(table, "y")
    assert (search.mean_scores_ > 0.6).all()  # not two fifths of that
    shown = [(item.what, item.size) for item in lake.disclosed if "for each C" in item.what]
    assert shown == [
        ("sum over folds of roc_auc, for each C", "2"),
        ("folds in which roc_auc is defined, for each C", "2 x 5"),
    ]


def test_a_penalty_under_which_a_score_is_not_defined_is_not_chosen(plain, put_plain):
    """So strong a penalty labels no row 1: there is no precision, neither the worst one nor the best."""
    table = put_plain(RNG.normal(size=(40, 1)) + np.arange(40)[:, None] % 4, np.arange(40) % 4 == 3)
    search = GridSearch(LogisticRegression(max_iter=6), C=[1e-6, 1.0], scoring="precision", cv=2)
    with pytest.warns(UndefinedMetricWarning, match="in fold 1, 2 of 2, since it takes rows labelled 1"):
        search.fit(table, "y")
    assert np.isnan(search.mean_scores_).tolist() == [True, False]
    assert search.best_params_ == {"C": 1.0}
    hopeless = GridSearch(LogisticRegression(max_iter=6), C=[1e-7, 1e-6], scoring="precision", cv=2)
    with pytest.raises(SchemaError, match="precision is not defined in any fold, for any C, since it takes"):
        hopeless.fit(table, "y")
    assert hopeless.best_model_ is None


def test_folds_of_rows_that_a_filter_drops(plain, put_plain):
    """A fold of which no row counts has no score at all."""
    x = np.arange(8.0)[:, None]
    table = put_plain(x, np.arange(8) % 2 == 0)
    kept = table.filter(table["x0"] < 4)
    with pytest.warns(UndefinedMetricWarning, match="accuracy is not defined in fold .*a row that counts"):
        found = cross_validate(LogisticRegression(max_iter=5), kept, "y", cv=8, scoring="accuracy")
    assert np.isnan(found["accuracy"]).sum() == 4
    assert found.means["accuracy"] == pytest.approx(np.nanmean(found["accuracy"]))
    with pytest.warns(UndefinedMetricWarning, match="roc_auc is not defined in fold 1, 2, 3"):
        found = cross_validate(LogisticRegression(max_iter=5), table, "y", cv=8)
    assert np.isnan(found.means["roc_auc"])
    assert str(found).endswith("roc_auc           nan: not defined in any fold")


def test_validation_says_what_is_wrong(plain, put_plain):
    table = put_plain(FEW_X, FEW_Y)
    model = LogisticRegression(max_iter=4)
    with pytest.raises(PlanError, match="there is no score 'confusion_matrix'; known are accuracy"):
        cross_validate(model, table, "y", scoring=["accuracy", "confusion_matrix"])
    with pytest.raises(SchemaError, match="cv=7 is no number of folds between 2 and the 6 rows"):
        cross_validate(model, table, "y", cv=7)
    with pytest.raises(PlanError, match="leave tol None"):
        cross_validate(LogisticRegression(tol=0.1), table, "y", cv=2)
    with pytest.raises(PlanError, match="has to name penalties, each of them once"):
        GridSearch(model, C=[1.0, 1.0]).fit(table, "y")
    with pytest.raises(SchemaError, match="column 'y' is the target and cannot be a feature too"):
        cross_validate(model, table, "y", cv=2, features=["y"])
    one = put_plain(FEW_X, np.arange(6) == 3, types={"y": "boolean"})
    with pytest.raises(
        SchemaError, match="without one of the folds, all rows that count have the same outcome"
    ):
        cross_validate(model, one, "y", cv=3)
    apart = put_plain(np.linspace(-1, 1, 8)[:, None] * 1e3, np.arange(8) > 3)
    with pytest.raises(SchemaError, match=r"in some fold a decision value left \[-2, 2\]"):
        cross_validate(LogisticRegression(C=1e6, z_bound=2.0), apart, "y", cv=2)


def test_folds_keep_the_minimum_count_of_owners(plain, put_plain):
    X = RNG.normal(size=(40, 1))
    table = put_plain(X, np.arange(40) % 5 == 0, min_count=10)
    model = LogisticRegression(max_iter=5)
    with pytest.raises(SchemaError, match="has 8 rows, and scores of folds have to rest on at least 10"):
        cross_validate(model, table, "y", cv=5)
    plain.disclosed.clear()
    with pytest.raises(SchemaError, match="in some fold a score rests on fewer rows of an outcome"):
        cross_validate(model, table, "y", cv=2)
    assert not any("of each fold" in item.what for item in plain.disclosed)
    few = table.assign(some=table["x0"] > np.sort(X[:, 0])[-9])
    for one, weight in ((few, "some"), (few.filter(few["some"]), None)):
        with pytest.raises(SchemaError, match="without one of the folds, fewer than 10 rows count"):
            cross_validate(model, one, "y", cv=2, features="x0", sample_weight=weight, scoring="accuracy")
    assert (cross_validate(model, table, "y", cv=2, scoring="accuracy")["accuracy"] > 0.5).all()


def test_a_grid_of_penalties_for_a_model_without_one_is_refused(plain):
    table = plain.upload({"id": range(20), "x": range(20), "y": [0, 1] * 10}, name="g", key="id", owner="o")
    with pytest.raises(PlanError, match="penalty=None, which no C changes"):
        GridSearch(LogisticRegression(penalty=None), C=[0.1, 1.0]).fit(table, "y")
