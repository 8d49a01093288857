"""A model's metrics on rows of whoever asks tell its predictions there, and so the model."""

from __future__ import annotations

import numpy as np
import pytest

from tercet import Allow
from tercet.ml import LogisticRegression, StandardScaler
from tests.attacks.lake import ROWS

AGE = np.linspace(20, 80, ROWS).round(2)
COLUMNS = {"id": np.arange(ROWS), "age": AGE, "old": (AGE > 50) ^ (np.arange(ROWS) % 5 == 0)}
OWN = {"id": np.arange(ROWS), "age": AGE[::-1], "old": np.arange(ROWS) % 2 == 0}


@pytest.fixture
async def tables(attacked):
    """The hospital's, whose figures ann may have and whose models she may not, and her own."""
    allow = Allow(computations=["tables", "statistics", "fit"])
    ranges = {"age": (0, 120)}
    await attacked.hospital.upload(
        COLUMNS, name="ages", key="id", owner="hospital", min_count=5, allow=allow, ranges=ranges
    )
    own = await attacked.ann.upload(
        OWN, name="mine", key="id", owner="ann", min_count=5, allow=allow, ranges=ranges
    )
    return await attacked.ann.table("ages"), own


async def signed_for(attacked, ask):
    """What came of a computation, and what the hospital was asked to sign for it."""
    async with attacked.signing() as signed:
        return await ask(), signed


async def test_metrics_on_the_rows_of_the_model_are_figures(attacked, tables):
    theirs, _ = tables
    model = await LogisticRegression(max_iter=4).fit(theirs, "old")
    evaluation = await model.evaluate(theirs)
    found, signed = await signed_for(attacked, evaluation.reveal)
    assert found.log_loss > 0
    assert await model.score(theirs) > 0.5
    assert signed == []


@pytest.mark.parametrize("ask", ["reveal", "roc_curve", "calibration", "score"])
async def test_metrics_on_own_rows_are_the_models(attacked, tables, ask):
    theirs, own = tables
    model = await LogisticRegression(max_iter=4).fit(theirs, "old")
    of = model if ask == "score" else await model.evaluate(own)
    arguments = (own,) if ask == "score" else ()
    _, signed = await signed_for(attacked, lambda: getattr(of, ask)(*arguments))
    assert len(signed) == 1


async def test_metrics_on_own_rows_that_were_made_elsewhere_are_the_models(attacked, tables):
    """Also on parts, filtered, scaled and assigned rows; not on rows joined with those of the hospital."""
    theirs, own = tables
    model = await LogisticRegression(max_iter=4).fit(theirs, "old")
    _, test = await own.split(test_size=0.5)
    kept = await own.filter(own["age"] > 1)
    for table in (test, kept, await own.assign(two=own["age"] * 2)):
        evaluation = await model.evaluate(table)
        _, signed = await signed_for(attacked, evaluation.reveal)
        assert len(signed) == 1
    extra = await attacked.ann.upload(
        {"id": COLUMNS["id"], "x": AGE[::-1]}, name="extra", key="id", owner="ann", allow=Allow()
    )
    joined = await theirs.join(extra, on="id")
    evaluation = await model.evaluate(joined)
    _, signed = await signed_for(attacked, evaluation.reveal)
    assert signed == []


async def test_figures_of_own_rows_scaled_by_others_tell_the_scaler(attacked, tables):
    theirs, own = tables
    scaler = await StandardScaler(columns=["age"]).fit(theirs)
    _, signed = await signed_for(attacked, scaler.reveal)
    assert signed == []
    scaled = await scaler.transform(own)
    _, signed = await signed_for(attacked, lambda: scaled.describe(["age"], statistics=["mean"]))
    assert len(signed) == 1
