"""Fits as users of scikit-learn expect them: options, learned names, and steps only until nothing moves."""

import copy

import attrs
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression as Clear

import tercet
from tercet.errors import ConvergenceWarning, PlanError, SchemaError
from tercet.ml import GridSearch, LogisticRegression, RevealedModel, StandardScaler
from tercet.ml.fitting import APART, MOVING, ONE_CLASS, OUT_OF_RANGE

pytestmark = [pytest.mark.cases, pytest.mark.early]
RNG = np.random.default_rng(77)
X = RNG.normal(size=(400, 4))
Y = (RNG.random(400) < 1 / (1 + np.exp(-X @ [1.0, -0.5, 0.2, 0.0] - 0.3))).astype(int)
HARD = np.column_stack([X, X[:, 0] + 0.5 * RNG.normal(size=400)]) * 4
HARD_Y = (RNG.random(400) < 1 / (1 + np.exp(-HARD @ [1.5, -0.5, 0.2, 0.0, 1.5] - 0.3))).astype(int)


def told(lake):
    return [item.what for item in lake.disclosed]


# -- learned names -------------------------------------------------------------------------------------------


def test_what_is_public_of_a_fit(plain, put_plain):
    model = LogisticRegression().fit(put_plain(X, Y), target="y")
    model.save("kept")
    for one in (model, plain.model("kept"), model.reveal()):
        assert one.classes_.tolist() == [0, 1]
        assert one.feature_names_in_.tolist() == ["x0", "x1", "x2", "x3"]
        assert one.feature_names_in_.dtype == object
        assert one.n_features_in_ == 4
        assert one.n_iter_.tolist() == [6]
        assert one.target_ == "y"
    for one in (model, plain.model("kept")):
        for name in ("coef_", "intercept_"):
            assert not hasattr(one, name)
            with pytest.raises(AttributeError, match=rf"{name} .* secret .*reveal\(\)\.{name}"):
                getattr(one, name)


@pytest.mark.parametrize(
    "name", ["coef_", "intercept_", "classes_", "feature_names_in_", "n_iter_", "target_", "converged_"]
)
def test_before_a_fit(name):
    assert not hasattr(LogisticRegression(), name)
    with pytest.raises(PlanError, match="not fitted yet"):
        getattr(LogisticRegression(), name)


def test_shapes_are_scikit_learns(plain, put_plain):
    found = LogisticRegression(C=2.0).fit(put_plain(X, Y), target="y").reveal()
    clear = Clear(C=2.0, tol=1e-10).fit(X, Y)
    for name in ("coef_", "intercept_", "classes_", "n_iter_"):
        assert getattr(found, name).shape == getattr(clear, name).shape
    np.testing.assert_allclose(found.coef_, clear.coef_, atol=1e-3)
    np.testing.assert_allclose(found.intercept_, clear.intercept_, atol=1e-3)
    assert found.get_params() == {"penalty": "l2", "C": 2.0, "class_weight": None, "fit_intercept": True}
    with pytest.raises(PlanError, match="set them on a LogisticRegression"):
        found.set_params(C=1.0)


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame, dict])
def test_a_revealed_model_predicts_in_the_clear(plain, put_plain, kind):
    found = LogisticRegression().fit(put_plain(X, Y), target="y").reveal()
    frame = pd.DataFrame({f"x{place}": X[:, place] for place in range(4)})
    rows = X if kind is np.asarray else kind(frame[frame.columns[::-1]])
    clear = found.to_sklearn()
    np.testing.assert_allclose(found.decision_function(rows), clear.decision_function(frame))
    np.testing.assert_allclose(found.predict_proba(rows), clear.predict_proba(frame))
    np.testing.assert_array_equal(found.predict(rows), clear.predict(frame))
    assert found.score(rows, Y) == clear.score(frame, Y)
    for wrong in (X[:, :2], X[0], frame[["x0"]], [["a"] * 4], None):
        with pytest.raises(SchemaError, match="x0, x1, x2, x3"):
            found.predict(wrong)


REVEALED = RevealedModel("y", ("a", "b"), np.array([[1.0, -1.0]]), np.array([0.5]), options={"C": 2.0})
ROWS = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]])
GOOD = np.array([0, 1, 0])


