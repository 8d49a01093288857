"""Tables of several owners put together at lasting nodes: by their word, under the rules of all."""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.errors import ConsentError, SchemaError
from tercet.ml import LogisticRegression

ROWS = 60


def columns(first, level):
    rng = np.random.default_rng(first)
    return {
        "id": np.arange(first, first + ROWS),
        "age": rng.normal(level, 8, ROWS).round(1),
        "sick": np.arange(ROWS) % 3 == 0,
    }


async def test_rows_of_two_owners(in_process):
    """The hospital signs, the insurer has named it as free; the stricter rule holds for both."""
    north, south = columns(0, 50), columns(500, 55)
    named = Allow(computations=["concat", "tables", "statistics"])
    await in_process.hospital.upload(
        north, name="north", key="id", owner="hospital", min_count=20, allow=Allow(plans="any")
    )
    await in_process.insurer.upload(south, name="south", key="id", owner="insurer", min_count=30, allow=named)
    ann = in_process.ann
    tables = [await ann.table(name) for name in ("north", "south")]
    async with in_process.signing() as signed:
        both = await tercet.concat(tables, site="secret")
    assert signed == ["concat north|south"]
    ages = np.concatenate([north["age"], south["age"]])
    told = (await both.describe(["age", "site"], statistics=["mean"])).values
    np.testing.assert_allclose(told["age"]["mean"], ages.mean(), atol=1e-2)
    few = await both.filter(both["sick"] & (both["site"] == 1))
    assert np.isnan(
        (await few.describe("age", statistics=["mean"]))["age"]["mean"]
    )  # 20 rows, and 30 are due
    with pytest.raises(SchemaError, match="at least 30 rows, not single rows"):
        await both.reveal("age")
    async with in_process.signing():
        with pytest.raises(SchemaError, match="60 rows have a key that another row has"):
            await tercet.concat([tables[0], tables[0]])


async def test_claims_of_patients(in_process):
    """The insurer's claims become a row for each patient, beside the hospital's; few of them tell nothing."""
    rng = np.random.default_rng(4)
    claims = {"id": rng.integers(0, 80, 150), "cost": rng.gamma(2, 100, 150).round(2)}
    free = {"allow": Allow(plans="any"), "key": "id", "min_count": 10}
    await in_process.hospital.upload(columns(0, 50), name="north", owner="hospital", **free)
    await in_process.insurer.upload(claims, name="claims", owner="insurer", unique=False, **free)
    ann = in_process.ann
    patients, table = [await ann.table(name) for name in ("north", "claims")]
    sums = np.bincount(claims["id"], claims["cost"], 80)
    seen = np.unique(claims["id"])
    groups = await table.groupby("id").to_table({"cost": ["sum"]}, sizes="exact")
    assert len(groups) == len(seen)
    linked = await patients.join(groups, on="id")
    known = seen[seen < ROWS]
    told = await linked.groupby("sick").agg({"cost_sum": "mean"})
    for sick in (0, 1):
        some = known[(known % 3 == 0) == sick]
        np.testing.assert_allclose(told["cost_sum", "mean"][sick], sums[some].mean(), atol=2)
    few = await linked.filter(linked["age"] > np.sort(linked_ages(known))[-5])
    assert np.isnan((await few.describe("cost_sum", statistics=["mean"]))["cost_sum"]["mean"])
    hidden = await table.groupby("id").to_table({"cost": "mean"}, sizes="hidden")
    told = await hidden.describe("cost_mean", statistics=["mean"])
    assert (len(hidden), told["cost_mean"]["count"]) == (150, len(seen))


def linked_ages(known):
    return columns(0, 50)["age"][known]


@pytest.mark.parametrize("sizes", ["exact", "hidden"])
async def test_models_on_joins_that_tell_rows_apart(in_process, sizes):
    """What was learned from many rows is kept as a model, and predicts for rows that may be revealed."""
    rng = np.random.default_rng(6)
    claims = {"id": rng.integers(0, 80, 150), "cost": rng.gamma(2, 100, 150).round(2)}
    new = {"id": np.arange(900, 920), "cost": rng.gamma(4, 100, 20).round(2)}
    free = {"allow": Allow(plans="any"), "key": "id"}
    hospital, ann = in_process.hospital, in_process.ann
    await hospital.upload(columns(0, 50), name="north", owner="hospital", **free)
    await in_process.insurer.upload(claims, name="claims", owner="insurer", unique=False, **free)
    await hospital.upload(
        new,
        name="new",
        key="id",
        owner="hospital",
        allow=Allow(plans="any", rows=True),
        ranges={"cost": (0, 5000)},
    )
    patients, table, others = [await ann.table(name) for name in ("north", "claims", "new")]
    sums = await table.groupby("id").to_table({"cost": ["sum"]}, sizes=sizes)
    linked = await patients.join(sums, on="id", how="left", sizes=sizes)
    linked = await linked.assign(cost=linked["cost_sum"].clip(0, 5000).fillna(0))
    model = await LogisticRegression().fit(linked, target="sick", features=["cost"])
    await model.save("risk")
    kept = await ann.model("risk")
    risk = await (await kept.predict_proba(others)).reveal()
    assert ((risk > 0) & (risk < 1)).all()
    with pytest.raises(ConsentError, match=r"does not let single rows of table '(north|claims)' be revealed"):
        await (await kept.predict_proba(linked)).reveal()
