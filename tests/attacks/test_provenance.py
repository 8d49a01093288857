"""Provenance by identity: what was made from a table stays bound to it, whatever is called by its name."""

from __future__ import annotations

import time

import attrs
import msgpack
import numpy as np
import pytest
import trio

from tercet import Allow
from tercet.errors import ConsentError, PlanError, TercetError
from tercet.members.rules import Rules
from tercet.ml import LogisticRegression
from tests.attacks.lake import ROWS, values_of

pytestmark = pytest.mark.early
SAMPLE = {"id": np.arange(3), "y": np.linspace(0, 1, 3)}
GONE = "no longer in the lake"


def look(attacked, table):
    """A plan that reveals the rows of the first part of a table."""
    b = attacked.builder("look")
    b.input(table.parts[0].handle, table.parts[0].type).reveal("rows", to="analyst")
    return b.plan()


def total(attacked, table):
    b = attacked.builder("total")
    values_of(b, table).sum().reveal("total", to="analyst")
    return b.plan()


# -- names of models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ages", "mine", "harmless"])
async def test_a_model_does_not_hide_where_its_values_come_from(attacked, name):
    """Not by a table's name, nor by any other: rows are kept as no model, and stay rows."""
    await attacked.victim()
    joined = await attacked.joined()
    assert "single rows" in await attacked.why_not(look(attacked, joined))
    with pytest.raises(ConsentError, match="was not fitted here"):
        await attacked.ann.desk.keep("model", name, b"x", [joined.parts[0].handle], Rules())
    assert "single rows" in await attacked.why_not(look(attacked, joined))


async def test_a_figure_that_is_kept_under_a_tables_name_has_its_sources_still(attacked):
    """Only what a computation gave is a model; the owner's word on the table it is from goes with it."""
    victim = await attacked.victim()
    b = attacked.builder()
    values_of(b, victim).sum().reshape(1).store("total")
    await attacked.run(b.plan())
    with pytest.raises(ConsentError, match="was not fitted here"):
        await attacked.ann.desk.keep("model", "ages", b"x", ["total"], Rules())
    sorted_out = await victim.assign(old=victim["age"] > 50)
    fitted = await LogisticRegression(C=0.01).fit(sorted_out, "old", features=["age"])
    await fitted.save("ages")
    model = await attacked.ann.model("ages")
    (kept,) = [one for one in await attacked.ann.entries() if one.kind == "model"]
    assert kept.sources == ("ages",)
    await attacked.hospital.drop("ages")
    b = attacked.builder()
    b.input(*model.weights).reveal("weights", to="analyst")
    assert GONE in await attacked.why_not(b.plan())


async def test_what_was_computed_is_kept_as_no_table(attacked):
    victim = await attacked.victim()
    b = attacked.builder()
    (values_of(b, victim) * 2).store("copy")
    values_of(b, victim).sum().reshape(1).store("total")
    await attacked.run(b.plan())
    for handle in ("copy", "total"):
        with pytest.raises(ConsentError, match="was made from ages; only uploads are kept as tables"):
            await attacked.ann.desk.keep("table", "ages2", b"x", [handle], Rules(rows=True))


# -- tables that come and go -------------------------------------------------------------------------------


async def test_a_newcomer_of_the_name_is_another_table(attacked):
    await attacked.victim()
    joined = await attacked.joined()
    await attacked.hospital.drop("ages")
    assert GONE in await attacked.why_not(look(attacked, joined))
    free = Allow(plans="any", rows=True)
    await attacked.ann.upload(SAMPLE, name="ages", key="id", owner="ann", allow=free)
    for plan in (look(attacked, joined), total(attacked, joined)):
        assert GONE in await attacked.why_not(plan)


async def test_a_newcomer_after_expiry_is_another_table(attacked):
    """From the moment on when its time is up, whether or not a node has swept it away yet."""
    victim = await attacked.victim()
    b = attacked.builder()
    (values_of(b, victim) * 2).store("copy")
    kind = (await attacked.run(b.plan())).stored["copy"]
    for node in attacked.nodes:
        catalog = node.gate.vault.catalog
        entry = catalog.find("table", "ages")
        catalog.put(attrs.evolve(entry, expires=time.time() - 1))
    b = attacked.builder()
    b.input("copy", kind).sum().reveal("total", to="analyst")
    assert GONE in await attacked.why_not(b.plan())
    for node in attacked.nodes:
        await node.gate.sweep()
    free = Allow(plans="any", rows=True)
    await attacked.ann.upload(SAMPLE, name="ages", key="id", owner="ann", allow=free)
    assert GONE in await attacked.why_not(b.plan())


