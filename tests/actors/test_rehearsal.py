"""Rehearsals take what follows by hand from a model of a machine: rounds, work, latency, links, cores."""

from __future__ import annotations

import attrs
import pytest

from tercet.actors.estimate import explain
from tercet.actors.machine import LOCAL, MESSAGES_AROUND, TALKING, Machine, Pace
from tercet.errors import PlanError
from tercet.plans import Builder, Form, Type
from tercet.plans.tiles import Costs, Layout
from tercet.protocols import registry
from tercet.protocols.replicated import Replicated

AT_ONCE = Machine(
    plan_s=0.0, round_s=0.0, wake_s=0.0, inline_s=0.0, cores=3,
    paces={LOCAL: Pace(0.0, 0.0), TALKING: Pace(0.0, 0.0)},
)  # fmt: skip
"""A machine on which nothing takes time."""


def numbers(b, rows, name="x", limit=2.0**50):
    return b.input(name, Type(Form.RING, (rows,), 40, limit))


def chain(steps, rows=10, tile_rows=64):
    b = Builder("chain", tile_rows=tile_rows)
    x = numbers(b, rows)
    for _ in range(steps):
        x = x.shifted(1).rescale(40)
    x.store("chain")
    return b.plan()


def side_by_side(count, rows=10):
    b = Builder("side by side", tile_rows=64)
    for number in range(count):
        numbers(b, rows, f"x{number}").rescale(8).store(f"y{number}")
    return b.plan()


def seconds(plan, **options):
    machine = attrs.evolve(AT_ONCE, **options.pop("machine", {}))
    return explain(plan, machine=machine, **options).seconds


def test_rounds_in_sequence_and_side_by_side():
    late = {"latency_ms": 10.0, "machine": {"round_s": 1.0, "wake_s": 0.1, "plan_s": 7.0}}
    around = 7.0 + MESSAGES_AROUND * 0.11
    assert seconds(chain(5), **late) == pytest.approx(around + 5 * 2 * 1.11)
    assert seconds(side_by_side(5), **late) == pytest.approx(around + 2 * 1.11)
    # Nobody sleeps where there is no latency.
    assert seconds(chain(5), machine=late["machine"]) == pytest.approx(7.0 + 5 * 2 * 1.0)


def test_a_round_waits_for_the_last_of_frames_that_jitter():
    before = seconds(chain(5), latency_ms=10.0)
    assert seconds(chain(5), latency_ms=10.0, jitter_ms=6.0) == pytest.approx(before + 5 * 2 * 0.006 / 6)
    with pytest.raises(PlanError, match="jitter_ms=11 is more than latency_ms=10"):
        explain(chain(1), latency_ms=10, jitter_ms=11)


def test_keys_of_groups_and_ends_of_malicious_parties_take_a_message_each(monkeypatch):
    late = {"latency_ms": 10.0, "machine": {"round_s": 1.0, "plan_s": 7.0}}
    before = seconds(chain(2), **late)
    for name in ("group_keys", "malicious"):
        monkeypatch.setattr(Replicated, name, True)
        before += 0.01
        assert seconds(chain(2), **late) == pytest.approx(before)


def test_every_instance_takes_its_steps(example):
    """A step of work each, before the first round and after every one, for all tiles of all nodes."""
    plan = example(300, 64).plan
    machine = {"paces": {LOCAL: Pace(1.0, 0.0), TALKING: Pace(1.0, 0.0)}}
    costs = Costs(Layout(plan, dict(plan.maxima)), Replicated, 3)
    inline = seconds(plan, machine={**machine, "inline_s": 1e-6}) - seconds(plan, machine=machine)
    assert inline > 0
    scheduled = [
        sum(costs.of(index, tile).rounds + 1 for tile in range(costs.layout.tiles(index)))
        for index, node in enumerate(plan.nodes)
        if node.kind != "input"
    ]
    assert sum(scheduled) * 0.5 < seconds(plan, machine=machine) < sum(scheduled)


def test_a_unit_of_work_is_a_word_read_or_sent():
    reduce = Builder("product")
    x = numbers(reduce, 1000, limit=2.0**20)
    (x * x).store("y")
    machine = {"paces": {LOCAL: Pace(0.0, 0.0), TALKING: Pace(0.0, 1.0)}}
    assert seconds(reduce.plan(), machine=machine) == pytest.approx(1000 + 1000)


