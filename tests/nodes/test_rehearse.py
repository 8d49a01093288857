"""Lakes of made-up rows beside a real one: its public schemas, and nothing else of it."""

import contextlib

import attrs
import numpy as np
import pytest

import tercet
from tercet.client.lake import Sent
from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression

PATIENTS = {"id": np.arange(1000, 1300), "age": np.linspace(20, 80, 300), "sick": np.arange(300) % 2}
COSTS = {"id": np.arange(1050, 1350), "cost": np.where(np.arange(300) % 7, 99.5, np.nan)}


async def test_a_study_is_designed_on_made_up_rows(in_process, monkeypatch):
    await in_process.hospital.upload(
        PATIENTS, name="patients", key="id", owner="hospital", min_count=50, ranges={"age": (0, 120)}
    )
    await in_process.insurer.upload(COSTS, name="costs", key="id", owner="insurer", missing="indicator")
    real = [await in_process.ann.table(name) for name in ("patients", "costs")]

    async def nothing(*_):
        raise AssertionError("the real lake was asked for more than its catalog")

    async with in_process.ann.rehearse(rows=100) as lake, contextlib.AsyncExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        for question in ("ask", "run", "put"):
            patch.setattr(in_process.ann.cluster.client, question, nothing)
        patients, costs = [await lake.table(name) for name in ("patients", "costs")]
        assert (patients.rows, patients.min_count) == (100, 50)
        for mine, theirs in zip((patients, costs), real, strict=True):
            assert [attrs.evolve(one, recipe="") for one in mine.columns] == [
                attrs.evolve(one, recipe="") for one in theirs.columns
            ]
            assert (mine.key_names, mine.key_types) == (theirs.key_names, theirs.key_types)
        joined = await (await patients.join(costs, on="id")).dropna(["cost"])
        assert 60 <= joined.rows <= 80
        model = await LogisticRegression().fit(joined, target="sick", features=["age"])
        found = await model.reveal()
        assert isinstance(await model.reveal(to="insurer"), Sent)
        assert not isinstance(await model.reveal(to="ann"), Sent)
        with pytest.raises(SchemaError, match=r"no table 'patient'.*patients"):
            await lake.table("patient")
        with pytest.raises(PlanError, match="one machine"):
            async with lake.rehearse():
                pass
    async with in_process.ann.rehearse(rows=100, seed=0) as lake:
        again = await (await lake.table("patients")).join(await lake.table("costs"), on="id")
        again = await again.dropna(["cost"])
        same = await (await LogisticRegression().fit(again, target="sick", features=["age"])).reveal()
        np.testing.assert_allclose(same.coef_, found.coef_)


def test_tables_of_a_lake_on_one_machine_have_names():
    with tercet.local(protocol="plain") as lake:
        made = lake.upload(PATIENTS, name="patients", key="id", owner="hospital")
        found = lake.table("patients")
        assert attrs.asdict(found, recurse=False) == attrs.asdict(made, recurse=False)
        with pytest.raises(SchemaError, match="no table 'costs'"):
            lake.table("costs")
        with pytest.raises(PlanError, match="one machine"):
            lake.rehearse()


async def test_tables_to_put_together_share_no_made_up_keys(in_process):
    for owner in ("hospital", "insurer"):
        await getattr(in_process, owner).upload(PATIENTS, name=owner, key="id", owner=owner, min_count=50)
    await in_process.insurer.upload(COSTS, name="costs", key="id", owner="insurer", missing="indicator")
    async with in_process.ann.rehearse(rows=100) as lake:
        tables = [await lake.table(name) for name in ("hospital", "insurer", "costs")]
        both = await tercet.concat(tables[:2], site="secret")
        assert (both.rows, both.repeats) == (200, 0)
        assert 60 <= (await both.join(tables[2], on="id")).rows <= 80
