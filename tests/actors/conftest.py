"""A plan with every kind of node, what numpy says of it, and a way to run schedulers without links."""

from __future__ import annotations

import contextlib
import functools
import random
from collections import deque

import attrs
import numpy as np
import pytest
import trio

from tercet.actors.lowering import Allowance, lower
from tercet.actors.node import Node
from tercet.actors.party import Party
from tercet.actors.rounds import Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.actors.values import Stored, cut
from tercet.client.client import Client
from tercet.plans import Builder, Form, Plan, Type, concatenate, sigmoid, slope, stack
from tercet.plans.passes import drop_dead
from tercet.plans.tiles import Costs, Layout, Ledger
from tercet.plans.types import word_shape
from tercet.protocols.domains import decode, encode
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import parties
from tercet.transports import MemoryTransport
from tercet.transports.names import party_name

SCALE = 8


@attrs.frozen
class Example:
    """A plan, its inputs as words, and what it must reveal: numbers by name with a tolerance, or a check."""

    plan: Plan
    inputs: dict
    exact: dict
    near: dict
    checks: dict
    symbols: dict


def everything(rows: int, tile_rows: int = 64, seed: int = 1) -> Example:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(-(2**11), 2**11, (3, rows))
    x_words = numbers.astype(np.int64).view(np.uint64)
    keys = np.arange(1, 2 * rows + 1, dtype=np.uint64).reshape(2, rows) * np.uint64(2**61 + 12345)
    left, right = rng.permutation(rows), rng.permutation(rows)[: rows - rows // 3]
    b = Builder("everything", tile_rows=tile_rows)
    x_type = Type(Form.RING, (3, rows), SCALE, 2.0**11)
    left_type, right_type = Type(Form.WORDS, (2, rows)), Type(Form.WORDS, (2, right.size))
    x = b.input("x", x_type)
    x0, x1 = (x.select([i]).squeeze() for i in (0, 1))
    real = numbers / 2.0**SCALE
    exact, near, checks = {}, {}, {}

    def show(name, value, expected, tolerance=0.0):
        (near if tolerance else exact)[name] = (expected, tolerance) if tolerance else expected
        value.reveal(name, to="analyst")

    show("add", x0 + x1, real[0] + real[1])
    show("sub", x0 - x1 - 1.5, real[0] - real[1] - 1.5)
    steps = np.array([[1], [2], [3]])
    show("constant row", x + b.constant(steps, scale=SCALE), real + steps)
    show("mul public", x * 3, real * 3)
    show("mul", x0 * x1, real[0] * real[1])
    show("cube", x0 * x1 * x0, real[0] ** 2 * real[1])
    show("shift", x0.at_scale(12).shifted(2), real[0] / 4)
    show("truncate", (x0 * x1).rescale(4), real[0] * real[1], 2.0**-4)
    show("nearest", (x0 * x1).nearest(4), real[0] * real[1], 2.0**-5)
    show("sum", x.sum(), real.sum(axis=1))
    show("sum of one", x0.sum(), real[0].sum())
    show("sum columns", x.sum_columns(), real.sum(axis=0))
    gram = x.dot(x.select([0, 1]))
    show("dot", gram, real @ real[:2].T)
    show("transpose", gram.transpose(), (real @ real[:2].T).T)
    show("dot of one", x0.dot(x), real @ real[0])
    weights = b.constant(np.array([[1, 0, 2], [0, 3, -1.0]]))
    show("matmul public", weights @ x, np.array([[1, 0, 2], [0, 3, -1.0]]) @ real)
    small = gram.rescale(0).bounded(2.0**20, "small numbers")
    show("matmul", small.transpose() @ x, (real @ real[:2].T).T @ real, 1.0 * 3 * 8)
    show("stack", concatenate([x.select([2]), x.select([0])]), real[[2, 0]])
    show(
        "rows below", stack([x, x.slice(0, rows // 2)]), np.concatenate([real, real[:, : rows // 2]], axis=1)
    )
    show("slice", x.slice(rows // 3, rows // 2), real[:, rows // 3 : rows // 2])
    late = np.concatenate([np.zeros((len(real), rows // 3)), real[:, : rows - rows // 3]], axis=1)
    show("delay", x.delay(rows // 3), late)
    show("delay", x0.delay(3), np.concatenate([np.zeros(3), real[0]])[:rows])
    early = np.concatenate([real[:, 2:], np.zeros((len(real), min(rows, 2)))], axis=1)
    show("advance", x.delay(-2), early[:, :rows])
    show("cumulate", x.cumulate(), np.cumsum(real, axis=1))
    pairs = x.pair_rows()
    paired = np.zeros((2 * len(real), -(-rows // 2)))
    paired[: len(real)], paired[len(real) :, : rows // 2] = real[:, ::2], real[:, 1::2]
    show("pairs", pairs, paired)
    show("interleave", pairs.interleave(rows), real)
    places = np.arange(rows)[None, ::3][:, ::-1]
    show("take", x.take(b.constant(places)), real[:, places[0]])
    show("omit", x.omit(rows // 3, rows // 2), np.delete(real, range(rows // 3, rows // 2), axis=1))
    places = b.constant(np.arange(rows)[::-1])
    dealt = b.apply("deal", places, sizes=(rows - rows // 2, rows // 2))
    show("deal", x.take(dealt), real[:, [*range(rows)[::-2][::-1], *range(rows - 1)[::-2][::-1]]])
    show("append row", x.append_row(1.5), np.concatenate([real, np.full((1, rows), 1.5)]))
    show("reshape", x.sum().column() + x0, real.sum(axis=1)[:, None] + real[0])
    show("count up", b.apply("count_up", x0) + x0.shifted(-SCALE), np.arange(rows) + numbers[0])
    show("reciprocals", b.apply("reciprocals", x0, scale=20) * x0, real[0] / np.arange(1, rows + 1), 1e-3)
    sig = sigmoid(8.0, 1e-4)
    probability, curve = x0.fourier(sig, slope(sig), dealt_bits=20, coefficient_bits=14)
    logistic = 1 / (1 + np.exp(-real[0]))
    show("sigmoid", probability, logistic, 5e-4)
    show("slope", curve, logistic * (1 - logistic), 1e-2)
    negative, equal = x0 < 0, (x0 - x0).is_zero()
    show("negative", negative.to_ring(), numbers[0] < 0)
    show("equal", equal.to_ring(), np.ones(rows))
    both = (numbers[0] < 0) & (numbers[1] < 0)
    show("bits", (~(negative & (x1 < 0)) ^ negative).to_ring(), ~both ^ (numbers[0] < 0))
    masked = b.input("left", left_type) & b.apply("masks", negative)
    masked.reveal("masked", to="analyst")
    exact["masked"] = np.where(numbers[0] < 0, keys[:, left], 0)
    show("greater", (x1 > x0).to_ring(), numbers[1] > numbers[0])
    below = b.apply("ones", negative.to_ring().open("signs"), rows="below")
    show("ones", b.apply("take", x, below, table=0), real[:, numbers[0] < 0])

    show(
        "marks",
        b.apply("marks", rows=rows, start=rows // 3, stop=rows // 2),
        _ones(rows, rows // 3, rows // 2),
    )
    show("pad", x.padded(2, 3), np.pad(real, ((0, 0), (2, 3))))
    numbered = (b.apply("count_up", x0) + (x0 - x0).shifted(-SCALE)).open("numbers")
    ordered = b.apply("in_order", numbered, start=rows // 3, stop=rows // 2)
    show("in order", x.take(ordered), real[:, rows // 3 : rows // 2])

    noise = b.random_words(2, 5)
    (noise ^ noise).reveal("no noise", to="analyst")
    exact["no noise"] = np.zeros((2, 5))
    key = b.random_words(2)
    words, others = b.input("left", left_type), b.input("right", right_type)
    place = b.input("x", x_type).select([2])
    opened, moved = [], []
    for one in (words, others):
        columns = [b.apply("prf", key, one), one]
        columns += [place] if one is words else []
        shuffled = b.apply_all("shuffle", *columns)
        opened.append(shuffled[0].open("pseudonyms"))
        moved.append(shuffled[1:])
    b.apply("smear", words).reveal("smeared", to="analyst")
    exact["smeared"] = np.negative(keys[:, left] & np.uint64(1))
    show("zero words", (words ^ words).are_zero().to_ring(), np.ones(rows))
    show("no zero words", words.are_zero().to_ring(), np.zeros(rows))
    b.apply("key_numbers", words, key=bytes(16), bits=20).reveal("key numbers", to="analyst")
    checks["key numbers"] = lambda found: np.all((found >= 0) & (found < 2**20) & (found == found.round()))
    b.apply_all("sort_words", b.apply("prf", key, words), x0)[1].reveal("in random order", to="analyst")
    checks["in random order"] = lambda found: np.array_equal(np.sort(found), np.sort(real[0]))
    matched = b.apply("match", *opened, rows="both")
    lefts = b.apply("match", *opened, rows="left", how="left")
    alone = moved[0][1].take(lefts).squeeze() * b.apply("absent", lefts, table=1)
    show("absent", alone.sum(), real[2, ~np.isin(left, right)].sum())
    different = b.apply("distinct", opened[0], rows="different")
    show("distinct", moved[0][1].take(different).sum(), real[2:, left].sum(axis=1))
    ours = b.apply("take", moved[0][0], matched, table=0)
    theirs = b.apply("take", moved[1][0], matched, table=1)
    payload = b.apply("take", moved[0][1], matched, table=0)
    ours.reveal("our keys", to="analyst")
    (ours ^ theirs).reveal("keys agree", to="analyst")
    (payload * payload).rescale(4).reveal("payload squared", to="analyst")
    payload.sum().reveal("payload sum", to="analyst")
    payload.checkpoint(1, "payload")
    payload.store("joined")
    kept = np.isin(left, right)

    def same_rows(found):
        return sorted(map(tuple, found.T)) == sorted(map(tuple, keys[:, left[kept]].T))

    exact["keys agree"] = np.zeros((2, right.size))
    checks["our keys"] = same_rows
    checks["payload squared"] = lambda found: np.allclose(
        np.sort(found), np.sort(real[2:, kept] ** 2), atol=0.07
    )
    exact["payload sum"] = real[2:, kept].sum(axis=1)
    ordered = b.apply_all("sort", x0, x1, bits=13)
    ordered[0].reveal("sorted", to="analyst")
    ordered[1].reveal("sorted along", to="analyst")
    order = np.argsort(numbers[0], kind="stable")
    exact["sorted"], exact["sorted along"] = real[0][order], real[1][order]
    inputs = {
        "x": (x_type, x_words),
        "left": (left_type, keys[:, left]),
        "right": (right_type, keys[:, right]),
    }
    symbols = {"both": right.size, "left": rows, "different": rows, "below": int((numbers[0] < 0).sum())}
    return Example(b.plan(), inputs, exact, near, checks, symbols)


def _ones(rows: int, start: int, stop: int) -> np.ndarray:
    return ((np.arange(rows) >= start) & (np.arange(rows) < stop)).astype(float)


def verify(example: Example, revealed: dict) -> None:
    """Compare what was revealed with what must be."""
    assert set(revealed) == {*example.exact, *example.near, *example.checks}
    for name, expected in example.exact.items():
        np.testing.assert_array_equal(revealed[name], np.asarray(expected, dtype=float), err_msg=name)
    for name, (expected, tolerance) in example.near.items():
        np.testing.assert_allclose(revealed[name], expected, rtol=0, atol=tolerance, err_msg=name)
    for name, check in example.checks.items():
        assert check(revealed[name]), name


async def run_drivers(
    plan,
    protocol,
    inputs,
    *,
    threads=1,
    mail_seed=None,
    protocols=None,
    lockstep=False,
    dealt=None,
    together=True,
):
    """All parties' schedulers in one event loop; mail goes in order, or mixed up by a seed.

    With `lockstep` what runs small plans; frames of one peer then keep their order, as links do. `dealt` has
    stored values by handle and party, or is filled with them. Returns the revealed numbers by name and the
    parties' outcomes.
    """
    plan = drop_dead(plan)
    each = protocols if protocols is not None else parties(protocol)
    dealt = {} if dealt is None else dealt
    for handle, (kind, words) in inputs.items() if not dealt else ():
        shape = word_shape(kind, {})
        parts = protocol.deal(words.reshape(shape), domain=kind.form.domain, parties=len(each))
        shares = [
            one.accept(part, domain=kind.form.domain, shape=shape, scale=kind.scale)
            for one, part in zip(each, parts, strict=True)
        ]
        dealt[handle] = [Stored(kind, cut(share, plan.tile_rows), plan.tile_rows) for share in shares]
    mixed = random.Random(mail_seed)
    pool, arrived = deque(), trio.Event()
    outcomes, schedulers, ledgers = [None] * len(each), [], []

    def send_from(sender):
        async def send(outbox):
            nonlocal arrived
            await trio.lowlevel.checkpoint()
            for receiver, messages in outbox.items():
                for node, tile, step, arrays in messages:
                    copies = [np.array(array).reshape(-1) for array in arrays]
                    entry = [node, tile, step, [array.size for array in copies]]
                    pool.append((sender, receiver, [entry], np.concatenate(copies)))
            arrived.set()

        async def send_frames(number, frames):
            nonlocal arrived
            await trio.lowlevel.checkpoint()
            for receiver, arrays in frames.items():
                words = np.concatenate([np.array(array).reshape(-1) for array in arrays])
                pool.append((sender, receiver, number, words))
            arrived.set()

        return send_frames if lockstep else send

    for party, one in enumerate(each):
        stored = {handle: shares[party] for handle, shares in dealt.items()}
        if lockstep:
            schedulers.append(Lockstep(plan, one, stored, send=send_from(party), together=together))
            ledgers.append(Allowance(lower(plan, protocol, len(each), together=together)))
        else:
            schedulers.append(Scheduler(plan, one, stored, send=send_from(party), threads=threads))
            ledgers.append(Ledger(Costs(Layout(plan, dict(plan.maxima)), protocol, len(each))))

    def next_mail():
        if mail_seed is None:
            return pool.popleft()
        at = mixed.randrange(len(pool))
        if lockstep:
            at = next(number for number, mail in enumerate(pool) if mail[:2] == pool[at][:2])
        pool.rotate(-at)
        mail = pool.popleft()
        pool.rotate(at)
        return mail

    async def carry():
        nonlocal arrived
        while True:
            await arrived.wait()
            arrived = trio.Event()
            while pool:
                sender, receiver, entries, payload = next_mail()
                ledgers[receiver].charge(sender, entries, payload.nbytes)
                schedulers[receiver].take(sender, entries, payload)
                if mail_seed is not None and mixed.random() < 0.3:
                    await trio.lowlevel.checkpoint()

    async def run(party):
        outcomes[party] = await schedulers[party].run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry)
        async with trio.open_nursery() as running:
            for party in range(len(each)):
                running.start_soon(run, party)
        nursery.cancel_scope.cancel()

    revealed = {}
    for number, (name, _, kind, _) in enumerate(outcomes[0].revealed):
        exports = [outcome.revealed[number][3] for outcome in outcomes]
        words = protocol.combine(exports, domain=kind.form.domain, shape=word_shape(kind, {}))
        revealed[name] = decode(words, kind.scale) if kind.form is Form.RING else words
    return revealed, outcomes


@attrs.frozen(eq=False)
class Nodes:
    """Running nodes in this event loop, and clients of theirs."""

    parties: list[Party]
    transport: MemoryTransport
    nursery: trio.Nursery

    async def links(self):
        return [await self.transport.connect(party.name, peer=party.name) for party in self.parties]

    async def client(self, *, nursery=None, tile_rows=64, timeout_s=4.0):
        return await Client.connect(
            self.parties[0].protocol,
            await self.links(),
            nursery=nursery or self.nursery,
            timeout_s=timeout_s,
            tile_rows=tile_rows,
        )


@contextlib.asynccontextmanager
async def open_nodes(protocol=Replicated, *, timeout_s=4.0, wrap=None):
    """Nodes joined in memory; `wrap(index, link)` may spoil a link of a node."""
    transport = MemoryTransport()

    class Wrapping:
        def __init__(self, index):
            self.index = index

        def apply(self, link):
            return link if wrap is None else wrap(self.index, link)

    async with trio.open_nursery() as nursery:
        members, count = [], protocol.sizes[0]
        for index in range(count):
            party = Party(index, parties=count, protocol=protocol, timeout_s=timeout_s)
            node = Node(party, transport, shaping=Wrapping(index), trusted_names=False)
            await node.listen(party_name(index), nursery=nursery)
            members.append(node)
        async with trio.open_nursery() as starting:
            for node in members:
                starting.start_soon(nursery.start, node.serve, [party_name(i) for i in range(count)])
        yield Nodes([node.party for node in members], transport, nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def open_cluster_of_nodes():
    return open_nodes


@pytest.fixture
def example():
    return everything


@pytest.fixture
def verified():
    return verify


@pytest.fixture
def scheduled():
    return run_drivers


@pytest.fixture
def in_lockstep():
    return functools.partial(run_drivers, lockstep=True)


@pytest.fixture(params=["scheduler", "lockstep"])
def driven(request):
    """Either of the two that run plans."""
    return functools.partial(run_drivers, lockstep=request.param == "lockstep")


@pytest.fixture
def encoded():
    return encode