@pytest.mark.parametrize(
    ("y", "told"),
    [
        ([1], "y is 1 values"),
        (1, "y is a single number"),
        (GOOD[:, None], "y is 3 x 1 values"),
        ([], "y is 0 values"),
        (["well", "ill", "well"], "one outcome .* 0 or 1"),
        (np.array(["0", "1", "0"], dtype=object), "there is text in row 0"),
        (GOOD + 1, "y has 2 in row 1"),
        ([0, np.nan, 0], "y has nan in row 1"),
        ([0, None, 0], "there is None in row 1"),
        (pd.Series([0, pd.NA, 1], dtype="Int64"), "in row 1"),
        ([0, 1j, 0], "not complex"),
        (np.ma.array(GOOD, mask=[0, 1, 0]), "masked"),
        ([[0], [1, 0]], "one outcome"),
        ([0, 10**400, 0], "y has to be one outcome .* of ordinary size"),
        ({0, 1}, "there is a set"),
        (None, "there is None"),
    ],
)
def test_outcomes_in_the_clear(y, told):
    with pytest.raises(SchemaError, match=told):
        REVEALED.score(ROWS, y)


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        ([1.0], "is 1 values"),
        (1.0, "is a single number"),
        (np.ones((3, 1)), "is 3 x 1 values"),
        ([0, 0, 0], "zero for every row"),
        ([1, -1, 1], "-1 in row 1"),
        ([1, 1, np.nan], "nan in row 2"),
        ([1, np.inf, 1], "inf in row 1"),
        (["a", "b", "c"], "one weight for each"),
    ],
)
def test_weights_in_the_clear(weight, told):
    with pytest.raises(SchemaError, match=f"sample_weight .*{told}"):
        REVEALED.score(ROWS, GOOD, sample_weight=weight)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (np.full((3, 2), np.nan), "nan in row 0 for 'a'"),
        ([[1.0, np.inf]], "inf in row 0 for 'b'"),
        (pd.DataFrame({"a": [1.0, 2.0], "b": [None, 1.0]}), "nan in row 0 for 'b'"),
        (pd.DataFrame({"a": [1, 2], "b": pd.array([pd.NA, 1], dtype="Int64")}), "'b'"),
        ({"a": [1.0, 2.0], "b": ["1", "2"]}, "column 'b' of X has to be numbers"),
        ({"a": [1.0, 2.0], "b": [1.0]}, "'a' has 2, 'b' has 1"),
        ({"a": 1.0, "b": 2.0}, "one dimension"),
        ({"a": [1.0]}, "no column 'b'"),
        (pl.DataFrame({"a": [1.0]}), "no column 'b'"),
        (pd.DataFrame({"a": [], "b": []}, dtype=float), "no rows"),
        (np.zeros((0, 2)), "no rows"),
        ([], "a, b"),
        ([[1.0], [1.0, 2.0]], "a, b"),
        ([[10**400, 1]], "a, b of ordinary size"),
        ([[1.5e308, -1.5e308]], "row 0 .* too large"),
    ],
)
@pytest.mark.parametrize("use", ["decision_function", "predict_proba", "predict"])
def test_rows_in_the_clear(use, rows, told):
    with pytest.raises(SchemaError, match=told):
        getattr(REVEALED, use)(rows)


def test_what_can_be_scored_in_the_clear():
    assert REVEALED.predict(ROWS).tolist() == [0, 1, 0]
    for y in (
        GOOD,
        [False, True, False],
        pd.Series(GOOD, dtype="Int64"),
        pl.Series(GOOD),
        GOOD.astype(object),
    ):
        assert REVEALED.score(ROWS.tolist(), y) == 1.0
    assert REVEALED.score(ROWS, [1, 1, 0], sample_weight=[1, 0, 3]) == 0.75
    assert REVEALED.score(ROWS, [1, 1, 0], sample_weight=[1e308, 0, 1e308]) == 0.5
    assert REVEALED.score(pl.DataFrame({"b": ROWS[:, 1], "a": ROWS[:, 0]}), GOOD) == 1.0


def test_a_revealed_model_can_be_cloned(plain, put_plain):
    model = LogisticRegression(C=0.5, class_weight="balanced").fit(put_plain(X, Y), target="y")
    found = model.reveal()
    copied = clone(found)
    assert isinstance(copied, LogisticRegression)
    assert not hasattr(copied, "n_iter_")
    assert {name: copied.get_params()[name] for name in found.get_params()} == found.get_params()
    assert model.converged_ is found.converged_ is RevealedModel.from_json(found.to_json()).converged_ is True
    assert LogisticRegression(check=False).fit(put_plain(X, Y), target="y").reveal().converged_ is None
    for part, wrong in (('"C"', '"c"'), ('"converged": true', '"converged": "yes"')):
        assert part in found.to_json()
        with pytest.raises(SchemaError, match=r"no model .*how it was fitted is not known"):
            RevealedModel.from_json(found.to_json().replace(part, wrong))
    with pytest.raises(PlanError, match="did not keep its options"):
        clone(attrs.evolve(found, options={}))