def test_parties_share_cores_unless_they_are_apart():
    machine = {"paces": {LOCAL: Pace(0.0, 0.0), TALKING: Pace(1.0, 0.0)}, "cores": 2}
    plan = side_by_side(4)
    assert seconds(plan, machine=machine) == pytest.approx(3 * 4 * 2)
    assert seconds(plan, machine=machine, apart=True) == pytest.approx(3 * 4)
    assert seconds(plan, machine=machine, protocol="shamir", parties=5) == pytest.approx(2 * 4 * 3)


def test_latency_hides_what_is_computed_meanwhile():
    """Of heavy tiles, one computes while others are on the wire; with one tile there is nothing to hide."""
    machine = {"paces": {LOCAL: Pace(0.0, 0.0), TALKING: Pace(1.0, 0.0)}}
    rows, late = 1 << 16, {"latency_ms": 3000.0}
    one, six = chain(1, rows, rows), chain(1, 6 * rows, rows)
    around = MESSAGES_AROUND * 3.0
    assert seconds(one, machine=machine, **late) - around == pytest.approx(3 * 1 + 2 * 3.0)
    # Those under way come before new ones, so the last two of six wait at their end, for 4 seconds.
    assert seconds(six, machine=machine, **late) - around == pytest.approx(3 * 6 * 1 + 4)
    wide = {**machine, "cores": 6}
    assert seconds(six, machine=wide, threads=2) == pytest.approx(3 * 3 * 1)
    # Without cores for them, more threads are of no use.
    assert seconds(six, machine=machine, threads=2) == pytest.approx(seconds(six, machine=machine))


@pytest.mark.parametrize(
    ("protocol", "parties"), [("replicated", 3), ("shamir", 3), ("shamir", 5), ("rep4", 4)]
)
def test_links_are_busy_for_what_is_sent(protocol, parties):
    """What a party sends takes one of its links, or among five parties two, alike."""
    b = Builder("product")
    x = numbers(b, 1 << 12, limit=2.0**20)
    (x * x).store("y")
    told = explain(b.plan(), protocol, parties, machine=AT_ONCE, bandwidth_mbit=1.0)
    links = (parties - 1) // 2
    assert told.seconds == pytest.approx(max(told.bytes_sent) * 8e-6 / links)


@pytest.mark.parametrize("name", registry.BUILT_IN)
@pytest.mark.parametrize("tile_rows", [64, 1 << 16])
def test_all_plans_can_be_rehearsed(name, tile_rows, example):
    plan = example(300, tile_rows).plan
    found = [explain(plan, name, latency_ms=latency).seconds for latency in (0.0, 1.0, 50.0)]
    assert 0 < found[0] <= found[1] <= found[2]


def test_workers_take_blocks_of_tiles():
    """Ten tiles of three steps each, of which the slowest of some workers has so many."""
    work = {"paces": {LOCAL: Pace(0.0, 0.0), TALKING: Pace(1.0, 0.0)}}
    plan = chain(1, rows=640)
    tiles = {0: 10, 1: 10, 2: 5, 4: 3, 16: 1}
    for workers, longest in tiles.items():
        assert seconds(plan, machine=work, workers=workers, apart=True) == pytest.approx(3 * longest)
    # Cores that all workers of all parties share give nothing.
    assert seconds(plan, machine=work, workers=2) == pytest.approx(3 * 5 * 2)
    assert explain(chain(1, rows=64), workers=2).workers == 0


def test_what_crosses_between_node_and_workers():
    plan, machine = chain(1, rows=640), {"paces": {LOCAL: Pace(0.0, 0.0), TALKING: Pace(0.0, 2.0)}}
    found = explain(plan, workers=2)
    assert (found.to_workers, found.to_node) == (8 * 2 * 640, 8 * 2 * 640)
    assert "10,240 bytes to workers, 10,240 back" in str(found)
    # The node packs its share of the table, one of both workers unpacks its half, and back; a word takes 1 s
    # at either end. What a tile has to wait for is less than that by what is on the way meanwhile.
    table, free = 2 * 640.0, {"truncate": Pace(0.0, 0.0)}
    taken = seconds(plan, machine={"paces": {**machine["paces"], **free}}, workers=2, apart=True)
    assert 2 * table <= taken <= 3 * table
    b = Builder("sum", tile_rows=64)
    numbers(b, 640, limit=2.0**20).sum().reveal("sum", to="analyst")
    assert explain(b.plan(), workers=2).to_node == 2 * 8 * 2
