"""The model as users hold it: what it reveals and discloses, in scripts and in trio programs."""

import numpy as np
import pytest

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression, StandardScaler
from tercet.plans.types import NODES

pytestmark = pytest.mark.cases
RNG = np.random.default_rng(21)
ROWS = 300
X = RNG.normal(size=(ROWS, 3)) * [1, 100, 0.01]
Y = (RNG.random(ROWS) < 1 / (1 + np.exp(-X @ [1.0, 0.01, -100.0]))).astype(int)
CHECKS = [
    ("whether a decision value or a coefficient left its range", "analyst", "1"),
    ("whether only one outcome occurs", "analyst", "1"),
    ("whether the last step still moved the fit", "analyst", "1"),
]


def told(lake):
    return [(item.what, item.to, item.size) for item in lake.disclosed]


def test_what_a_fit_discloses(lake, put):
    table = put(X, Y)
    lake.disclosed.clear()
    scaler = StandardScaler()
    scaled = scaler.fit_transform(table)
    assert told(lake) == []
    model = LogisticRegression().fit(scaled, target="y")
    assert told(lake) == CHECKS
    lake.disclosed.clear()
    LogisticRegression(solver="gd", max_iter=3).fit(scaled, target="y")
    assert told(lake) == CHECKS[:2]
    lake.disclosed.clear()
    LogisticRegression(check=False).fit(scaled, target="y")
    model.predict(scaled)
    model.predict_proba(scaled)
    model.decision_function(scaled)
    assert told(lake) == []
    evaluation = model.evaluate(scaled)
    assert told(lake) == [("comparisons of shuffled rows, a random order", "the nodes", "300")]
    lake.disclosed.clear()
    evaluation.reveal(["roc_auc", "f1"], to="hospital")
    model.reveal(to="insurer")
    scaler.reveal(to="hospital")
    model.predict(scaled).reveal(to="insurer")
    assert told(lake) == [
        ("roc_auc", "hospital", "1"),
        ("f1", "hospital", "1"),
        ("coefficients of 'y' by x0, x1, x2", "insurer", "3"),
        ("intercept of 'y'", "insurer", "1"),
        ("means of columns", "hospital", "3"),
        ("inverse standard deviations of columns", "hospital", "3"),
        (f"label of 'y' on '{scaled.name}'", "insurer", "300"),
    ]


def test_a_revealed_model_prints_as_a_table(plain, put_plain):
    found = LogisticRegression(C=10.0).fit(put_plain(X, Y), target="y").reveal()
    lines = str(found).splitlines()
    assert lines[0] == "log-odds of y"
    assert [line.split()[0] for line in lines[1:]] == ["(intercept)", "x0", "x1", "x2"]
    assert float(lines[2].split()[1]) == pytest.approx(found.coef_[0, 0], rel=1e-4)


def test_a_model_is_reused(plain, put_plain):
    """A second fit replaces the first one; a fit that fails leaves nothing behind."""
    model = LogisticRegression()
    assert model.fit(put_plain(X, Y), target="y") is model
    first = model.reveal().coef_[0]
    other = put_plain(X, 1 - Y)
    np.testing.assert_allclose(model.fit(other, target="y").reveal().coef_[0], -first, atol=1e-3)
    assert model.feature_names_in_.tolist() == ["x0", "x1", "x2"]


def test_the_range_can_be_given(plain, put_plain):
    table = put_plain(X, Y)
    plain.phases.clear()
    near = LogisticRegression(z_bound=9, sigmoid_error=1e-4).fit(table, target="y").reveal()
    assert len(plain.phases) == 2
    far = LogisticRegression(z_bound=100.0).fit(table, target="y").reveal()
    np.testing.assert_allclose(near.coef_[0] * X.std(0), far.coef_[0] * X.std(0), atol=0.01)


def test_new_rows_in_an_upload_of_their_own(lake, put):
    """Scales follow the spread of an upload; a model is used in the scales that it was fitted on."""
    table = put(X, Y)
    model = LogisticRegression(C=10.0).fit(table, target="y")
    found = model.reveal()
    for factor in (0.1, 1.0, 3.0, 20.0):
        rows = X[:50] * factor
        z = rows @ found.coef_[0] + found.intercept_[0]
        new = put(rows)
        assert factor == 1.0 or new.column("x0").schema.scale != table.column("x0").schema.scale
        decided = model.decision_function(new).reveal()
        np.testing.assert_allclose(decided, z, atol=2e-3 * max(1, factor))


