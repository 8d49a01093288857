"""A plan means the same on every protocol, whatever the tiles, threads and order of mail."""

from __future__ import annotations

import itertools
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import trio

from tercet.actors import scheduler as scheduler_module
from tercet.actors.scheduler import Scheduler
from tercet.errors import PrivacyError, ProtocolError
from tercet.plans import Builder, Form, Type
from tercet.plans.kinds import KINDS
from tercet.plans.tiles import Costs, Layout, Ledger
from tercet.protocols.base import Round
from tercet.protocols.plain import Plain
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import parties

PROTOCOLS = [Plain, Replicated]


def test_the_example_has_every_kind_of_node(example):
    assert {node.kind for node in example(70).plan.nodes} == set(KINDS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 200])
async def test_rows(protocol, rows, example, scheduled, verified):
    one = example(rows)
    revealed, outcomes = await scheduled(one.plan, protocol, one.inputs)
    verified(one, revealed)
    assert all(outcome.symbols == one.symbols for outcome in outcomes)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tile_rows", [64, 128, 1 << 16])
async def test_tiles_and_threads(protocol, threads, tile_rows, example, scheduled, verified, monkeypatch):
    monkeypatch.setattr("tercet.actors.scheduler.HEAVY_WORDS", 100)
    one = example(333, tile_rows)
    revealed, _ = await scheduled(one.plan, protocol, one.inputs, threads=threads)
    verified(one, revealed)


@pytest.mark.cases("0-Replicated", "1-Replicated", "0-Plain")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(3))
async def test_threads_that_take_turns_at_every_moment(
    protocol, seed, example, scheduled, verified, monkeypatch
):
    """Steps of all sizes in more threads than there are cores, while mail comes in any order."""
    monkeypatch.setattr("tercet.actors.scheduler.HEAVY_WORDS", 200)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        one = example(1000, 64)
        revealed, outcomes = await scheduled(one.plan, protocol, one.inputs, threads=4, mail_seed=seed)
    finally:
        sys.setswitchinterval(before)
    verified(one, revealed)
    assert len({outcome.statistics.rounds for outcome in outcomes}) == 1


async def test_threads_take_no_places_of_short_work(example, scheduled, monkeypatch):
    monkeypatch.setattr("tercet.actors.scheduler.HEAVY_WORDS", 100)
    borrowed, work = [], Scheduler._work

    def watched(self, steps):
        limiter = trio.from_thread.run_sync(trio.to_thread.current_default_thread_limiter)
        borrowed.append(limiter.borrowed_tokens)
        work(self, steps)

    monkeypatch.setattr(Scheduler, "_work", watched)
    one = example(200, 64)
    await scheduled(one.plan, Replicated, one.inputs, threads=2)
    assert len(borrowed) > 3
    assert not any(borrowed)


@pytest.mark.cases("0", "1", "2")
@pytest.mark.parametrize("seed", range(6))
async def test_order_of_mail(seed, example, scheduled, verified):
    one = example(200, 64)
    revealed, outcomes = await scheduled(one.plan, Replicated, one.inputs, mail_seed=seed)
    verified(one, revealed)
    plain, _ = await scheduled(one.plan, Replicated, one.inputs)
    verified(one, plain)
    assert len({outcome.statistics.rounds for outcome in outcomes}) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_process_that_stands_still_now_and_then(
    protocol, example, scheduled, verified, monkeypatch, autojump_clock
):
    """However long it was between any two looks at the clock, a party makes the steps that it can make."""
    moments = itertools.count()
    monkeypatch.setattr(scheduler_module, "time", SimpleNamespace(perf_counter=lambda: float(next(moments))))
    monkeypatch.setattr(scheduler_module, "HEAVY_WORDS", math.inf)  # this clock does not wait for threads
    one = example(200, 64)
    with trio.fail_after(1):  # of the mock clock: as soon as nobody has anything to do
        revealed, _ = await scheduled(one.plan, protocol, one.inputs)
    verified(one, revealed)


async def test_results_do_not_depend_on_tiles_beyond_the_last_place(example, scheduled):
    found = {}
    for tile_rows in (64, 128, 1 << 16):
        one = example(300, tile_rows)
        found[tile_rows], _ = await scheduled(one.plan, Replicated, one.inputs)
    for tile_rows in (64, 128):
        for name in [*one.exact, "truncate"]:
            place = 2.0**-4 if name == "truncate" else 0
            difference = np.abs(found[tile_rows][name] - found[1 << 16][name])
            assert difference.max(initial=0) <= place, name


async def test_stored_values_keep_their_tiles(example, scheduled):
    one = example(400, 64)
    _, outcomes = await scheduled(one.plan, Replicated, one.inputs)
    rows = one.symbols["both"]
    for outcome in outcomes:
        stored = outcome.stored["joined"]
        assert stored.type.shape == (1, rows)
        assert [tile.shape[-1] for tile in stored.tiles] == [64] * (rows // 64) + [rows % 64] * (
            rows % 64 > 0
        )


