"""Values leave a run once the protocol has checked them, and none of them before all are."""

from __future__ import annotations

import contextlib
from collections import Counter

import attrs
import numpy as np
import pytest
import trio

import tercet
from tercet.actors import jobs, transcript
from tercet.actors.estimate import explain
from tercet.actors.replay import replay
from tercet.actors.scheduler import Scheduler
from tercet.comparison import find
from tercet.errors import PlanError, PrivacyError, ProtocolError, TercetError
from tercet.plans import Builder, Form, Type
from tercet.plans.drawing import to_svg
from tercet.plans.parsing import read_plan
from tercet.plans.passes import drop_dead
from tercet.plans.tiles import Costs, Layout, Ledger, depths
from tercet.protocols import registry
from tercet.protocols.base import declared
from tercet.protocols.domains import BITS, Z64
from tercet.protocols.plain import Plain
from tercet.protocols.rep4 import Rep4
from tercet.protocols.replicated import Replicated
from tercet.protocols.shamir import Shamir
from tercet.testing.lockstep import lockstep, parties, share
from tests.protocols.checks_first import ChecksFirst

KIND = Type(Form.RING, (10,), 8, 2.0**20)
WORDS = np.arange(10, dtype=np.uint64) << np.uint64(8)
BYTES = 2 * 2 * 32
"""What a party of `ChecksFirst` sends for a value: two digests to each peer."""


@pytest.fixture
def checks_first(monkeypatch):
    """The test's protocol, by its name."""
    path = f"{ChecksFirst.__module__}:{ChecksFirst.__name__}"
    monkeypatch.setitem(registry.BUILT_IN, ChecksFirst.name, path)
    return ChecksFirst.name


def two_values():
    """A plan that reveals one stored value as it is and, some rounds later, what it makes of another."""
    b = Builder("two values", tile_rows=64)
    x, y = b.input("x", KIND), b.input("y", KIND)
    x.reveal("x", to="analyst")
    late = (x * x).rescale(8).bounded(2.0**20, "test") * x
    (late.rescale(8).bounded(2.0**20, "test") - y).reveal("late", to="analyst")
    y.reveal("y", to="analyst")
    return b.plan()


# -- in a plan -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "rounds", "sent"), [(Replicated, 0, 0), (ChecksFirst, 1, BYTES)])
async def test_reveals_that_are_ready_together_share_rounds(protocol, rounds, sent, scheduled):
    b = Builder("many", tile_rows=64)
    x = b.input("x", KIND)
    for number in range(9):
        (x + number).reveal(f"x + {number}", to="analyst")
    revealed, outcomes = await scheduled(b.plan(), protocol, {"x": (KIND, WORDS)})
    for number in range(9):
        np.testing.assert_array_equal(revealed[f"x + {number}"], np.arange(10.0) + number)
    for outcome in outcomes:
        assert [name for name, *_ in outcome.revealed] == [f"x + {number}" for number in range(9)]
        assert outcome.statistics.rounds == rounds
        assert outcome.statistics.bytes_sent == 9 * sent


@pytest.mark.parametrize(("threads", "seed"), [(1, None), (2, 1)])
async def test_every_kind_of_value_leaves_checked(threads, seed, example, scheduled, verified, monkeypatch):
    monkeypatch.setattr("tercet.actors.scheduler.HEAVY_WORDS", 100)
    checked, deliver = Counter(), Scheduler.deliver

    def noted(self, peer, node, tile, step, arrays):
        if self.plan.nodes[node].kind == "reveal":
            checked[node] += sum(array.nbytes for array in arrays)
        deliver(self, peer, node, tile, step, arrays)

    monkeypatch.setattr(Scheduler, "deliver", noted)
    one = example(200, 64)
    revealed, outcomes = await scheduled(one.plan, ChecksFirst, one.inputs, threads=threads, mail_seed=seed)
    verified(one, revealed)
    plan = drop_dead(one.plan)
    reveals = [index for index, node in enumerate(plan.nodes) if node.kind == "reveal"]
    assert checked == dict.fromkeys(reveals, 3 * BYTES)
    for outcome in outcomes:
        assert [name for name, *_ in outcome.revealed] == [plan.nodes[index].get("name") for index in reveals]