@pytest.fixture(params=["plain", "replicated"])
def scripted(request):
    """A protocol, and the model that a script finds with it."""
    columns = {f"x{place}": X[:, place] for place in range(3)} | {"id": np.arange(ROWS), "y": Y}
    with tercet.local(protocol=request.param) as lake:
        uploaded = lake.upload(columns, name="table", key="id", owner="hospital")
        model = LogisticRegression().fit(StandardScaler().fit_transform(uploaded), target="y")
        return request.param, model.reveal()


async def test_in_a_trio_program(scripted):
    """The same steps with `await` find the same."""
    protocol, same = scripted
    columns = {f"x{place}": X[:, place] for place in range(3)} | {"id": np.arange(ROWS)}
    other = {"y": Y[::-1], "id": np.arange(ROWS)[::-1]}
    async with tercet.open_local(protocol=protocol) as lake:
        left = await lake.upload(columns, name="left", key="id", owner="hospital")
        right = await lake.upload(other, name="right", key="id", owner="insurer")
        table = await left.join(right, on="id")
        train, test = await table.split(test_size=0.3)
        assert (len(train), len(test)) == (210, 90)
        scaler = await StandardScaler().fit(table)
        scaled = await scaler.transform(table)
        assert (await scaler.reveal()).names_ == ("x0", "x1", "x2")
        assert len(await StandardScaler().fit_transform(train)) == 210
        model = await LogisticRegression().fit(scaled, target="y")
        found = await model.reveal()
        scores = await (await model.evaluate(scaled)).reveal(["accuracy"])
        labels = await (await model.predict(scaled)).reveal()
        probabilities = await (await model.predict_proba(scaled)).reveal()
        decided = await (await model.decision_function(scaled)).reveal()
        revealed = await table.reveal("y")
    assert scores.accuracy == pytest.approx(np.mean(labels == revealed["y"]), abs=1e-5)
    np.testing.assert_array_equal(labels, decided > 0)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-decided)), atol=1e-4)
    np.testing.assert_allclose(found.coef_[0], same.coef_[0], atol=1e-3)
    np.testing.assert_allclose(found.intercept_[0], same.intercept_[0], atol=1e-3)


# -- fits that nobody waits for ------------------------------------------------------------------------------


def test_a_fit_that_was_submitted(plain, put_plain):
    table = put_plain(X, Y)
    plain.disclosed.clear()
    job = LogisticRegression(C=2.0).submit(table, target="y")
    assert told(plain) == []
    model = LogisticRegression(C=2.0)
    assert model.collect(job, table, target="y") is model
    bits = [what for what, *_ in CHECKS]
    for to in ("analyst", NODES):
        assert [one.what for one in plain.disclosed if one.to == to] == bits
    fitted = LogisticRegression(C=2.0).fit(table, target="y")
    np.testing.assert_allclose(model.reveal().coef_[0], fitted.reveal().coef_[0], rtol=1e-3)
    assert (model.converged_, model.n_iter_) == (True, [6])
    names = ["p", "se"]
    np.testing.assert_allclose(model.summary(names).bse, fitted.summary(names).bse, rtol=1e-3)
    with pytest.raises(PlanError, match="submitted with other options"):
        LogisticRegression(C=3.0).collect(job, table, target="y")
    with pytest.raises(PlanError, match="on another table"):
        model.collect(job, put_plain(X, Y), target="y")


def test_a_fit_of_several_plans_that_was_submitted(plain, put_plain):
    """On one machine, those after the first are run when it is collected."""
    table = put_plain(X, Y)
    for options in ({"tol": 1e-3}, {"tol": 1e-6, "penalty": None}):
        job = LogisticRegression(**options).submit(table, target="y")
        plain.phases.clear()
        model = LogisticRegression(**options).collect(job, table, target="y")
        fitted = LogisticRegression(**options).fit(table, target="y")
        assert model.n_iter_ == fitted.n_iter_ > [1]
        assert len(plain.phases) > 2
        np.testing.assert_allclose(model.reveal().coef_, fitted.reveal().coef_, rtol=1e-3, atol=1e-4)
    narrow = LogisticRegression(z_bound=1.0, max_iter=1000)
    job = narrow.submit(table, target="y")
    with pytest.raises(SchemaError, match=r"left \[-1, 1\].*a larger z_bound such as 24"):
        narrow.collect(job, table, target="y")
    with pytest.raises(PlanError, match="not fitted yet"):
        narrow.reveal()


async def test_a_fit_that_was_submitted_in_trio():
    async with tercet.open_local(protocol="plain") as lake:
        rows = {"id": np.arange(ROWS), "x": X[:, 0], "y": Y}
        table = await lake.upload(rows, name="t", key="id", owner="clinic")
        job = await LogisticRegression().submit(table, target="y")
        model = await LogisticRegression().collect(job, table, target="y")
        assert (await model.reveal()).coef_.shape == (1, 1)
