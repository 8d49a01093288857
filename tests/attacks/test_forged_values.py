"""What a computation has stored is what later ones read: nobody puts values of their own in its place."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from tercet import Allow
from tercet.errors import PlanError
from tercet.plans import Form
from tests.attacks.lake import ROWS

AGE = np.round(np.linspace(20, 80, ROWS), 2)
ALLOWED = Allow(computations=["tables", "statistics"])


@pytest.fixture
async def victim(attacked):
    """The hospital's table, of which ann may make tables and statistics over 10 rows or more."""
    columns = {"id": np.arange(ROWS), "age": AGE, "old": AGE > 50}
    await attacked.hospital.upload(
        columns, name="ages", key="id", owner="hospital", min_count=10, allow=ALLOWED
    )
    return await attacked.ann.table("ages")


async def test_nobody_puts_marks_of_her_own_in_the_place_of_a_filter(attacked, victim):
    """Marks of ten at one row would let its value out as a mean over ten rows, row by row."""
    kept = await victim.filter(victim["age"] > 50)
    before = await kept.describe(["age"], statistics=["mean"])
    handle, kind = kept.parts[kept.selection[0].part].handle, kept.parts[kept.selection[0].part].type
    client = attacked.ann.cluster.client
    await client.drop([handle])
    marks = np.zeros(kind.shape, dtype=np.uint64)
    marks[0, 7] = 10
    with pytest.raises(PlanError, match="as computations give them, and only these do"):
        await client.put(handle, kind, marks)
    own, _ = await attacked.deal(marks[0].view(np.int64))
    b = attacked.builder("marks")
    (b.input(own, attrs.evolve(kind, shape=kind.shape[1:])).reshape(*kind.shape) + 0).store(handle)
    with pytest.raises(PlanError, match="as computations give them, and only these do"):
        await attacked.ask(b.plan())
    with pytest.raises(PlanError, match="nothing of ann is stored"):
        await kept.describe(["age"], statistics=["mean"])
    again = await victim.filter(victim["age"] > 50)
    assert (await again.describe(["age"], statistics=["mean"]))["age"]["mean"] == before["age"]["mean"]


async def test_no_false_bit_passes_for_many_rows(attacked, victim, monkeypatch):
    """A boolean column of hers that is ten at one key: a condition on it would count that row ten times."""
    client = attacked.ann.cluster.client
    put = client.put_rows

    async def tenfold(handle, kind, rows, *more):
        values = kind.form is Form.RING
        await put(handle, kind, lambda a, b: rows(a, b) * np.uint64(10) if values else rows(a, b), *more)

    mine = {"id": np.arange(ROWS), "me": np.arange(ROWS) == 7}
    with monkeypatch.context() as false:
        false.setattr(client, "put_rows", tenfold)
        await attacked.ann.upload(mine, name="mine", key="id", owner="ann", allow=Allow(plans="any"))
    joined = await victim.join(await attacked.ann.table("mine"), on="id")
    told = await (await joined.filter(joined["me"])).describe(["age"], statistics=["mean"])
    assert np.isnan(told["age"]["mean"])
    found = await joined.crosstab("me", "old")
    assert np.isnan(found.counts).any(), found