async def test_what_is_declared_is_what_runs(scheduled):
    plan = two_values()
    _, outcomes = await scheduled(plan, ChecksFirst, {"x": (KIND, WORDS), "y": (KIND, WORDS)})
    costs = Costs(Layout(drop_dead(plan), {}), ChecksFirst, 3)
    declared_rounds = max(depths(costs).values())
    plain = Costs(Layout(drop_dead(plan), {}), Replicated, 3)
    assert declared_rounds == max(depths(plain).values()) + 1
    for party, outcome in enumerate(outcomes):
        indices = range(len(costs.layout.plan.nodes))
        sent, without = (sum(one.of(index, 0).sent[party] for index in indices) for one in (costs, plain))
        assert (outcome.statistics.rounds, outcome.statistics.bytes_sent) == (declared_rounds, sent)
        assert sent == without + 3 * BYTES


def test_a_ledger_knows_what_a_reveal_sends():
    plan = two_values()
    index = next(index for index, node in enumerate(plan.nodes) if node.kind == "reveal")
    book = Ledger(Costs(Layout(plan, {}), ChecksFirst, 3))
    book.charge(1, [[index, 0, 0, [4, 4]]], 64)
    with pytest.raises(ProtocolError, match=r"up to step 1 of node .* \(reveal\).* 16 words in 1 rounds"):
        book.charge(1, [[index, 0, 1, [4]]], 32)
    with pytest.raises(ProtocolError, match=r"declares 16 words"):
        book.charge(1, [[index, 0, 0, [9]]], 72)
    with pytest.raises(ProtocolError, match=r"declares 0 words in 0 rounds"):
        Ledger(Costs(Layout(plan, {}), Replicated, 3)).charge(1, [[index, 0, 0, [1]]], 8)


def test_nothing_reads_what_leaves():
    plan = two_values()
    index = next(index for index, node in enumerate(plan.nodes) if node.kind == "reveal")
    reader = attrs.evolve(plan.nodes[0], kind="sum", args=((index, 0),), attributes=())
    read = attrs.evolve(plan, nodes=(*plan.nodes, reader))
    with pytest.raises(PlanError, match=rf"a sum node reads node {index} \(reveal\), which only leaves"):
        read_plan(read.to_bytes())


# -- in a protocol -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [Plain, Replicated, Shamir, Rep4])
def test_products_are_not_revealed(protocol):
    session = [one.bind("product") for one in parties(protocol)]
    shares = share(session, WORDS)
    with pytest.raises(ProtocolError, match="reduce the product first"):
        lockstep([one.reveal(one.mul_local(x, x)) for one, x in zip(session, shares, strict=True)])


class OpensFirst(Replicated):
    @declared(lambda self, x: self.cost("open", x))
    def reveal(self, x):
        yield from self.open(x)
        return self.export(x)


async def test_a_reveal_opens_nothing_to_the_nodes(open_cluster_of_nodes):
    async with open_cluster_of_nodes(OpensFirst) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        b = Builder("opens", tile_rows=64)
        b.input("x", KIND).reveal("x", to="analyst")
        with pytest.raises(PrivacyError, match=r"node 1 \(reveal\).*tried to open 10 words"):
            await client.run(b.plan())


def alone(operations):
    """What becomes of each party: its result or its error, though others go on."""
    ends = [None] * len(operations)
    got = [None] * len(operations)
    while any(end is None for end in ends):
        rounds = [None] * len(operations)
        for party, operation in enumerate(operations):
            if ends[party] is None:
                try:
                    rounds[party] = operation.send(got[party])
                except StopIteration as stop:
                    ends[party] = stop.value
                except TercetError as error:
                    ends[party] = error
        got = [{} for _ in operations]
        for sender, one in enumerate(rounds):
            for receiver, arrays in one.send.items() if one is not None else ():
                got[receiver].setdefault(sender, []).extend(arrays)
    return ends


@pytest.mark.parametrize("domain", [Z64, BITS])
@pytest.mark.parametrize("party", range(3))
@pytest.mark.parametrize("component", range(2))
def test_a_changed_share_is_noticed_by_every_party_alone(party, component, domain):
    session = [one.bind("reveal") for one in parties(ChecksFirst)]
    shares = share(session, WORDS, domain=domain)
    data = shares[party].data.copy()
    data[component, 3] ^= np.uint64(1)
    shares[party] = shares[party].like(data)
    ends = alone([one.reveal(x) for one, x in zip(session, shares, strict=True)])
    assert all(isinstance(end, ProtocolError) for end in ends)
    other = (party - 1) % 3 if component == 0 else (party + 1) % 3
    for judge, end in enumerate(ends):
        pair = {party, other} if judge not in (party, other) else {judge, *{party, other} - {judge}}
        assert {int(word) for word in str(end).split() if word in "012"} >= pair