@pytest.mark.parametrize("heavy_words", [1, math.inf])
async def test_what_an_operation_on_all_rows_waits_for_comes_first(heavy_words, scheduled, monkeypatch):
    """All tiles of one table before any of the other: they are worked on while the first is shuffled."""
    monkeypatch.setattr(scheduler_module, "HEAVY_WORDS", heavy_words)
    begun, begin = [], Scheduler._begin

    def watched(self, instance):
        if self.protocol.party == 0 and instance.node.kind == "truncate":
            begun.append((instance.node.label, instance.name[1]))
        return begin(self, instance)

    monkeypatch.setattr(Scheduler, "_begin", watched)
    b, kind = Builder("two tables", tile_rows=64), Type(Form.RING, (250,), 16, 2.0**40)
    inputs = {}
    for name in ("left", "right"):
        inputs[name] = kind, np.arange(250, dtype=np.uint64) << np.uint64(8)  # truncated without rounding
        with b.scope(name):
            (moved,) = b.apply_all("shuffle", b.input(name, kind).rescale(8))
            moved.reveal(name, to="analyst")
    revealed, _ = await scheduled(b.plan(), Replicated, inputs)
    assert begun == [(name, tile) for name in ("left", "right") for tile in range(4)]
    assert sorted(revealed["left"]) == sorted(revealed["right"])


# -- what a plan does not declare ----------------------------------------------------------------------------


def truncation(rows=10, tile_rows=64):
    b = Builder("truncation", tile_rows=tile_rows)
    kind = Type(Form.RING, (rows,), 16, 2.0**40)
    with b.scope("scores"):
        b.input("x", kind).rescale(8).reveal("r", to="analyst")
    return b.plan(), {"x": (kind, np.arange(rows, dtype=np.uint64))}


async def failure(driven, plan, protocol, inputs):
    with pytest.raises(BaseException) as caught:
        await driven(plan, protocol, inputs)
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class OpensInTruncate(Replicated):
    def truncate(self, x, bits):
        yield from self.open(x)
        return (yield from super().truncate(x, bits))


class SendsTooMuch(Replicated):
    def truncate(self, x, bits):
        yield Round(send={self.next: [x.data.reshape(-1)]}, recv={self.prev: [(2 * x.size,)]})
        return (yield from super().truncate(x, bits))


class TakesTooLong(Replicated):
    def truncate(self, x, bits):
        result = yield from super().truncate(x, bits)
        yield Round()
        return result


class Stumbles(Replicated):
    def truncate(self, x, bits):
        yield Round()
        raise ZeroDivisionError("by design")


async def test_an_undeclared_opening_is_stopped(driven):
    error = await failure(driven, *add(OpensInTruncate))
    assert isinstance(error, PrivacyError)
    assert "node 1 (truncate in scores)" in str(error)


@pytest.mark.parametrize("protocol", [SendsTooMuch, TakesTooLong])
async def test_more_than_was_declared_is_stopped(protocol, driven):
    error = await failure(driven, *add(protocol))
    assert isinstance(error, ProtocolError)
    assert "node 1 (truncate in scores)" in str(error)
    assert "declares" in str(error)


async def test_an_unforeseen_error_names_the_node(driven, caplog):
    error = await failure(driven, *add(Stumbles))
    assert isinstance(error, ProtocolError)
    assert "node 1 (truncate in scores)" in str(error)
    assert "ZeroDivisionError: by design" in str(error)
    assert "by design" in caplog.text


def add(protocol):
    plan, inputs = truncation()
    return plan, protocol, inputs


# -- mail that no run of the plan sends ----------------------------------------------------------------------


async def ignore(outbox):
    await trio.lowlevel.checkpoint()


def lone_scheduler():
    plan, _ = truncation(rows=100)
    return plan, Scheduler(plan, parties(Replicated)[0], {}, send=ignore)


def words(*sizes):
    return [np.zeros(size, dtype=np.uint64) for size in sizes]


def test_mail_is_taken_once():
    _, scheduler = lone_scheduler()
    scheduler.deliver(1, 1, 0, 0, words(64))
    with pytest.raises(ProtocolError, match=r"party 1 sent step 0 of node 1 \(truncate in scores\).*twice"):
        scheduler.deliver(1, 1, 0, 0, words(64))
    with pytest.raises(ProtocolError, match="party 2 sent a message for node 9"):
        scheduler.deliver(2, 9, 0, 0, words(1))


def ledger(rows=100):
    plan, _ = truncation(rows=rows)
    return Ledger(Costs(Layout(plan, {}), Replicated, 3))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ([7, 0, 0, [1]], "node 7"),
        ([1, 2, 0, [1]], "tile 2"),
        ([1, 0, 2, [1]], "in 2 rounds"),
        ([1, 0, 0, [1000]], "declares 128 words"),
        ([0, 0, 0, [1]], r"node 0 \(input in scores\)"),
        ([1, 0, -1, [1]], "proper numbers"),
        ([1, 0, 0, [True]], "proper numbers"),
        ([1, 0, 0, ["1"]], "proper numbers"),
        ([1, 0, 0, [0] * 20_000], "20000 arrays in one message"),
    ],
)
def test_a_ledger_refuses(entry, why):
    size = 8 * sum(number for number in entry[3] if isinstance(number, int))
    with pytest.raises(ProtocolError, match=why):
        ledger().charge(2, [entry], size)


def test_a_ledger_adds_up_what_a_peer_sent():
    book = ledger()
    book.charge(2, [[1, 0, 0, [64]]], 512)
    book.charge(2, [[1, 0, 1, [64]]], 512)
    with pytest.raises(ProtocolError, match="party 2 sent 129 words up to step 1"):
        book.charge(2, [[1, 0, 1, [1]]], 8)
    with pytest.raises(ProtocolError, match="sent 16 bytes of payload, its messages have 8"):
        book.charge(1, [[1, 0, 0, [1]]], 16)
    book.charge(1, [[1, 0, 0, [64]], [1, 1, 0, [36]]], 800)
