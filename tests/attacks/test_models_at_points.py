"""A model's metrics where its columns are others than those it was fitted on tell its predictions there."""

from __future__ import annotations

import numpy as np
import pytest

from tercet import Allow
from tercet.ml import LogisticRegression
from tests.attacks.lake import ROWS

AGE = np.linspace(20, 80, ROWS).round(2)
COLUMNS = {"id": np.arange(ROWS), "age": AGE, "old": (AGE > 50) ^ (np.arange(ROWS) % 5 == 0)}


@pytest.fixture
async def theirs(attacked):
    """The hospital's table, whose figures ann may have and whose models she may not."""
    allow = Allow(computations=["tables", "statistics", "fit"])
    await attacked.hospital.upload(
        COLUMNS, name="ages", key="id", owner="hospital", min_count=5, allow=allow, ranges={"age": (0, 120)}
    )
    return await attacked.ann.table("ages")


async def at_a_point(_, table):
    """Every row at one age."""
    return await table.assign(age=(table["age"] < 0) * 120 + 30)


async def of_own_values(attacked, table):
    """Every row at an age of ann's."""
    own = {"id": COLUMNS["id"], "x": AGE[::-1]}
    await attacked.ann.upload(own, name="extra", key="id", owner="ann", allow=Allow(), ranges={"x": (0, 120)})
    joined = await table.join(await attacked.ann.table("extra"), on="id")
    return await joined.assign(age=joined["x"] * 1)


@pytest.mark.parametrize("moved", [at_a_point, of_own_values])
@pytest.mark.parametrize("ask", ["reveal", "score"])
async def test_metrics_at_chosen_values_are_the_models(attacked, theirs, moved, ask):
    model = await LogisticRegression(max_iter=4).fit(theirs, "old")
    table = await moved(attacked, theirs)
    async with attacked.signing() as signed:
        if ask == "score":
            await model.score(table)
        else:
            await (await model.evaluate(table)).reveal()
    assert len(signed) == 1


async def test_metrics_of_kept_models_at_chosen_values_are_the_models(attacked, theirs):
    """On the columns of the fit they are figures, as before it was kept."""
    await (await LogisticRegression(max_iter=4).fit(theirs, "old")).save("kept")
    model = await attacked.ann.model("kept")
    async with attacked.signing() as signed:
        await model.score(theirs)
        assert signed == []
        await model.score(await of_own_values(attacked, theirs))
    assert len(signed) == 1


async def test_metrics_of_computed_columns_that_a_model_was_fitted_on_are_figures(attacked, theirs):
    """Also of other rows with the same columns."""
    table = await theirs.assign(age=theirs["age"] * 0.5 + 30)
    train, test = await table.split(test_size=0.5)
    model = await LogisticRegression().fit(train, "old")  # of a random half: who knows in how many steps
    kept = await test.filter(test["age"] > 1)
    async with attacked.signing() as signed:
        assert await model.score(test) > 0
        assert (await (await model.evaluate(kept)).reveal(["log_loss"])).log_loss > 0
    assert signed == []