# -- at nodes ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answers():
    """What nodes of this process answer to runs, in order."""
    given, plain = [], jobs.answer

    def noted(outcome):
        given.append([name for name, *_ in outcome.revealed])
        return plain(outcome)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs, "answer", noted)
        yield given


def tamper(party, handle, component=1):
    """Change one word of a party's share of a stored value."""
    stored = party.store[handle]
    data = stored.tiles[0].data.copy()
    data[component, 3] ^= np.uint64(1 << 20)
    party.store[handle] = attrs.evolve(stored, tiles=[stored.tiles[0].like(data)])


@pytest.mark.parametrize("party", range(3))
async def test_a_changed_share_ends_the_run_before_any_party_answers(party, open_cluster_of_nodes):
    """Though its first value has passed every check, some rounds before the other one fails."""
    async with open_cluster_of_nodes(ChecksFirst) as nodes:
        client = await nodes.client()
        for handle in "xy":
            await client.put(handle, KIND, WORDS)
        with answers() as given:
            result = await client.run(two_values())
        np.testing.assert_array_equal(result.revealed["x"], np.arange(10.0))
        np.testing.assert_allclose(result.revealed["late"], np.arange(10.0) ** 3 - np.arange(10), atol=1.0)
        assert given == [["x", "late", "y"]] * 3
        tamper(nodes.parties[party], "y")
        with (
            answers() as given,
            pytest.raises(ProtocolError, match=r"node \d+ \(reveal\), round 1: .* hold different"),
        ):
            await client.run(two_values())
        await until_over(nodes)
        assert given == []
        assert [one.failed for one in nodes.parties] == [1, 1, 1]
        b = Builder("x alone", tile_rows=64)
        b.input("x", KIND).reveal("x", to="analyst")
        np.testing.assert_array_equal((await client.run(b.plan())).revealed["x"], np.arange(10.0))


async def until_over(nodes):
    for one in nodes.parties:
        await one.until_idle()


class ComparesNoInputs(Replicated):
    def held_alike(self, x):
        return {}


async def test_without_a_check_the_receiver_is_the_first_to_notice(open_cluster_of_nodes):
    async with open_cluster_of_nodes(ComparesNoInputs) as nodes:
        client = await nodes.client()
        for handle in "xy":
            await client.put(handle, KIND, WORDS)
        await client.run(two_values())  # what was uploaded is compared when it is first read, and not again
        tamper(nodes.parties[1], "y")
        with answers() as given, pytest.raises(ProtocolError, match="disagree on component"):
            await client.run(two_values())
        assert given == [["x", "late", "y"]] * 3


async def test_a_job_keeps_nothing_of_a_run_that_did_not_pass(open_cluster_of_nodes):
    async with open_cluster_of_nodes(ChecksFirst) as nodes:
        client = await nodes.client()
        for handle in "xy":
            await client.put(handle, KIND, WORDS)
        tamper(nodes.parties[2], "y")
        job = await client.submit(two_values())
        with pytest.raises(ProtocolError, match="hold different"):
            await client.fetch(job)


def revealing(plan):
    return sum(node.kind == "reveal" for node in plan.nodes)


def test_recordings_drawings_and_predictions_have_the_rounds_of_reveals(checks_first):
    with tercet.local(protocol=checks_first) as lake, transcript.recording() as tapes:
        find("operations")(lake, 70)
        phases = [phase for phase in lake.phases if phase.name != "upload"]
    for run, phase in zip(transcript.runs(tapes), phases, strict=True):
        said = transcript.conversation(run)
        sent = [sum(8 * line.words for line in said if line.sender == party) for party in range(3)]
        assert tuple(sent) == phase.bytes_sent
        assert max(line.round for line in said) == phase.rounds
        reveals = [line for line in said if "reveal" in line.node]
        assert sum(8 * line.words for line in reveals) == 3 * BYTES * len({line.node for line in reveals})
        assert len({line.node for line in reveals}) == revealing(run[0].plan) > 0
    for tape in tapes:
        again = trio.run(replay, tape)
        assert again.differing == 0
        assert len(again.outcome.revealed) == revealing(tape.plan)
    plan = two_values()
    told, plain = explain(plan, checks_first), explain(plan)
    assert told.exact
    assert told.rounds == plain.rounds + 1
    assert told.seconds > plain.seconds
    (part,) = [part for part in told.by_kind if part.kind == "reveal"]
    assert (part.nodes, part.bytes_sent) == (3, 3 * 3 * BYTES)
    assert "<svg" in to_svg(plan, checks_first)
