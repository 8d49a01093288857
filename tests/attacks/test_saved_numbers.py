"""Numbers that plans by hand have saved stay what they are, and their tables' owners' and member's."""

from __future__ import annotations

import attrs
import msgpack
import numpy as np
import pytest
import trio

from tercet import Allow
from tercet.client.wording import describe_plan
from tercet.errors import ConsentError, PlanError, ProtocolError, SchemaError, TercetError
from tercet.members.rules import Rules
from tercet.plans import Form
from tests.attacks.lake import AGES, TIMEOUT_S, values_of

AGE = AGES["age"]
OWN = {"id": np.arange(3), "x": [1.0, 2, 3]}


@pytest.fixture
async def table(attacked):
    """The hospital's table, and what ann's plan has saved of it: a mean, and marks by row."""
    allow = Allow(plans="any", readers=("ann", "insurer"))
    hospital = attacked.hospital
    await hospital.upload(AGES, name="ages", key="id", owner="hospital", min_count=10, allow=allow)
    found = await attacked.ann.table("ages")
    async with attacked.signing() as signed, attacked.ann.plan("save") as plan:
        age = plan.column(found, "age")
        age.mean().save("mean", readers=["insurer"])
        (age > 50).save("old")
    assert signed == ["save"]
    return found


def entry(attacked, name, node=0):
    return attacked.nodes[node].gate.vault.catalog.find("number", name)


async def keep(attacked, name, handles, who=None):
    """As a client of her own would ask it."""
    fields = [name, list(handles), Rules(rows=True).to_bytes(), None]
    await (who or attacked.ann).cluster.client.ask("keep_number", fields)


async def store(attacked, table):
    """A plan by hand of ann's that stores what is a number and what is none."""
    b = attacked.builder("store")
    age = values_of(b, table)
    age.sum().reshape(1).store("total")
    (age < 3).store("bits")
    (age.sum().reshape(1) * 0 + 3).rescale(0).store("three")
    await attacked.run(b.plan())


def load(attacked, number, **claims):
    """A plan by hand of ann's that reveals a number."""
    b = attacked.builder("load")
    b.input(number.handles[0], attrs.evolve(number.types[0], **claims)).reveal("it", to="analyst")
    return b.plan()


async def test_a_later_plan_needs_what_reading_the_tables_would_need(attacked, table):
    """Signatures; of rows, more than these. And every member of a lake reads of it what the nodes hold."""
    ann = attacked.ann
    mean, old = await ann.number("mean"), await ann.number("old")
    async with attacked.signing() as signed, ann.plan("load") as plan:
        plan.load(mean).reveal("mean")
        ((plan.load(old) > 0) * plan.column(table, "age")).sum().reveal("total")
    assert signed == ["load"]
    assert plan.revealed["mean"] == pytest.approx(AGE.mean(), rel=1e-5)
    assert plan.revealed["total"] == pytest.approx(AGE[AGE > 50].sum(), rel=1e-4)
    assert "the owner was asked" in await attacked.why_not(load(attacked, mean))
    assert "single rows" in await attacked.why_not(load(attacked, old))
    with pytest.raises(SchemaError, match="rest on at least 10 rows, not rows"):
        ann.plan("rows").load(old).reveal("rows")
    for claims in ({"scale": 3}, {"limit": 1.0}, {"shape": (2,)}, {"form": Form.WORDS, "limit": 0.0}):
        with pytest.raises(PlanError, match=r"is ring 1 at scale \d+ of at most .* the plan reads it as"):
            await attacked.run(load(attacked, mean, **claims))


async def test_members_do_not_say_what_a_number_is(attacked, table):
    """Neither as they do of their tables, nor by types: nodes know what they hold, and what it is made of."""
    await store(attacked, table)
    body = msgpack.packb({"values": [[[1], 0, 1.0]], "rows": False, "least": 0})
    with pytest.raises(ConsentError, match="number 'sum' was not saved here"):
        await attacked.ann.desk.keep("number", "sum", body, ["total"], Rules())
    for handles in (["bits"], ["total", "three"], ["total", "three", "bits"], []):
        with pytest.raises(PlanError, match="is no number as plans of numbers save them"):
            await keep(attacked, "sum", handles)
    own, _ = await attacked.deal([1, 2, 3])
    with pytest.raises(ConsentError, match="'sum' was uploaded"):
        await keep(attacked, "sum", [own])
    wrong = ([], ["x"], ["x", "h", b"", None], [1, ["h"], b"", None], ["x", [["h"]], b"", 0])
    for args in wrong:
        with pytest.raises((ProtocolError, ConsentError)):
            await attacked.ann.cluster.client.ask("keep_number", args)
    await keep(attacked, "sum", ["total"])
    ages = attacked.nodes[0].gate.vault.catalog.find("table", "ages").identity
    for name, rows in (("sum", False), ("old", True)):
        made = entry(attacked, name)
        known = msgpack.unpackb(made.body)
        assert (known["rows"], known["least"], made.sources) == (rows, 10, (ages,))
        assert (made.rows, made.orders) == (((ages,), ("rows",)) if rows else ((), ()))
    (_, scale, limit), *_ = msgpack.unpackb(entry(attacked, "sum").body)["values"]
    assert limit >= AGE.sum() * 2.0**scale


