"""What runs small plans: as the scheduler does to the last bit, in frames whose order says what they have."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import trio

from tercet.actors.lowering import MOST_STEPS, Allowance, Lowering, lower, runs_in_lockstep
from tercet.actors.rounds import Lockstep
from tercet.actors.values import FiledTiles, Stored
from tercet.errors import ProtocolError
from tercet.plans import Builder, Form, Plan, Type
from tercet.plans.passes import drop_dead
from tercet.plans.tiles import Costs, Layout, depths
from tercet.protocols.plain import Plain
from tercet.protocols.prg import Stream, StreamKey
from tercet.protocols.rep4 import Rep4
from tercet.protocols.replicated import Replicated
from tercet.protocols.shamir import Shamir
from tercet.testing.lockstep import parties

PROTOCOLS = [Plain, Replicated, Shamir, Rep4]


def alike(one, other):
    """Whether two outcomes of one party are the same to the last bit."""
    assert one.symbols == other.symbols
    assert one.told.keys() == other.told.keys()
    for name, told in one.told.items():
        np.testing.assert_array_equal(told, other.told[name])
    assert one.stored.keys() == other.stored.keys()
    for handle, value in one.stored.items():
        for a, b in zip(value.tiles, other.stored[handle].tiles, strict=True):
            np.testing.assert_array_equal(a.data, b.data)
    for a, b in zip(one.revealed, other.revealed, strict=True):
        assert a[:3] == b[:3]
        for x, y in zip(a[3], b[3], strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 200])
async def test_every_kind_of_node_as_the_scheduler_has_it(
    protocol, rows, example, scheduled, in_lockstep, verified
):
    one = example(rows, 1 << 16)
    dealt = {}
    each = [parties(protocol, seed=b"alike") for _ in range(2)]
    revealed, outcomes = await in_lockstep(
        one.plan, protocol, one.inputs, dealt=dealt, protocols=each[0], together=False
    )
    if protocol is not Shamir:  # whose truncation errs by more than the example allows
        verified(one, revealed)
    _, expected = await scheduled(one.plan, protocol, {}, dealt=dealt, protocols=each[1])
    for ours, theirs in zip(outcomes, expected, strict=True):
        alike(ours, theirs)
        assert ours.statistics.rounds == theirs.statistics.rounds
        assert ours.statistics.bytes_sent == theirs.statistics.bytes_sent


@pytest.mark.parametrize("protocol", [Plain, Replicated])
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 200])
async def test_every_kind_of_node_together_with_others(
    protocol, rows, example, scheduled, in_lockstep, verified
):
    one = example(rows, 1 << 16)
    dealt = {}
    revealed, outcomes = await in_lockstep(one.plan, protocol, one.inputs, dealt=dealt)
    verified(one, revealed)
    _, expected = await in_lockstep(one.plan, protocol, {}, dealt=dealt, together=False)
    sent = [sum(outcome.statistics.bytes_sent for outcome in each) for each in (outcomes, expected)]
    assert len({outcome.statistics.rounds for outcome in outcomes}) == 1
    assert sent[0] <= 1.2 * sent[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_no_stream_is_drawn_twice_and_both_draw_the_same(
    protocol, example, scheduled, in_lockstep, monkeypatch
):
    one = example(70, 1 << 16)
    dealt, drawn = {}, []

    def stream(self, key, tag, purpose):
        drawn.append((self.party, key, f"{tag}/{purpose}"))
        return Stream(key, f"{tag}/{purpose}".encode())

    monkeypatch.setattr(protocol, "stream", stream)
    sets = []
    for run in (functools.partial(in_lockstep, together=False), scheduled, in_lockstep):
        drawn.clear()
        inputs = {} if dealt else one.inputs
        await run(one.plan, protocol, inputs, dealt=dealt, protocols=parties(protocol, seed=b"alike"))
        assert 0 < len(set(drawn)) == len(drawn)
        nonces = {(key, StreamKey(key).nonce(name.encode())) for _, key, name in set(drawn)}
        assert len(nonces) == len({(key, name) for _, key, name in drawn})
        sets.append(set(drawn))
    assert sets[0] == sets[1]
    assert protocol is Plain or len(sets[2]) < len(sets[0])


@pytest.mark.parametrize("seed", range(6))
async def test_parties_that_are_ahead_of_others(seed, example, in_lockstep, verified):
    one = example(150, 1 << 16)
    revealed, outcomes = await in_lockstep(one.plan, Replicated, one.inputs, mail_seed=seed)
    verified(one, revealed)
    assert len({outcome.statistics.rounds for outcome in outcomes}) == 1


def test_what_runs_in_lockstep(example):
    assert runs_in_lockstep(drop_dead(example(200, 1 << 16).plan))
    assert not runs_in_lockstep(drop_dead(example(200, 64).plan))  # many tiles
    assert not runs_in_lockstep(drop_dead(example(50_000, 1 << 16).plan))  # long steps


def table(b, *shape, name="x"):
    return b.input(name, Type(Form.RING, shape, 16, 2.0**20))


@pytest.mark.parametrize(
    "write",
    [
        lambda b: table(b, 1 << 10, 1) * table(b, 1 << 10, name="y"),  # a long result of short factors
        lambda b: table(b, 4096, 64).dot(table(b, 4096, 64)),  # seconds of products
        lambda b: table(b, 500, 500) @ table(b, 500, 500),
        lambda b: [table(b, 1 << 17, name=str(i)).rescale(8) for i in range(150)],  # all at once in memory
    ],
)
def test_what_would_hold_up_the_event_loop_or_fill_the_memory_is_for_the_scheduler(write):
    b = Builder("large", tile_rows=1 << 20)
    write(b)
    assert not runs_in_lockstep(b.plan())


def test_more_nodes_than_can_be_looked_at_between_two_heartbeats_are_for_the_scheduler():
    nodes = truncation().nodes
    assert runs_in_lockstep(Plan("long", nodes * (MOST_STEPS // len(nodes))))
    assert not runs_in_lockstep(Plan("longer", nodes * (MOST_STEPS // len(nodes) + 1)))


def test_products_of_small_tables_run_in_lockstep():
    b = Builder("gram", tile_rows=1 << 16)
    x = table(b, 20, 4000)
    (x.dot(x).rescale(16) @ x).rescale(16).reveal("r", to="analyst")
    assert runs_in_lockstep(b.plan())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_may_take_what_its_nodes_declare(protocol):
    plan = truncation()
    costs = Costs(Layout(plan, {}), protocol, protocol.sizes[0])
    lowering = Lowering(plan, protocol, protocol.sizes[0])
    each = [costs.of(index, 0).sent for index in range(len(plan.nodes))]
    assert lowering.most_bytes == [sum(sent) for sent in zip(*each, strict=True)]
    assert lowering.most_rounds == max(depths(costs).values())


def test_lowering_is_done_once_for_a_plan():
    plan = truncation()
    assert lower(plan, Replicated, 3) is lower(plan, Replicated, 3)
    assert lower(plan, Plain, 3) is not lower(plan, Replicated, 3)


# -- mail that no run of the plan sends ----------------------------------------------------------------------


def truncation(rows=10):
    b = Builder("truncation", tile_rows=1 << 16)
    with b.scope("scores"):
        b.input("x", Type(Form.RING, (rows,), 16, 2.0**40)).rescale(8).rescale(4).reveal("r", to="analyst")
    return b.plan()


@pytest.mark.parametrize(
    ("number", "size"),
    [(0, 8), (5, 8), (-1, 8), (True, 8), ("1", 8), (None, 8), (1.0, 8), ([1], 8), (1, 0), (1, 1 << 20)],
)
def test_an_allowance_refuses(number, size):
    allowance = Allowance(lower(truncation(), Replicated, 3))
    with pytest.raises(ProtocolError, match=r"party 2 sent \d+ bytes (for|up to) round"):
        allowance.charge(2, number, size)


def test_an_allowance_adds_up_and_takes_a_round_once():
    lowering = lower(truncation(), Replicated, 3)
    allowance = Allowance(lowering)
    allowance.charge(1, 1, 80)
    with pytest.raises(ProtocolError, match="80 bytes for round 1 after round 1"):
        allowance.charge(1, 1, 80)
    allowance.charge(1, 2, lowering.most_bytes[1] - 80)
    with pytest.raises(ProtocolError, match=f"declares {lowering.most_bytes[1]} in all"):
        allowance.charge(1, 3, 8)
    allowance.charge(2, 3, 8)


def lone(plan):
    share = parties(Replicated)[0].spec((10,), scale=16)
    kind = Type(Form.RING, (10,), 16, 2.0**40)

    async def ignore(number, frames):
        await trio.lowlevel.checkpoint()

    return Lockstep(plan, parties(Replicated)[0], {"x": Stored(kind, [share], 1 << 16)}, send=ignore)


@pytest.mark.parametrize("size", [1, 9, 11, 1000])
async def test_a_frame_of_another_length_is_refused(size):
    driver = lone(truncation())
    for peer in (1, 2):
        driver.take(peer, 1, np.zeros(size, dtype=np.uint64))
    with pytest.raises(
        ProtocolError, match=rf"party [12] sent {size} words in round 1, where \d+ are due"
    ) as caught:
        with trio.fail_after(60):
            await driver.run()
    assert "node 1 (truncate in scores)" in str(caught.value)


async def test_a_round_that_a_peer_has_passed_over_is_not_waited_for():
    driver = lone(truncation())
    for peer in (1, 2):
        driver.take(peer, 2, np.zeros(10, dtype=np.uint64))
    with pytest.raises(ProtocolError, match=r"party [12] sent 0 words in round 1, where \d+ are due"):
        with trio.fail_after(60):
            await driver.run()


async def test_a_frame_beyond_the_last_round_is_refused(in_lockstep):
    b = Builder("at once", tile_rows=1 << 16)
    b.input("x", Type(Form.RING, (10,), 16, 2.0**40)).store("y")
    driver = lone(b.plan())
    driver.take(1, 1, np.zeros(3, dtype=np.uint64))
    with pytest.raises(ProtocolError, match=r"party \[1\] sent more rounds than plan 'at once' has"):
        await driver.run()


# -- files ---------------------------------------------------------------------------------------------------


class Slow(FiledTiles):
    def __init__(self, share):
        self.share, self.threads = share, []

    def __len__(self):
        return 1

    def at(self, number):
        assert number == 0
        self.threads.append(trio.lowlevel.in_trio_run())
        return self.share

    def ready(self, tile):
        return False


async def test_values_in_files_are_read_in_a_thread():
    b = Builder("at once", tile_rows=1 << 16)
    kind = Type(Form.RING, (10,), 16, 2.0**40)
    b.input("x", kind).store("y")
    protocol = parties(Replicated)[0]
    tiles = Slow(protocol.spec((10,), scale=16))

    async def ignore(number, frames):
        await trio.lowlevel.checkpoint()

    outcome = await Lockstep(b.plan(), protocol, {"x": Stored(kind, tiles, 1 << 16)}, send=ignore).run()
    assert list(outcome.stored) == ["y"]
    assert tiles.threads == [False]
