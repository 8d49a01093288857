"""A plan means the same however many workers a party has, whatever the order in which anything arrives."""

from __future__ import annotations

import functools
import itertools
import math
import random
import re
from collections import ChainMap, Counter, deque
from types import SimpleNamespace

import numpy as np
import pytest
import trio
import trio.testing

from tercet.actors.ends import Ends
from tercet.actors.fellows import Fellows
from tercet.actors.parts import Handover, Parcel, Part
from tercet.actors.scheduler import Scheduler
from tercet.actors.scratch import Scratch
from tercet.actors.session import Session
from tercet.actors.values import Stored, cut
from tercet.errors import PlanError, ProtocolError
from tercet.plans import Builder, Form, Type
from tercet.plans.kinds import KINDS, Context, Tiling
from tercet.plans.passes import drop_dead
from tercet.plans.shards import NODE, Shards, stores
from tercet.plans.tiles import Costs, Layout, Ledger
from tercet.plans.types import Node, word_shape
from tercet.protocols import registry
from tercet.protocols.base import Share
from tercet.protocols.domains import Z64, decode
from tercet.protocols.together import Team
from tercet.testing.lockstep import parties

NAMES = ["plain", "replicated", "rep4"]


async def run_shared_out(plan, name, inputs, workers, seed, slow=None):
    """Every member of every party in this event loop; between two of them, order is kept, and else mixed up.

    What the node of a `slow` party sends comes after all else. Gives the revealed numbers by name, and all
    that members have run: (party, member, node, tile). At the end, nothing is held but what the run is to
    keep, by nodes.
    """
    plan, protocol = drop_dead(plan), registry.get(name)
    size = protocol.sizes[0]
    members = [NODE, *range(workers)]
    each = {member: parties(protocol, seed=b"%d/%d" % (seed, member)) for member in members}
    mixed, queues, arrived, ran = random.Random(seed), {}, trio.Event(), []
    drivers, ledgers, outcomes = {}, {}, {}

    def put(way, what):
        queues.setdefault(way, deque()).append(what)
        arrived.set()

    def sends(party, member):
        async def to_peers(outbox):
            await trio.lowlevel.checkpoint()
            for peer, messages in outbox.items():
                entries = [[*names, [array.size for array in arrays]] for *names, arrays in messages]
                words = [np.array(array).reshape(-1) for message in messages for array in message[3]]
                put(((party, member), (peer, member)), (entries, np.concatenate(words)))

        async def to_members(parcels):
            await trio.lowlevel.checkpoint()
            for other, some in parcels.items():
                for parcel in some:
                    header, words = parcel.to_wire()
                    flat = [np.array(array).reshape(-1) for array in [*words, np.empty(0, np.uint64)]]
                    put(((party, member), (party, other)), (type(parcel), header, np.concatenate(flat)))

        return to_peers, to_members

    begin = Scheduler._begin

    class Watched(Scheduler):
        def _begin(self, instance):
            ran.append((self.protocol.party, self._member, *instance.name))
            return begin(self, instance)

    stored = {}
    for handle, (kind, words) in inputs.items():
        shape = word_shape(kind, {})
        parts = protocol.deal(words.reshape(shape), domain=kind.form.domain, parties=size)
        for party, part in enumerate(parts):
            share = each[NODE][party].accept(part, domain=kind.form.domain, shape=shape, scale=kind.scale)
            stored.setdefault(party, {})[handle] = Stored(kind, cut(share, plan.tile_rows), plan.tile_rows)
    for party in range(size):
        for member in members:
            to_peers, to_members = sends(party, member)
            drivers[party, member] = Watched(
                plan,
                each[member][party],
                stored[party] if member == NODE else {},
                send=to_peers,
                part=Part(member, workers, to_members),
            )
            crew = 0 if member == NODE else workers
            known = ChainMap(drivers[party, member]._symbols, dict(plan.maxima))
            layout = Layout(plan, known, workers=crew, protocol=protocol)
            ledgers[party, member] = Ledger(Costs(layout, protocol, size))

    async def carry():
        nonlocal arrived
        while True:
            await arrived.wait()
            arrived = trio.Event()
            while ways := [way for way, queue in queues.items() if queue]:
                quick = [way for way in ways if way[0] != (slow, NODE)]
                if not quick:
                    await trio.testing.wait_all_tasks_blocked()
                    quick = [way for way, queue in queues.items() if queue and way[0] != (slow, NODE)]
                sender, receiver = way = mixed.choice(quick or ways)
                first, second, *words = queues[way].popleft()
                if sender[0] == receiver[0]:
                    drivers[receiver].receive(first.read(second, *words))
                else:
                    ledgers[receiver].charge(sender[0], first, second.nbytes)
                    drivers[receiver].take(sender[0], first, second)
                if mixed.random() < 0.3:
                    await trio.lowlevel.checkpoint()

    async def run_party(party):
        async with trio.open_nursery() as nursery:
            for worker in range(workers):
                nursery.start_soon(drivers[party, worker].run)
            outcomes[party] = await drivers[party, NODE].run()
            for worker in range(workers):
                drivers[party, worker].end()

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry)
            async with trio.open_nursery() as running:
                for party in range(size):
                    running.start_soon(run_party, party)
            nursery.cancel_scope.cancel()
    for (_, member), driver in drivers.items():
        values = driver._flow._values.items()
        left = [ref for ref, value in values if any(tile is not None for tile in value.tiles)]
        assert all(member == NODE and Ends.takes(plan.nodes[index]) for index, _ in left), left
    revealed = {}
    for number, (what, _, kind, _) in enumerate(outcomes[0].revealed):
        exports = [outcomes[party].revealed[number][3] for party in range(size)]
        words = protocol.combine(exports, domain=kind.form.domain, shape=word_shape(kind, {}))
        revealed[what] = decode(words, kind.scale) if kind.form is Form.RING else words
    return revealed, [outcomes[party] for party in range(size)], ran


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
async def test_every_kind_of_node(name, workers, example, verified):
    """Each instance runs at one member of each party, the same at all, and members share the work."""
    one = example(333, 64)
    revealed, outcomes, ran = await run_shared_out(one.plan, name, one.inputs, workers, seed=workers)
    verified(one, revealed)
    assert all(outcome.symbols == one.symbols for outcome in outcomes)
    assert len(outcomes[0].stored["joined"].tiles) == -(-one.symbols["both"] // 64)
    assert len(ran) == len(set(ran))
    by_party = [{found[1:] for found in ran if found[0] == party} for party in range(len(outcomes))]
    assert all(found == by_party[0] for found in by_party)
    instances = [names for _, *names in by_party[0]]
    assert len(instances) == len({tuple(names) for names in instances})
    assert {member for member, *_ in by_party[0]} == {NODE, *range(workers)}


@pytest.mark.parametrize("name", ["plain", "replicated"])
async def test_everything_in_files(name, example, verified, tmp_path, monkeypatch):
    """Members with a scratch, which may read a few rows in random order."""
    scratch, made = Scratch(tmp_path, above=0, reach=1000), Counter()
    init = Scheduler.__init__

    def with_scratch(driver, *args, **options):
        init(driver, *args, scratch=scratch, **options)
        driver.protocol.allocate = functools.partial(allocate, driver._member)

    def allocate(member, shape):
        made[member] += math.prod(shape)
        return scratch.empty(shape)

    monkeypatch.setattr(Scheduler, "__init__", with_scratch)
    one = example(333, 64)
    revealed, _, _ = await run_shared_out(one.plan, name, one.inputs, 2, seed=2)
    verified(one, revealed)
    assert min(made[0], made[1]) > 333 * 64 > made[NODE]


@pytest.mark.parametrize("seed", range(3))
async def test_tables_shorter_than_the_workers_are_many(seed, example, verified):
    one = example(129, 64)
    revealed, _, _ = await run_shared_out(one.plan, "replicated", one.inputs, 5, seed)
    verified(one, revealed)


@pytest.mark.parametrize(("name", "slow"), [("shamir", 0), ("rep4", 0), ("replicated", 1)])
@pytest.mark.parametrize("kind", ["shuffle", "sort"])
async def test_rows_that_peers_know_earlier(kind, name, slow):
    """Worker 1 has more of 126 rows than it would have of 150, the most that there may be."""
    b = Builder("kept", tile_rows=64)
    numbers = Type(Form.RING, (150,), 0, 2.0**10)
    x = b.input("x", numbers)
    kept = x.take(b.apply("ones", (x < 126).to_ring().open("kept"), rows="kept"))
    (moved,) = b.apply_all("shuffle", kept) if kind == "shuffle" else b.apply_all("sort", kept, bits=12)
    moved.reveal("rows", to="analyst")
    words = np.arange(150, dtype=np.uint64)
    revealed, _, _ = await run_shared_out(b.plan(), name, {"x": (numbers, words)}, 2, 5, slow)
    assert np.sort(revealed["rows"]).tolist() == list(range(126))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_table_without_rows_has_none_of_a_number(workers):
    """With workers, each says so before it waits for the others; places without a row are zeros."""
    (protocol,) = parties(registry.get("plain"))
    node, context = Node("take", ((0, 0), (1, 0)), (("table", 0),), ()), Context({}, 0)
    x = Share(Z64, np.zeros((1, 0), np.uint64))
    protocol.team = Team(0, workers, 64, (0, 2)) if workers else None

    def take(*places):
        made = KINDS["take"].run(node, protocol, [x, np.array([places]).view(np.uint64)], context)
        return made.data.tolist()

    assert take(-1, -1) == [[0, 0]]
    with pytest.raises(PlanError, match="of a table that has none"):
        take(-1, 0)


@pytest.mark.parametrize("tiles", [1, 2, 5, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_each_tile_has_one_member_in_blocks(tiles, workers):
    b = Builder("sum", tile_rows=64)
    x = b.input("x", Type(Form.RING, (64 * tiles,), 8, 2.0**11))
    (x * x).sum().reveal("sum", to="analyst")
    plan = b.plan()
    shards = Shards(Layout(plan, {}, workers=workers))
    for index, node in enumerate(plan.nodes):
        tiling = KINDS[node.kind].tiling
        shares = [list(shards.share(member, index)) for member in (NODE, *range(workers))]
        count = 1 if tiling is Tiling.WHOLE or node.kind == "input" else shards._layout.tiles(index)
        if node.kind != "input":
            assert [*itertools.chain(*shares)] == list(range(count))
        for member, share in zip((NODE, *range(workers)), shares, strict=True):
            assert all(shards.may_run(member, index, tile) for tile in share)
    spread = [len(shards.block(worker, tiles)) for worker in range(workers)]
    assert max(spread) - min(spread) <= 1


def test_workers_write_what_they_make_and_no_more():
    """What the node makes, and what only follows from that row by row, the node stores itself."""
    b = Builder("stores", tile_rows=64)
    x, y = (b.input(name, Type(Form.RING, (640,), 8, 2.0**11)) for name in "xy")
    order = x.take(b.constant(np.arange(640)[None, ::-1].copy()))
    words = b.random_words(1, 640)
    for handle, value in {
        "product": x * y,
        "follows from a product": (x * y) + 1,
        "follows from inputs": x + y,
        "made together": order,
        "follows from what was made together": order + 1,
        "the node's": words,
        "follows from the node's": b.apply("smear", words),
        "the node's times others": words & b.apply("masks", x < 0),
        "a sum": (x * y).sum(),
    }.items():
        value.store(handle)
    plan = drop_dead(b.plan())
    protocol = registry.get("replicated")
    found = stores(plan, protocol)
    assert {plan.nodes[index].get("handle") for index in found} == {
        "product",
        "follows from a product",
        "follows from inputs",
        "made together",
        "follows from what was made together",
        "the node's times others",
    }
    layout = Layout(plan, {}, workers=3, protocol=protocol)
    shards = Shards(layout, found)
    assert [shards.workers_of(index) for index in found] == 6 * [[0, 1, 2]]
    assert not any(Shards(layout).workers_of(index) for index in found)


async def test_a_message_for_a_tile_of_another_member_is_refused(example):
    """As from a party that has another number of workers."""
    plan = drop_dead(example(333, 64).plan)
    index = next(number for number, node in enumerate(plan.nodes) if node.kind == "truncate")

    async def nowhere(_):
        await trio.lowlevel.checkpoint()

    protocol = registry.get("replicated")
    part = Part(1, 2, nowhere)
    driver = Scheduler(plan, parties(protocol)[0], {}, send=nowhere, part=part)
    refused = "does not run it; both must have as many workers"
    with pytest.raises(ProtocolError, match=refused):
        driver.deliver(1, index, 0, 0, [])
    session = Session(b"early", plan, protocol, 0, 3, part=part)
    assert not session.admit(1, [[index, 0, 0, [1]]], 8)  # before the run begins, so it takes no memory
    assert re.search(refused, str(session.error))


async def test_tiles_of_workers_pile_up_in_scratch(tmp_path):
    """As those that a node has made itself."""
    b = Builder("squares", tile_rows=64)
    x = b.input("x", Type(Form.RING, (512,), 8, 2.0**11))
    (x * x).store("squares")
    plan = drop_dead(b.plan())
    ref = plan.nodes[-1].args[0]

    async def nowhere(_):
        await trio.lowlevel.checkpoint()

    protocol = parties(registry.get("replicated"))[0]
    scratch = Scratch(tmp_path, above=2048)
    part = Part(NODE, 2, nowhere)
    driver = Scheduler(plan, protocol, {}, send=nowhere, part=part, scratch=scratch)
    tile = Share(Z64, np.arange(2 * 64, dtype=np.uint64).reshape(2, 64), 8)
    for number in range(8):
        driver.receive(Parcel(ref, number, 8, 0, tile))
    held = driver._flow._values[ref].tiles
    assert [Scratch.holds(one.data) for one in held] == [False] * 2 + [True] * 6  # 1 kB each
    assert all(np.array_equal(one.data, tile.data) for one in held)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({2: 2}, "worker 1 handed over rows as worker 2"),
        ({3: [[3]]}, "sent malformed rows"),
        ({3: [[1 << 70]]}, "sent malformed rows"),
        ({3: 7}, "sent malformed rows"),
    ],
)
def test_rows_are_those_of_the_fellow_at_the_other_end(change, says):
    config = SimpleNamespace(index=0, number=0, workers=3)
    heard = []
    run = SimpleNamespace(receive=heard.append)
    fellows = Fellows(config, SimpleNamespace(under_way=lambda name: run), None, None)
    header, (words,) = Handover(3, 0, 1, [np.arange(2, dtype=np.uint64)]).to_wire()
    fellows.hear(1, ["rows", b"run", *header], words)
    assert [(rows.sender, rows.arrays[0].tolist()) for rows in heard] == [(1, [0, 1])]
    for place, what in change.items():
        header[place] = what
    with pytest.raises(ProtocolError, match=says):
        fellows.hear(1, ["rows", b"run", *header], words)


@pytest.mark.parametrize(
    "header",
    [
        [],
        [1, 0, 0, 1, 0, [], [3], {}],
        [1, 0, 0, 1, 0, ["Z63", 0, False], [2], {}],
        [1, 0, 0, 1, 0, ["Z64"], [2], {}],
    ],
)
def test_malformed_parcels_are_refused(header):
    with pytest.raises(ProtocolError, match="malformed value"):
        Parcel.read(header, np.zeros(2, np.uint64))
