"""Secret models: kept under a name, used on new rows, for named receivers; and revealed ones, elsewhere."""

import numpy as np
import pandas as pd
import pytest

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression, RevealedModel

pytestmark = pytest.mark.cases
RNG = np.random.default_rng(31)
X = RNG.normal(size=(200, 3)) * [1, 50, 0.02]
Z = X @ [1.0, 0.02, -40.0] + 0.3
Y = (RNG.random(200) < 1 / (1 + np.exp(-Z))).astype(int)

OBJECTIVE = {"penalty": "l2", "C": 1.0, "class_weight": None, "fit_intercept": True}


@pytest.fixture(scope="module")
def fitted(lake, put):
    return LogisticRegression().fit(put(X, Y), target="y")


def test_a_model_is_kept_and_used_on_new_rows(lake, put, fitted):
    fitted.save("risk")
    new = put(X[:40] * 1.3)
    lake.disclosed.clear()
    model = lake.model("risk")
    assert (model.target_, list(model.feature_names_in_)) == ("y", ["x0", "x1", "x2"])
    found = model.decision_function(new)
    assert lake.disclosed == []
    z = found.reveal(to="hospital")
    assert [(item.what, item.to) for item in lake.disclosed] == [
        (f"decision value of 'y' on '{new.name}'", "hospital")
    ]
    clear = fitted.reveal()
    np.testing.assert_allclose(z, 1.3 * X[:40] @ clear.coef_[0] + clear.intercept_[0], atol=2e-3)
    with pytest.raises(SchemaError, match=r"there is no model 'risky' in the lake; models are: .*risk"):
        lake.model("risky")


def test_a_model_from_its_public_facts(lake, put, fitted):
    """What nodes keep beside the parameters is enough to use them."""
    model = fitted._fitted().model
    handles = [model.weights[0], model.intercept[0]]
    again = type(model).from_dict(model.to_dict(), "again", handles, lake)
    new = put(X[:30])
    np.testing.assert_array_equal(again.predict(new).reveal(), fitted.predict(new).reveal())
    np.testing.assert_allclose(again.reveal().coef_[0], fitted.reveal().coef_[0], rtol=1e-12)
    assert again.evaluate(put(X, Y), metrics=["accuracy"]).reveal().accuracy > 0.6
    assert again.objective == model.objective == {**OBJECTIVE, "sample_weight": None}
    older = {name: fact for name, fact in model.to_dict().items() if name != "objective"}
    with pytest.raises(PlanError, match="saved by a version that did not keep its penalty"):
        type(model).from_dict(older, "older", handles, lake).summary(new)
    for damage in (
        {"objective": {"C": 1.0}},
        {"format": "other"},
        {"columns": [["x0", "real"]]},
        {"parameters": []},
    ):
        with pytest.raises(SchemaError, match=r"'again' (has format|is malformed)"):
            type(model).from_dict(model.to_dict() | damage, "again", handles, lake)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.77])
def test_thresholds(lake, put, fitted, threshold):
    table = put(X)
    p = fitted.predict_proba(table).reveal()
    secret = lake.upload(
        {"cut": [threshold], "id": [0]},
        name=f"cut{threshold}",
        key="id",
        owner="clinic",
        types={"cut": "real"},
    )
    lake.disclosed.clear()
    public, hidden = (fitted.predict(table, threshold=given) for given in (threshold, secret))
    assert lake.disclosed == []
    sure = np.abs(p - threshold) > 2e-4
    assert sure.sum() > 190
    for labels in (public, hidden):
        np.testing.assert_array_equal(labels.reveal()[sure], (p > threshold)[sure])


def test_what_is_no_threshold(put, fitted):
    table = put(X)
    with pytest.raises(PlanError, match=r"threshold=1\.5 is not a number between 0 and 1"):
        fitted.predict(table, threshold=1.5)
    with pytest.raises(PlanError, match="is no threshold: it has 200 rows and 3 columns"):
        fitted.predict(table, threshold=table)


def test_probabilities_stay_within_zero_and_one(lake, put):
    x = np.concatenate([np.linspace(-30, 30, 100), RNG.normal(size=100)])
    y = (RNG.random(200) < 1 / (1 + np.exp(-x))).astype(int)
    model = LogisticRegression(penalty=None).fit(put(x[:, None], y), target="y")
    p = model.predict_proba(put(x[:, None])).reveal()
    assert p.min() >= 0
    assert p.max() <= 1
    z = model.decision_function(put(x[:, None])).reveal()
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-z)), atol=2.2e-5)


def test_a_revealed_model_in_scikit_learn_and_as_text(fitted):
    found = fitted.reveal()
    clear = found.to_sklearn()
    frame = pd.DataFrame(X, columns=found.feature_names_in_)
    np.testing.assert_allclose(clear.decision_function(frame), X @ found.coef_[0] + found.intercept_[0])
    np.testing.assert_array_equal(clear.predict(frame), X @ found.coef_[0] + found.intercept_[0] > 0)
    assert clear.feature_names_in_.tolist() == ["x0", "x1", "x2"]
    again = RevealedModel.from_json(found.to_json())
    np.testing.assert_array_equal(again.coef_[0], found.coef_[0])
    assert (again.intercept_[0], again.target_) == (found.intercept_[0], "y")
    for text in ("", "[]", '{"format": "other"}'):
        with pytest.raises(SchemaError, match="the text"):
            RevealedModel.from_json(text)


async def test_in_a_trio_program():
    columns = {f"x{place}": X[:, place] for place in range(3)} | {"id": np.arange(200), "y": Y}
    async with tercet.open_local(protocol="plain") as lake:
        table = await lake.upload(columns, name="table", key="id", owner="hospital")
        model = await LogisticRegression().fit(table, target="y")
        await model.save("risk")
        labels = await (await (await lake.model("risk")).predict(table)).reveal()
        summary = await model.summary(["coef"])
    assert set(labels) == {0, 1}
    assert summary.params.shape == (4,)
