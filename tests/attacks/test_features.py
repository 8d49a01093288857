"""What owners' rules allow still runs: the review that keeps attackers out lets every model and statistic in.

On real nodes, under rules that let any plan run, no single rows, and figures over 10 rows or more.
"""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.ml import (
    GridSearch,
    LogisticRegression,
    MeanImputer,
    MinMaxScaler,
    StandardScaler,
    cross_validate,
)
from tercet.nodes.gate import LakeGate
from tercet.plans.review import review

ROWS = 240


@pytest.fixture
async def table(attacked, monkeypatch):
    """Two owners' tables, joined by ann, whose plans need nobody's approval."""

    async def ask(self, waiting, facts, **_):
        raise AssertionError(f"{waiting.owners} are asked about {waiting.plan.name!r}")

    monkeypatch.setattr(LakeGate, "_wait", ask)
    rng = np.random.default_rng(5)
    x, y = rng.normal(50, 10, ROWS), rng.normal(size=ROWS)
    sick = ((x - 50) / 10 + y + rng.logistic(size=ROWS) > 0).astype(int)
    missing = np.where(np.arange(ROWS) % 9 == 0, np.nan, rng.normal(5, 1, ROWS))
    allow = Allow(plans="any")
    await attacked.hospital.upload(
        {"id": np.arange(ROWS), "x": x, "sick": sick, "old": (x > 55).astype(int), "m": missing},
        name="ages",
        key="id",
        owner="hospital",
        min_count=10,
        allow=allow,
        missing="indicator",
    )
    await attacked.insurer.upload(
        {"id": np.arange(ROWS), "y": y}, name="costs", key="id", owner="insurer", min_count=5, allow=allow
    )
    return await (await attacked.ann.table("ages")).join(await attacked.ann.table("costs"), on="id")


async def test_statistics(table):
    made = await table.assign(both=table["x"] * table["y"])
    kept = await made.filter(made["y"] > -1)
    for one in (table, kept):
        assert str(await one.describe(["x", "y"]))
        assert str(await one.crosstab("old", "sick"))
        assert str(await one.corr(["x", "y"]))
    assert (await made.filter(made["y"] > -1, compact=True)).rows > 0


async def test_transformers(table):
    train, test = await table.split(test_size=0.3)
    for learner in (StandardScaler(["x"]), MinMaxScaler(["y"]), MeanImputer(["m"])):
        await learner.fit(train)
        assert (await learner.transform(test)).rows == test.rows


async def test_models(attacked, table):
    train, test = await table.split(test_size=0.3)
    model = await LogisticRegression().fit(train, target="sick", features=["x", "y"])
    assert (await model.reveal()).coef_.shape == (1, 2)
    assert str(await model.summary())
    scores = await model.evaluate(test)
    assert 0.5 < (await scores.reveal(["roc_auc", "accuracy", "log_loss"])).roc_auc <= 1
    await model.save("risk")
    own = {"id": np.arange(5), "x": np.linspace(40, 60, 5), "y": np.zeros(5)}
    new = await attacked.ann.upload(own, name="new", key="id", owner="ann", allow=Allow(plans="any"))
    found = await (await (await attacked.ann.model("risk")).predict_proba(new)).reveal()
    assert len(found) == 5


def test_no_plan_of_models_needs_more_than_it_did(monkeypatch):
    """Only folds and splits with as many ones in each ask owners, since they open places of shuffled rows."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(50, 10, ROWS), rng.normal(size=ROWS)
    sick = ((x - 50) / 10 + y + rng.logistic(size=ROWS) > 0).astype(int)
    stored, rows, asks = {}, [], []
    with tercet.local(protocol="plain") as lake:
        table = lake.upload(
            {"id": np.arange(ROWS), "x": x, "sick": sick}, name="t", key="id", owner="o", min_count=10
        )
        run = type(lake)._run

        async def reviewed(self, plan, *more):
            found = review(plan, lambda handle: stored.get(handle, frozenset({"t"})))
            stored.update(found.stored)
            rows.extend(found.rows)
            if found.unclear or found.placed:
                asks.append(plan.name)
            assert all(least >= 10 for least in (*found.fewest.values(), *found.apart.values()))
            return await run(self, plan, *more)

        monkeypatch.setattr(type(lake), "_run", reviewed)
        train, test = table.split(test_size=0.3)
        model = LogisticRegression().fit(train, target="sick")
        model.summary()
        model.evaluate(test).reveal()
        cross_validate(LogisticRegression(), train, "sick", cv=3)
        GridSearch(LogisticRegression(), C=[0.1, 1.0], scoring="log_loss", cv=3).fit(train, "sick")
        some = train.filter(train["x"] > 45)
        LogisticRegression(class_weight="balanced").fit(some, target="sick").evaluate(some).reveal()
    assert rows == []
    assert asks == ["folds of t.train"] * 2
