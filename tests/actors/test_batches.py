"""Nodes that run together: which do; results and budgets are those of the plan, and no mask comes twice."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tercet.actors import batches
from tercet.actors.batches import Batches
from tercet.actors.estimate import explain
from tercet.actors.line import first_cause
from tercet.actors.lowering import Lowering
from tercet.errors import PrivacyError, ProtocolError
from tercet.plans import Builder, Form, Type, concatenate, sigmoid, slope
from tercet.plans.lanes import FLAT, LOCAL
from tercet.plans.parsing import read_plan
from tercet.plans.tiles import Costs, Layout
from tercet.protocols import registry
from tercet.protocols.masking import Masking
from tercet.protocols.plain import Plain
from tercet.protocols.prg import Stream
from tercet.protocols.replicated import Replicated
from tercet.protocols.shamir import Shamir
from tercet.testing.lockstep import parties

SCALE = 8
PROTOCOLS = [Plain, Replicated, Shamir, registry.get("additive")]


def fold(b, number, rows, show):
    """What a fold does: each kind of node that runs in lanes, on a table of its own and one of all."""
    rng = np.random.default_rng(number)
    units = rng.integers(-(2**9), 2**9, (4, rows))
    x = b.input(f"x{number}", Type(Form.RING, (4, rows), SCALE, 2.0**9))
    all_rows = b.input(f"all{rows}", Type(Form.RING, (4, rows), SCALE, 2.0**9))
    real, every = units / 2.0**SCALE, np.arange(4 * rows).reshape(4, rows) / 2.0**SCALE
    y, factor = x.select([1]).squeeze(), 1 + number / 4
    weights = b.constant(np.array([[1, 0, number], [0, 3, -1.0]]), scale=4)
    show("add", x + all_rows - y, real + every - real[1])
    show("from public", 2 - x, 2 - real)
    show("by a public number", (x * factor).rescale(SCALE), real * factor, 2.0**-7)
    show("products", (x * y).rescale(4), real * real[1], 2.0**-2)
    show("cubes", (x * y * all_rows).rescale(4), real * real[1] * every, 2.0**-2)
    show("points", x.at_scale(12).shifted(2), real / 4)
    show("sums", x.sum() + x.select([0, 2, 1, 3]).sum(), real.sum(axis=1) + real[[0, 2, 1, 3]].sum(axis=1))
    show("columns", x.sum_columns().cumulate(), np.cumsum(real.sum(axis=0)))
    gram = x.dot(x.select([0, 1]))
    show("transpose", gram.transpose().append_row(1.5), np.vstack([(real @ real[:2].T).T, [1.5] * 4]))
    small = gram.rescale(2).bounded(2.0**10, "small numbers")
    show("matrices", (small.transpose() @ x).rescale(4), (real @ real[:2].T).T @ real, 8.0)
    show("public matrices", weights @ x.select([0, 1, 2]), weights_of(number) @ real[:3])
    show("stack", concatenate([x.select([2]), all_rows.select([0])]), np.vstack([real[2], every[0]]))
    show("parts", x.slice(0, rows // 2).delay(1), np.pad(real[:, : rows // 2], ((0, 0), (1, 0)))[:, :-1])
    show("but some", x.omit(0, rows // 2), real[:, rows // 2 :])
    show("pairs", x.pair_rows().interleave(rows) * x.pair_rows().interleave(rows), real**2)
    show("flat", x.reshape(4 * rows), real.reshape(-1))
    show("nearest", (x * y).nearest(4), real * real[1], 2.0**-5)
    sig = sigmoid(8.0, 1e-4)
    probability, curve = y.fourier(sig, slope(sig), dealt_bits=20, coefficient_bits=14)
    logistic = 1 / (1 + np.exp(-real[1]))
    show("sigmoid", probability, logistic, 5e-4)
    show("slope", curve, logistic * (1 - logistic), 1e-2)
    show("negative", (y < 0).to_ring(), real[1] < 0)
    below = (real.sum(axis=1) < 0).sum()
    show("zero", (y - y).is_zero().to_ring() + (x.sum() < 0).to_ring().sum(), np.full(rows, 1.0 + below))
    negative = y < 0.5
    show("bits", (~negative ^ (negative & (y < 0.25))).to_ring(), (real[1] >= 0.5) ^ (real[1] < 0.25))
    keys, along = b.apply_all("sort", y, x, bits=11)
    order = np.argsort(real[1], kind="stable")
    show("sorted", (keys + 1) * 2, (real[1][order] + 1) * 2)
    show("sorted along", along.rescale(4), real[:, order], 2.0**-3)
    return {f"x{number}": (x.type, units), f"all{rows}": (x.type, np.arange(4 * rows).reshape(4, rows))}


def weights_of(number):
    return np.array([[1, 0, number], [0, 3, -1.0]])


def folds(count, rows):
    """A plan of folds, the third of which is shorter; its inputs, and what must come out, how exactly."""
    b, inputs, wanted = Builder("folds", tile_rows=1 << 16), {}, {}
    for number in range(count):

        def show(name, value, expected, tolerance=0.0, number=number):
            wanted[f"{name} {number}"] = expected, tolerance
            value.reveal(f"{name} {number}", to="analyst")

        with b.scope(f"fold {number}"):
            inputs |= fold(b, number, rows - (number == 2), show)
    return b.plan(), {name: (kind, units.view(np.uint64)) for name, (kind, units) in inputs.items()}, wanted


def verify(revealed, wanted, *, slack=0.0):
    assert revealed.keys() == wanted.keys()
    for name, (expected, tolerance) in wanted.items():
        expected = np.asarray(expected, dtype=float)
        assert revealed[name].shape == expected.shape, name
        np.testing.assert_allclose(revealed[name], expected, rtol=0, atol=tolerance + slack, err_msg=name)


# -- results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("count", "rows"), [(1, 70), (2, 9), (4, 65), (5, 64)])
async def test_folds_side_by_side_give_what_each_gives(protocol, count, rows, in_lockstep, scheduled):
    """Also on a plug-in that knows of nothing but the interface."""
    plan, inputs, wanted = folds(count, rows)
    slack = 0.0 if protocol in (Plain, Replicated) else 2.0**-2  # the others truncate more roughly
    for run in (in_lockstep, scheduled):
        revealed, _ = await run(plan, protocol, inputs)
        verify(revealed, wanted, slack=slack)


async def test_chunks_of_few_words(monkeypatch, in_lockstep):
    plan, inputs, wanted = folds(5, 40)
    for most in (0, 1 << 8, 1 << 10):
        monkeypatch.setattr(batches, "MOST_TOGETHER", most)
        monkeypatch.setattr(batches, "MOST_FLAT", most)
        revealed, _ = await in_lockstep(read_plan(plan.to_bytes()), Replicated, inputs)
        verify(revealed, wanted)


async def test_equal_nodes_are_made_once_for_all_that_read_them(in_lockstep):
    b = Builder("twice", tile_rows=1 << 16)
    x = b.input("x", Type(Form.RING, (10,), SCALE, 2.0**9))
    y = b.input("y", Type(Form.RING, (10,), SCALE, 2.0**9))
    values = [x.times(y, magnitude=m) for m in (3.0, 2.0)]
    shared = [value.rescale(SCALE) for value in values]
    (shared[0] + shared[1]).reveal("twice", to="analyst")
    plan = b.plan()
    (product,) = [unit for unit in units(plan) if plan.nodes[unit.index].kind == "mul"]
    assert (product.mode, len(product.stacks[0].nodes)) == ("one", 1)
    numbers = np.arange(10, dtype=np.uint64)
    inputs = {name: (x.type, numbers << np.uint64(4)) for name in "xy"}
    revealed, _ = await in_lockstep(plan, Replicated, inputs)
    np.testing.assert_allclose(revealed["twice"], 2 * (np.arange(10) / 16) ** 2, atol=0.02)


# -- which nodes run together --------------------------------------------------------------------------------


def units(plan, protocol=Replicated):
    costs = Costs(Layout(plan, plan.maxima), protocol, protocol.sizes[0])
    return Batches(plan, lambda index: costs.of(index, 0).rounds).units


def counted(plan):
    """How many units there are of each kind, but for those that end the plan."""
    kinds = [plan.nodes[unit.index].kind for unit in units(plan)]
    return Counter(kind for kind in kinds if kind != "reveal")


def test_more_folds_are_no_more_units():
    two, nine = folds(2, 40)[0], folds(9, 40)[0]
    assert set(counted(nine)) >= LOCAL.keys() - {"sub"} | FLAT | {"sort", "is_negative", "is_zero"}
    apart = {"is_negative", "to_ring", "not", "add", "mul", "reduce"}  # with booleans that several read
    few, many = ({k: n for k, n in counted(plan).items() if k not in apart} for plan in (two, nine))
    assert all(many[kind] <= 2 * few[kind] for kind in many)  # one of nine is shorter
    read = read_plan(nine.to_bytes())
    assert [unit.index for unit in units(read)] == [unit.index for unit in units(nine)]


def test_units_come_after_what_they_read_and_have_every_node_once():
    for protocol in PROTOCOLS:
        plan, *_ = folds(4, 30)
        made, members = set(), Counter()
        for unit in units(plan, protocol):
            assert {read.stack for stack in unit.stacks for read in stack.reads} <= made
            made |= {stack.number for stack in unit.stacks}
            members.update(index for stack in unit.stacks for index in stack.nodes)
        assert set(members.values()) == {1}
        lowering = Lowering(plan, protocol, protocol.sizes[0])
        assert lowering.skipped == len(plan.nodes) - members.total()


def test_what_is_behind_a_sort_keeps_nothing_else_waiting():
    """How many rounds a sort takes hangs on chance."""
    b = Builder("both", tile_rows=1 << 16)
    x, y = (b.input(name, Type(Form.RING, (100,), SCALE, 2.0**9)) for name in "xy")
    (ordered,) = b.apply_all("sort", x, bits=20)
    for _ in range(100):
        y = (y * y).bounded(1.0, "small").rescale(SCALE)
    (ordered * ordered).rescale(SCALE).reveal("ordered", to="analyst")
    y.reveal("y", to="analyst")
    plan = b.plan()
    cut = [unit for unit in units(plan) if plan.nodes[unit.index].kind == "truncate"]
    assert len(cut) == 101
    assert all(unit.mode == "one" for unit in cut)


# -- budgets, openings and masks -----------------------------------------------------------------------------


def without_sorts(count):
    b, inputs = Builder("no chance", tile_rows=1 << 16), {}
    for number in range(count):
        kind = Type(Form.RING, (3, 50 + number % 2), SCALE, 2.0**9)
        x = b.input(f"x{number}", kind)
        inputs[f"x{number}"] = kind, np.arange(150 + 3 * (number % 2), dtype=np.uint64)
        y = (x * x).rescale(SCALE).select([1]).squeeze()
        positive = (y > 0.1).to_ring()
        sig = sigmoid(8.0, 1e-4)
        y = (y.at_scale(12) * positive).bounded(7.0, "small")
        (p,) = y.fourier(sig, dealt_bits=20, coefficient_bits=14)
        (p.rescale(16) * positive).nearest(4).sum().reveal(f"r{number}", to="analyst")
    return b.plan(), inputs


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_run_sends_just_what_it_may(protocol, in_lockstep):
    plan, inputs = without_sorts(5)
    _, outcomes = await in_lockstep(plan, protocol, inputs)
    lowering = Lowering(plan, protocol, protocol.sizes[0])
    assert [outcome.statistics.bytes_sent for outcome in outcomes] == lowering.most_bytes
    assert {outcome.statistics.rounds for outcome in outcomes} == {lowering.most_rounds}
    assert list(explain(plan, protocol.name).bytes_sent) == lowering.most_bytes
    apart = Lowering(plan, protocol, protocol.sizes[0], together=False)
    assert apart.most_rounds == lowering.most_rounds
    assert sum(lowering.most_bytes) <= sum(apart.most_bytes)


async def test_an_operation_on_many_lanes_that_sends_more_is_stopped(in_lockstep, monkeypatch):
    def wordy(self, x, count, gate, before=Masking.masked_opening):
        yield from self.reduce(self.to_product(x))
        return (yield from before(self, x, count, gate))

    plan, inputs = without_sorts(5)
    monkeypatch.setattr(Masking, "masked_opening", wordy)
    with pytest.raises(BaseExceptionGroup) as caught:
        await in_lockstep(plan, Replicated, inputs)
    assert isinstance(first_cause(caught.value), ProtocolError)
    assert "its protocol declares" in str(first_cause(caught.value))


async def test_sorts_together_open_no_more_than_each(in_lockstep, monkeypatch):
    plan, inputs, _ = folds(3, 30)
    monkeypatch.setattr("tercet.protocols.ranking.openings", lambda rows: 1)
    with pytest.raises(BaseExceptionGroup) as caught:
        await in_lockstep(read_plan(plan.to_bytes()), Replicated, inputs)
    assert isinstance(first_cause(caught.value), PrivacyError)


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
async def test_no_mask_comes_twice(protocol, in_lockstep, monkeypatch):
    plan, inputs, _ = folds(4, 33)
    drawn = []

    def stream(self, key, tag, purpose):
        drawn.append((self.party, key, f"{tag}/{purpose}"))
        return Stream(key, f"{tag}/{purpose}".encode())

    monkeypatch.setattr(protocol, "stream", stream)
    await in_lockstep(plan, protocol, inputs, protocols=parties(protocol, seed=b"alike"))
    assert 0 < len(set(drawn)) == len(drawn)