async def test_nobody_has_anothers_number(attacked, table):
    """By its handle, which all see, by its name, or by one that looks like it; readers may use it."""
    insurer, mean, old = attacked.insurer, await attacked.ann.number("mean"), await attacked.ann.number("old")
    with pytest.raises(ConsentError, match="ann does not let insurer use number 'old'"):
        await insurer.cluster.client.run(load(attacked, old))
    await store(attacked, table)
    for handles in (old.handles, mean.handles, ["total"]):
        with pytest.raises(ConsentError, match="no value of insurer is stored"):
            await keep(attacked, "taken", handles, who=insurer)
    with pytest.raises(ConsentError, match="number 'mean' is ann's, not insurer's"):
        await (await insurer.number("mean")).drop()
    own = await insurer.upload(OWN, name="own", key="id", owner="insurer", allow=Allow(plans="any"))
    for name, why in (
        ("mean", "'mean' is ann's; take another"),
        ("Mean", "looks like 'mean', which is ann's"),
    ):
        with pytest.raises(ConsentError, match=why):
            async with insurer.plan("squat") as plan:
                plan.column(own, "x").mean().save(name)
    with pytest.raises(ConsentError, match="there is no member 'nobody' to read it"):
        async with insurer.plan("unread") as plan:
            plan.column(own, "x").mean().save("unread", readers=["nobody"])
    assert entry(attacked, "mean").owner == "ann"
    with trio.fail_after(TIMEOUT_S):  # what was stored and may not be kept is let go
        while any(node.gate.ledger.values["insurer"] for node in attacked.nodes):  # noqa: ASYNC110
            await trio.sleep(0.02)
    async with attacked.signing() as signed, insurer.plan("read") as plan:
        plan.load(await insurer.number("mean")).reveal("mean")
    assert signed == ["read"]
    assert plan.revealed["mean"] == pytest.approx(AGE.mean(), rel=1e-5)


async def test_it_ends_with_its_table(attacked, table):
    """Another upload of its name is another table, and frees nothing of the old one."""
    mean = await attacked.ann.number("mean")
    free = Allow(plans="any", rows=True)
    await attacked.hospital.upload(AGES, name="ages", key="id", owner="hospital", allow=free)
    for number in (mean, await attacked.ann.number("old")):
        assert "no longer in the lake" in await attacked.why_not(load(attacked, number))
    await mean.drop()
    with pytest.raises(SchemaError, match="there is no number 'mean'"):
        await attacked.ann.number("mean")
    assert not any(node.gate.vault.catalog.of_handle(mean.handles[0]) for node in attacked.nodes)


async def test_a_name_that_is_used_again_is_another_number(attacked, table):
    """What owners have signed that reads the one does not read the other. They see what a plan stores."""
    first, failed = await attacked.ann.number("mean"), []
    plan = attacked.ann.plan("save another")
    plan.load(first).save("mean")

    async def ask():
        try:
            await attacked.ask(plan.plan())
        except TercetError as error:
            failed.append(str(error))

    await store(attacked, table)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        (waiting,) = await attacked.waiting()
        lines = describe_plan(
            *await attacked.hospital.show(waiting.number), await attacked.hospital.entries()
        )
        assert "  - number mean" in lines
        place = lines.index("it stores at the nodes, secret, for later plans of ann")
        assert lines[place + 1].startswith("  - mean#")
        await keep(attacked, "mean", ["total"])
        await attacked.hospital.approve(waiting.number)
    assert "nothing of ann is stored under" in failed[0]
    assert (await attacked.ann.number("mean")).handles == ("total",)
    await keep(attacked, "mean", ["total"])  # the second time is as the first
    with pytest.raises(ConsentError, match="number 'other' is kept as 'mean' already, and only once"):
        await keep(attacked, "other", ["total"])


async def test_numbers_expire_and_count(attacked, table):
    async with attacked.signing(), attacked.ann.plan("short") as plan:
        plan.column(table, "age").mean().save("short", days=1e-9)
    number = await attacked.ann.number("short")
    assert "for a time that is over" in await attacked.why_not(load(attacked, number))
    for node in attacked.nodes:
        node.gate.quotas.quota = attrs.evolve(node.gate.quotas.quota, entries=2)
        await node.gate.sweep()
    with pytest.raises(SchemaError, match="there is no number 'short'"):
        await attacked.ann.number("short")
    async with attacked.signing():
        with pytest.raises(TercetError, match="entries"):
            async with attacked.ann.plan("too many") as plan:
                plan.column(table, "age").mean().save("too many")
    assert entry(attacked, "too many") is None
