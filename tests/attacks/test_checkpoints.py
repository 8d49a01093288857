"""Names under which nodes keep things for themselves: no member's plan, upload or store can use them.

A run that was interrupted goes on from values that the nodes wrote. Whoever could write them first, or have
others read in their place, would have the rest of an approved plan run on values of her own.
"""

from __future__ import annotations

import contextlib
import secrets

import attrs
import numpy as np
import pytest
import trio

from tercet.actors import course
from tercet.actors.rounds import Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.errors import ConsentError, PlanError, TercetError
from tercet.members.rules import Rules
from tercet.nodes.ledger import Ledger
from tercet.plans import Builder, Form, Type
from tercet.plans.parsing import read_plan
from tercet.plans.passes import checkpoint_handle, rest
from tercet.plans.plan import RESERVED
from tests.attacks.lake import ROWS, apart, column, values_of

KIND = Type(Form.RING, (ROWS,), 0, 2.0**20)
WORDS = np.zeros(ROWS, dtype=np.uint64)
INSIDE = [
    checkpoint_handle("x"),
    f"{RESERVED}{bytes(16).hex()}/flags",
    RESERVED,
    f"a{RESERVED}b",
    "a\nb",
    "",
    "x" * 600,
]


@pytest.mark.parametrize("handle", INSIDE)
def test_no_plan_names_what_nodes_keep_for_themselves(handle):
    b = Builder("peek", tile_rows=64)
    b.input(handle, KIND).store("fine")
    with pytest.raises(PlanError, match="is no handle"):
        read_plan(b.plan().to_bytes())
    b = Builder("poke", tile_rows=64)
    b.input("fine", KIND).store(handle)
    with pytest.raises(PlanError, match="is no handle"):
        read_plan(b.plan().to_bytes())


async def test_no_upload_names_it_either(attacked):
    client = attacked.ann.cluster.client
    for handle in INSIDE:
        with pytest.raises(PlanError, match="is no handle"):
            await client.put(handle, KIND, WORDS)
        with pytest.raises(TercetError):
            await attacked.ann.desk.keep("model", "m", b"", [handle], Rules())


def test_the_rest_of_a_plan_reads_no_value_of_a_members():
    """Whatever the plan itself reads, also under the name that a checkpoint had in an earlier release."""
    b = Builder("harmless", tile_rows=64)
    rows = b.input("rows", KIND)
    rows.checkpoint(0, "x")
    b.input("checkpoint x", KIND).reveal("my own numbers", to="analyst")
    (rows.sum()).reveal("total", to="analyst")
    left = rest(b.plan(), 0)
    (shown,) = [node for node in left.nodes if node.kind == "reveal" and node.get("name") != "total"]
    assert left.nodes[shown.args[0][0]].get("handle") == "checkpoint x"
    (total,) = [node for node in left.nodes if node.kind == "sum"]
    assert left.nodes[total.args[0][0]].get("handle") == checkpoint_handle("x")


def slow(attacked, table, own):
    """A plan with a checkpoint early on, and much to do after it."""
    b = attacked.builder("a mean, slowly")
    x = values_of(b, table)
    mine = b.input(*own)
    x.checkpoint(0, "x")
    mine.reveal("my own numbers", to="analyst")
    lazy = x
    for _ in range(60):
        lazy = lazy.bounded(2.0**20, "x").at_scale(lazy.scale + 1).rescale(lazy.scale)
    lazy.sum().reveal("total", to="analyst")
    return b.plan()


@contextlib.asynccontextmanager
async def broken_off(attacked, plan, run, monkeypatch):
    """Have a plan run until every node has its checkpoint; inside, the nodes have lost each other.

    Afterwards they are back, and the run has ended: with what is then in the list that this gives.
    """
    ended = []

    def endless(driver):
        class Endless(driver):
            async def run(self):
                await super().run()
                await trio.sleep_forever()

        return Endless

    async def ask():
        try:
            ended.append(await attacked.ann.cluster.client.run(plan, session=run))
        except TercetError as error:
            ended.append(error)

    async def reached():
        return all([(await node.gate.ledger.interrupted(run, "ann")).points for node in attacked.nodes])

    with trio.fail_after(120):
        async with attacked.signing(), trio.open_nursery() as nursery:
            with monkeypatch.context() as patched:
                patched.setattr(course, "Scheduler", endless(Scheduler))
                patched.setattr(course, "Lockstep", endless(Lockstep))
                nursery.start_soon(ask)
                while not await reached():  # noqa: ASYNC110
                    await trio.sleep(0.02)
            with apart(attacked):
                yield ended
            while not ended:  # noqa: ASYNC110
                await trio.sleep(0.02)


