"""`explain` predicts what runs then cost: exactly where costs are exact."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.actors.estimate import explain
from tercet.actors.lowering import runs_in_lockstep
from tercet.errors import PlanError
from tercet.plans import Builder, Form, Type, sigmoid
from tercet.plans.passes import drop_dead
from tercet.protocols.plain import Plain
from tercet.protocols.replicated import Replicated


def arithmetic(rows, tile_rows):
    b = Builder("arithmetic", tile_rows=tile_rows)
    kind = Type(Form.RING, (2, rows), 16, 2.0**20)
    x = b.input("x", kind)
    y = (x * x).rescale(16)
    (y.dot(x)).rescale(8).reveal("dot", to="analyst")
    ((y.sum().column() * x).sum()).rescale(16).reveal("sum", to="analyst")
    z = x.select([0]).squeeze()
    p = z.fourier(sigmoid(8.0, 1e-3), dealt_bits=20, coefficient_bits=14)[0]
    (p.rescale(16) * (z < 0).to_ring()).rescale(16).reveal("p", to="analyst")
    z.is_zero().to_ring().open("which are zero")
    words = np.random.default_rng(1).integers(-(2**20), 2**20, (2, rows)).view(np.uint64)
    return b.plan(), {"x": (kind, words)}


def chain(rows, tile_rows):
    b = Builder("chain", tile_rows=tile_rows)
    kind = Type(Form.RING, (rows,), 40, 2.0**50)
    x = b.input("x", kind)
    for scale in range(39, 29, -1):
        x = x.rescale(scale)
    x.store("chain")
    return b.plan(), {"x": (kind, np.arange(rows, dtype=np.uint64))}


def sorting(rows, tile_rows):
    b = Builder("sorting", tile_rows=tile_rows)
    kind = Type(Form.RING, (rows,), 0, 2.0**30)
    b.apply("sort", b.input("x", kind), bits=32).store("sorted")
    words = np.random.default_rng(1).integers(0, 2**30, rows).astype(np.uint64)
    return b.plan(), {"x": (kind, words)}


@pytest.mark.parametrize(("name", "protocol"), [("replicated", Replicated), ("plain", Plain)])
@pytest.mark.parametrize("tile_rows", [64, 128, 1 << 16])
@pytest.mark.parametrize("make", [arithmetic, chain])
@pytest.mark.parametrize("rows", [1, 64, 500])
async def test_exact_costs(make, rows, tile_rows, name, protocol, scheduled, in_lockstep):
    plan, inputs = make(rows, tile_rows)
    told = explain(plan, name)
    run = in_lockstep if runs_in_lockstep(drop_dead(plan)) else scheduled
    _, outcomes = await run(plan, protocol, inputs)
    assert told.exact
    assert told.bytes_sent == tuple(outcome.statistics.bytes_sent for outcome in outcomes)
    assert {told.rounds} == {outcome.statistics.rounds for outcome in outcomes}


@pytest.mark.parametrize("tile_rows", [64, 1 << 16])
async def test_symbols(tile_rows, example, scheduled):
    one = example(300, tile_rows)
    with_sort = explain(one.plan, symbols=one.symbols)
    assert not with_sort.exact
    assert with_sort.symbols == one.symbols
    assert explain(one.plan).symbols == {**dict.fromkeys(("left", "different", "below"), 300), "both": 200}
    _, outcomes = await scheduled(one.plan, Replicated, one.inputs)
    for said, outcome in zip(with_sort.bytes_sent, outcomes, strict=True):
        assert said == pytest.approx(outcome.statistics.bytes_sent, rel=0.25)
    with pytest.raises(PlanError, match="at most 200"):
        explain(one.plan, symbols={"both": 201})
    with pytest.raises(PlanError, match="at most 0"):
        explain(one.plan, symbols={"nonsense": 1})


@pytest.mark.parametrize("rows", [2, 12, 13, 1000, 4000])
async def test_sorts_are_predicted_within_a_third(rows, scheduled):
    """Their pivots are random, so rounds differ from run to run: the median of three is compared."""
    plan, inputs = sorting(rows, 64)
    told = explain(plan)
    rounds, sizes = [], []
    for _ in range(3):
        _, outcomes = await scheduled(plan, Replicated, inputs)
        rounds.append(outcomes[0].statistics.rounds)
        sizes.append(sum(outcome.statistics.bytes_sent for outcome in outcomes))
    assert told.rounds == pytest.approx(np.median(rounds), rel=1 / 3)
    assert sum(told.bytes_sent) == pytest.approx(np.median(sizes), rel=0.25)


def test_it_prints(example):
    text = str(explain(example(100).plan))
    assert "plan 'everything' on protocol 'replicated', 3 parties" in text
    assert "- pseudonyms (2 x 100) to the nodes" in text
    assert "both        taken as 67" in text


def test_dead_nodes_cost_nothing():
    b = Builder("dead")
    kind = Type(Form.RING, (10,), 16, 2.0**20)
    b.input("x", kind).rescale(8)
    told = explain(b.plan())
    assert (told.rounds, told.bytes_sent, told.disclosures) == (0, (0, 0, 0), ())
    assert "discloses nothing" in str(told)