def test_a_revealed_model_with_an_offset(plain, put_plain):
    table = put_plain(X, Y)
    found = LogisticRegression().fit(table, target="y", features=["x0", "x1"], offset="x3").reveal()
    z = X[:, :2] @ found.coef_[0] + found.intercept_[0] + X[:, 3]
    np.testing.assert_allclose(found.decision_function(X[:, [0, 1, 3]]), z)
    again = RevealedModel.from_json(found.to_json())
    np.testing.assert_array_equal(again.decision_function({f"x{i}": X[:, i] for i in range(4)}), z)
    assert (again.n_iter_, again.get_params()) == (found.n_iter_, found.get_params())


def test_models_written_by_earlier_versions(plain, put_plain):
    found = LogisticRegression().fit(put_plain(X, Y), target="y").reveal()
    text = found.to_json()
    older = text[: text.index(',\n  "options"')] + "}"
    again = RevealedModel.from_json(older)
    np.testing.assert_array_equal(again.coef_, found.coef_)
    assert again.n_iter_ == [0]


def test_the_score_is_the_accuracy(lake, put):
    table = put(X, Y)
    model = LogisticRegression().fit(table, target="y")
    lake.disclosed.clear()
    score = model.score(table)
    assert told(lake) == ["accuracy"]
    assert score == pytest.approx(model.reveal().score(X, Y), abs=1e-5)


async def test_a_score_in_trio():
    async with tercet.open_local(protocol="plain") as lake:
        table = await lake.upload({"k": range(400), "x": X[:, 0], "y": Y}, name="t", key="k", owner="o")
        model = await LogisticRegression().fit(table, target="y")
        assert 0.5 < await model.score(table) < 1


# -- options -------------------------------------------------------------------------------------------------


def test_options_by_name():
    model = LogisticRegression(C=0.5, max_iter=np.int64(30))
    assert repr(model) == "LogisticRegression(C=0.5, max_iter=30)" or "np.int64(30)" in repr(model)
    assert repr(LogisticRegression()) == "LogisticRegression()"
    assert repr(LogisticRegression(penalty=None, check=False)) == (
        "LogisticRegression(penalty=None, check=False)"
    )
    assert model.get_params()["C"] == 0.5
    assert model.set_params(C=2.0, solver="gd") is model
    assert (model.C, model.solver) == (2.0, "gd")
    with pytest.raises(PlanError, match="no option 'D'; it has penalty, C"):
        model.set_params(D=1)
    with pytest.raises(PlanError, match="C='1' is text"):
        model.set_params(max_iter=7, C="1")
    assert model.max_iter == 30  # nothing of it was set
    with pytest.raises(PlanError, match="C=-1"):
        model.C = -1
    assert model.C == 2.0


def test_clones(plain, put_plain):
    model = LogisticRegression(C=0.5).fit(put_plain(X, Y), target="y")
    for other in (
        clone(model),
        LogisticRegression(**model.get_params()),
        copy.copy(LogisticRegression(C=0.5)),
    ):
        assert other.get_params() == model.get_params()
        assert not hasattr(other, "n_iter_")
    search = GridSearch(model, C=[0.1, 1.0])
    assert search.get_params()["model__C"] == 0.5
    assert clone(search).set_params(model__C=3.0, cv=2).model.C == 3.0
    assert repr(clone(StandardScaler(columns=["a"]))) == "StandardScaler(columns=['a'])"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"C": "1"}, "C='1' is text, not a positive, finite number"),
        ({"C": True}, "C=True is a boolean"),
        ({"C": np.array([1.0])}, r"C is an array \(ndarray\) of 1 values, not"),
        ({"C": None}, "C=None is not"),
        ({"penalty": "l1"}, "penalty='l1' is not 'l2', or None"),
        ({"penalty": "none"}, "penalty='none' is not 'l2', or None"),
        ({"solver": "lbfgs"}, "solver='lbfgs' is not 'newton' or 'gd'"),
        ({"max_iter": 1e3}, "max_iter=1000.0 is not a whole number"),
        ({"max_iter": True}, "max_iter=True is a boolean"),
        ({"check": 1}, "check=1 is a number, not True or False"),
        ({"fit_intercept": "no"}, "fit_intercept='no' is text"),
        ({"class_weight": {0: 1, 1: 2}}, "class_weight is a dict of 2 items, not 'balanced', or None"),
        ({"tol": float("nan")}, "tol=nan is not"),
        ({"solver": "gd", "class_weight": "balanced"}, "solver='gd' has no class_weight"),
    ],
)
def test_constructors_refuse_what_cannot_be(options, told):
    with pytest.raises(PlanError, match=f"{told}"):
        LogisticRegression(**options)


# -- steps ---------------------------------------------------------------------------------------------------


