"""Formulas at lasting nodes: as an installed computation under owners' rules, and by hand with signatures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import tercet
from tercet.errors import ConsentError
from tercet.ml import computations

ROWS = 60
AGE = np.linspace(20, 80, ROWS)
DOSE = 1e6 * np.sin(AGE)
PATIENTS = {"id": np.arange(ROWS), "age": AGE, "dose": DOSE}


@pytest.fixture
def installed(declaring, monkeypatch):
    """A package with a computation, on this machine, that nobody has imported yet."""
    made = []

    def load():
        @tercet.computation(discloses=["figure"])
        def slope(plan, table: tercet.Table, x: str, y: str):
            a, b = plan.columns(table, x, y)
            a, b = a - a.mean(), b - b.mean()
            X = a[:, None]
            plan.solve(X.T @ X, X.T @ b)[0].reveal("slope")

        @tercet.computation(discloses=["count"], opens=["intersection"])
        def overlap(plan, one: tercet.Table, other: tercet.Table):
            plan.intersection(one, other).reveal("overlap", kind="count")

        @tercet.computation(discloses=["figure"])
        def halves(plan, table: tercet.Table, to: str):
            plan.column(table, "age").mean().reveal("mean")
            plan.column(table, "dose").mean().reveal("theirs", to=to)

        made.extend((slope, overlap, halves))

    def offered(*, group, name):
        entry = SimpleNamespace(value="package", load=load)
        there = group == "tercet.computations" and name in ("slope", "overlap", "halves") and not made
        return [entry] if there else []

    monkeypatch.setattr(computations, "entry_points", offered)
    return made


async def test_an_installed_computation_runs_under_rules(installed, in_process):
    """Its owner names it; another column, or another class, is not allowed."""
    allow = tercet.Allow(readers=("ann",), computations=("slope",), receivers=("ann",))
    slope = installed[0]
    await in_process.hospital.upload(PATIENTS, name="patients", key="id", owner="hospital", allow=allow)
    table = await in_process.ann.table("patients")
    found = await slope(table, "age", "dose")
    assert found["slope"] == pytest.approx(np.polyfit(AGE, DOSE, 1)[0], rel=1e-3)
    narrow = tercet.Allow(readers=("ann",), computations=("slope",), receivers=("ann",), columns=("age",))
    await in_process.hospital.upload(PATIENTS, name="narrow", key="id", owner="hospital", allow=narrow)
    with pytest.raises(ConsentError, match="dose"):
        await slope(await in_process.ann.table("narrow"), "age", "dose")


@pytest.mark.parametrize("sizes", ["exact", "noisy", "hidden"])
async def test_an_owner_decides_what_an_intersection_tells_the_nodes(installed, in_process, sizes):
    common = {"readers": ("ann",), "computations": ("overlap",), "receivers": ("ann",)}
    for name, rule in (("open", "exact"), ("shy", sizes)):
        allow = tercet.Allow(**common, sizes=rule)
        await in_process.hospital.upload(PATIENTS, name=name, key="id", owner="hospital", allow=allow)
    tables = [await in_process.ann.table(name) for name in ("open", "shy")]
    overlap = installed[1]
    if sizes == "exact":
        assert await overlap(*tables) == {"overlap": ROWS}
        return
    with pytest.raises(ConsentError, match=r"how many rows match those of table 'shy'.* ask hospital"):
        await overlap(*tables)


@pytest.mark.thorough
async def test_a_plan_by_hand_waits_for_its_owner(in_process):
    allow = tercet.Allow(readers=("ann",), receivers=("ann",))
    await in_process.hospital.upload(PATIENTS, name="patients", key="id", owner="hospital", allow=allow)
    table = await in_process.ann.table("patients")
    async with in_process.signing() as signed, in_process.ann.plan("mean age") as plan:
        plan.column(table, "age").mean().reveal("mean age")
    assert plan.revealed["mean age"] == pytest.approx(50)
    assert len(signed) > 0


@pytest.mark.parametrize("made_up", [False, True])
async def test_figures_of_the_analyst_stay_beside_those_of_members(installed, in_process, made_up):
    """By an installed computation, whose results are for both, as on the lake that it was rehearsed on."""
    allow = tercet.Allow(
        readers=("ann",), computations=("halves",), classes=("figure",), receivers=("ann", "insurer")
    )
    halves = installed[2]
    await in_process.hospital.upload(PATIENTS, name="patients", key="id", owner="hospital", allow=allow)
    async with in_process.ann.rehearse(rows=60) as rehearsed:
        lake = rehearsed if made_up else in_process.ann
        table = await lake.table("patients")
        found = await halves(table, "insurer")
        alone = await halves(table, "ann")
        plan = lake.plan("by hand")
        if made_up:
            async with plan:
                plan.column(table, "age").mean().reveal("mean")
                plan.column(table, "age").var().reveal("theirs", to="insurer")
    assert found.keys() == {"mean"}
    assert alone.keys() == {"mean", "theirs"}
    if made_up:
        assert plan.revealed.keys() == {"mean"}
        return
    assert found["mean"] == pytest.approx(50, abs=1e-3)
    (told,) = await in_process.insurer.desk.received()
    assert told.values == pytest.approx(DOSE.mean(), abs=10)