async def test_another_upload_of_the_owners_is_another_table(attacked):
    """Whoever loosens her rules for new rows has not loosened them for the old ones."""
    await attacked.victim()
    joined = await attacked.joined()
    free = Allow(plans="any", rows=True)
    await attacked.hospital.upload(SAMPLE, name="ages", key="id", owner="hospital", allow=free)
    assert GONE in await attacked.why_not(look(attacked, joined))


async def test_a_table_that_goes_while_a_plan_waits_lets_nothing_out(attacked):
    victim = await attacked.victim(plans="approved")
    plan = total(attacked, victim)
    failed = []

    async def ask():
        try:
            await attacked.ask(plan)
        except TercetError as error:
            failed.append(str(error))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            waiting = await attacked.waiting()
            await attacked.hospital.drop("ages")
            free = Allow(plans="any", rows=True)
            await attacked.ann.upload(SAMPLE, name="ages", key="id", owner="ann", allow=free)
            await attacked.hospital.approve(waiting[0].number)
    assert failed


async def test_identities_stay_at_their_node(attacked):
    """Nobody can name one, as nobody is told any; they differ from node to node."""
    await attacked.victim()
    told = await attacked.ann.cluster.client.ask("entries")
    identities = {node.gate.vault.catalog.find("table", "ages").identity for node in attacked.nodes}
    assert len(identities) == 3
    assert not any(one in str(told) or one.encode() in msgpack.packb(told) for one in identities)


# -- names that people read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["аges", "Ages", "ages ", "age\u200bs", "ages\n", "ａｇｅｓ", "agés", "a\u0000ges", "ages\u202e"]
)
async def test_no_name_looks_like_anothers(attacked, name):
    await attacked.victim()
    with pytest.raises(ConsentError, match=r"looks like|no name that people|mixes letters"):
        await attacked.ann.desk.keep("table", name, b"x", [], Rules())


async def test_the_rows_of_a_value_are_those_that_were_reviewed(attacked):
    """Under the handle of her own numbers comes to lie another value, while her plan is let through."""
    victim = await attacked.victim()
    part = victim.parts[0]
    own = "her own"
    await attacked.ann.cluster.client.put(own, part.type, np.zeros(part.type.shape, dtype=np.uint64))
    b = attacked.builder("my own numbers")
    b.input(own, part.type).reveal("numbers", to="analyst")
    gates = [node.gate for node in attacked.nodes]
    plains = [gate._bound for gate in gates]
    swapped = []

    async def swap_after(number, plan):
        """What a race would do: right after each node has looked, its value is another one."""
        found = await plains[number](plan)
        if number not in swapped:
            swapped.append(number)
            gate = gates[number]
            gate.ledger._loose.pop(own)
            gate.ledger.deal(own, "ann", 0, memory=0)
        return found

    for number, gate in enumerate(gates):
        gate._bound = lambda plan, number=number: swap_after(number, plan)
    with pytest.raises(PlanError, match="was replaced meanwhile"):
        await attacked.run(b.plan())
    assert len(swapped) == 3
    del gates[0]._bound, gates[1]._bound, gates[2]._bound
    found = (await attacked.run(b.plan())).revealed["numbers"]
    assert not found.any()


async def test_models_and_predictions_work_as_before(attacked):
    rng = np.random.default_rng(3)
    x = rng.normal(size=ROWS)
    sick = (x + rng.logistic(size=ROWS) > 0).astype(int)
    table = await attacked.victim(min_count=10, columns={"id": np.arange(ROWS), "age": x, "sick": sick})
    model = await LogisticRegression().fit(table, target="sick", features=["age"])
    await model.save("risk")
    own = {"id": np.arange(5), "age": np.linspace(-1, 1, 5)}
    new = await attacked.ann.upload(
        own, name="new", key="id", owner="ann", allow=Allow(plans="any", rows=True)
    )
    found = await (await attacked.ann.model("risk")).predict_proba(new)
    risks = await found.reveal()
    assert np.all(np.diff(risks) > 0)
    assert np.all((risks > 0) & (risks < 1))