async def test_a_run_goes_on_from_what_the_nodes_wrote(attacked, monkeypatch):
    """With a value of hers under each name that a checkpoint had in an earlier release."""
    table = await attacked.victim()
    client, run = attacked.ann.cluster.client, secrets.token_bytes(16)
    for handle in ("checkpoint x", f"{run.hex()}/x"):
        await client.put(handle, KIND, WORDS)
    plan = slow(attacked, table, ("checkpoint x", KIND))
    resumed, resume = [], Ledger.resume

    async def noting(self, *args):
        resumed.append(args[3])
        return await resume(self, *args)

    monkeypatch.setattr(Ledger, "resume", noting)
    async with broken_off(attacked, plan, run, monkeypatch) as ended:
        pass
    assert resumed == [(run, 0)] * 3
    (found,) = ended
    assert found.interrupted == 1
    assert not found.revealed["my own numbers"].any()
    total = np.ldexp(found.revealed["total"], -column(table).schema.scale)
    np.testing.assert_allclose(total, np.linspace(20, 80, ROWS).sum(), rtol=1e-3)


async def test_a_run_does_not_go_on_with_other_inputs(attacked, monkeypatch):
    """What was checked before the interruption was checked of other numbers."""
    table = await attacked.victim()
    client, run = attacked.ann.cluster.client, secrets.token_bytes(16)
    await client.put("flags", KIND, WORDS + np.uint64(1))
    plan = slow(attacked, table, ("flags", KIND))
    async with broken_off(attacked, plan, run, monkeypatch) as ended:
        await client.drop(["flags"])
        await client.put("flags", KIND, (np.arange(ROWS) == 7).astype(np.uint64))
    (error,) = ended
    assert isinstance(error, ConsentError)
    assert "or one that read other values" in str(error)


# -- names of runs, and of values to come ------------------------------------------------------------------


async def test_no_run_takes_the_name_of_anothers(attacked):
    """Else its end would be the end of the other's: approvals, checkpoints and all."""
    table = await attacked.victim(plans="approved")
    b = attacked.builder("a total")
    values_of(b, table).sum().reveal("total", to="analyst")
    results = []

    async def ask():
        results.append(await attacked.ask(b.plan()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        (waiting,) = await attacked.waiting()
        own = attacked.builder("nothing")
        own.random_words(2, 3).reveal("words", to="insurer")
        for more in ([], [0.0, False], [60.0, True]):
            asking = [waiting.session, own.plan().to_bytes(), *more]
            with pytest.raises(PlanError, match="names are used once"):
                await attacked.insurer.cluster.client.ask("submit", asking)
            with pytest.raises(PlanError, match="the name of a job has 17 bytes"):
                await attacked.insurer.cluster.client.ask("submit", [asking[0] + b"\1", *asking[1:]])
        await attacked.hospital.approve(waiting.number)
    assert results[0].revealed["total"] > 0


async def test_nobody_takes_the_handles_of_a_plan_that_waits(attacked):
    """Everybody sees which; a value that lies there already would end the run."""
    table = await attacked.victim(plans="approved")
    b = attacked.builder("a total")
    values_of(b, table).sum().reshape(1).store("sum of ages")
    results = []

    async def ask():
        results.append(await attacked.ask(b.plan()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        (waiting,) = await attacked.waiting()
        with pytest.raises(PlanError, match="stored under 'sum of ages' already"):
            await attacked.insurer.cluster.client.put("sum of ages", KIND, WORDS)
        own = attacked.builder("mine")
        own.random_words(2, 3).store("sum of ages")
        with pytest.raises(PlanError, match="stored under 'sum of ages' already"):
            await attacked.insurer.cluster.client.run(own.plan())
        await attacked.hospital.approve(waiting.number)
    assert list(results[0].stored) == ["sum of ages"]


async def test_a_promise_in_the_type_of_an_input_is_none(attacked):
    """A plan cannot read a value as smaller than it was dealt."""
    table = await attacked.victim()
    part = table.parts[0]
    b = attacked.builder()
    b.input(part.handle, attrs.evolve(part.type, limit=1.0)).sum().reveal("sum", to="analyst")
    with pytest.raises(PlanError, match="reads it as"):
        await attacked.run(b.plan())