def test_max_iter_is_an_upper_bound(lake, put):
    table = put(X[:60], Y[:60])
    lake.disclosed.clear()
    lake.phases.clear()
    model = LogisticRegression(max_iter=1000).fit(table, target="y")
    assert model.converged_
    assert model.n_iter_ == [6]
    assert told(lake) == [OUT_OF_RANGE, ONE_CLASS, MOVING]
    assert len(lake.phases) == 1
    assert lake.phases[0].rounds < 180 or lake.cluster.protocol == "rep4"


def hard(put, weighted):
    """A table that fits take several plans for, and how to fit it."""
    table = put(np.column_stack([HARD, 1 + 0.2 * np.abs(HARD[:, 0])]), HARD_Y)
    given = {"target": "y", "features": [f"x{place}" for place in range(5)]}
    return table, given | ({"sample_weight": "x5"} if weighted else {})


@pytest.mark.cases("plain-False-options0", "replicated-True-options1")
@pytest.mark.parametrize("options", [{}, {"class_weight": "balanced"}])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_goes_on_until_it_has_converged(lake, put, options, weighted):
    """In further plans, each of which says only whether it is out of range, and whether it still moves."""
    table, given = hard(put, weighted)
    lake.disclosed.clear()
    lake.phases.clear()
    model = LogisticRegression(penalty=None, max_iter=1000, **options).fit(table, **given)
    assert model.converged_
    assert (model.n_iter_[0], len(lake.phases)) in ((9, 2), (12, 3), (16, 4))
    assert told(lake)[-3:] == [OUT_OF_RANGE, MOVING, APART]
    assert told(lake).count(MOVING) == len(lake.phases)
    assert told(lake).count(ONE_CLASS) == 1


@pytest.mark.cases("plain-False-options0", "plain-True-options1")
@pytest.mark.parametrize("options", [{}, {"class_weight": "balanced"}])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_that_nodes_go_on_with_is_that_of_a_client(put, options, weighted):
    table, given = hard(put, weighted)
    model = LogisticRegression(penalty=None, max_iter=1000, **options).fit(table, **given)
    alone = LogisticRegression(penalty=None, max_iter=1000, **options)
    alone = alone.collect(alone.submit(table, **given), table, **given)
    assert alone.n_iter_ == model.n_iter_
    np.testing.assert_allclose(model.reveal().coef_, alone.reveal().coef_, atol=5e-4)
    np.testing.assert_allclose(model.summary(["se"]).bse, alone.summary(["se"]).bse, rtol=1e-3)


@pytest.mark.parametrize(("max_iter", "looks"), [(6, 1), (7, 2), (8, 2)])
def test_steps_run_out(plain, put_plain, max_iter, looks):
    table = put_plain(HARD, HARD_Y)
    plain.phases.clear()
    with pytest.warns(ConvergenceWarning, match=f"still moving after {max_iter} steps"):
        model = LogisticRegression(penalty=None, max_iter=max_iter).fit(table, target="y")
    assert model.converged_ is False
    assert model.n_iter_ == [max_iter]
    assert len(plain.phases) == looks


def test_columns_without_a_best_fit_end_it(plain, put_plain):
    """Where all outcomes are told apart without error there is an end too, long before max_iter."""
    table = put_plain(np.where(Y, 1.0, -1.0)[:60, None] + 0.1 * X[:60, :1], Y[:60])
    plain.phases.clear()
    with pytest.warns(ConvergenceWarning, match="tell all outcomes apart without error.* fit with a penalty"):
        model = LogisticRegression(penalty=None, max_iter=10_000).fit(table, target="y")
    assert model.converged_ is False
    assert model.n_iter_ <= 12
    assert LogisticRegression(max_iter=10_000).fit(table, target="y").converged_


def test_fits_that_reveal_nothing_make_all_steps(plain, put_plain):
    table = put_plain(X, Y)
    plain.disclosed.clear()
    model = LogisticRegression(check=False, max_iter=8).fit(table, target="y")
    assert (model.n_iter_, model.converged_) == ([8], None)
    assert not plain.disclosed


def test_nothing_is_left_of_plans_that_go_on(plain, put_plain):
    """What a plan stores for the next one goes with the fit."""
    table, stored = put_plain(HARD, HARD_Y), []
    plain.on_result = lambda _, result: stored.append(result.stored)
    try:
        LogisticRegression(penalty=None).fit(table, target="y")
    finally:
        plain.on_result = None
    assert len(stored) == 3
    passed_on = {name: kind for one in stored for name, kind in one.items() if name.startswith("~")}
    assert passed_on
    for handle, kind in passed_on.items():
        assert table.rows not in kind.shape
        builder = plain.builder("read")
        builder.input(handle, kind).sum().reveal("sum", to="analyst")
        with pytest.raises(PlanError, match="nothing is stored under"):
            plain.run(builder.plan())
