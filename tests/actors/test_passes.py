"""Passes keep what a plan means and discloses."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.errors import PlanError
from tercet.plans import Builder, Form, Type
from tercet.plans.passes import (
    checkpoint_handle,
    checkpoints,
    drop_dead,
    optimise,
    rest,
    truncate_late,
)
from tercet.protocols.plain import Plain
from tercet.protocols.replicated import Replicated


def ring(*shape, scale=8, limit=2.0**20):
    return Type(Form.RING, shape, scale, limit)


def kinds(plan):
    return [node.kind for node in plan.nodes]


def test_dead_nodes_go_and_the_rest_stays(example):
    b = Builder("dead", tile_rows=64)
    x, y = b.input("x", ring(10)), b.input("y", ring(10))
    (y * y).rescale(8)
    x.open("nobody reads it")
    (x * 2).reveal("r", to="me")
    plan = drop_dead(b.plan())
    assert kinds(plan) == ["input", "constant", "mul", "reveal"]
    assert [str(told) for told in plan.disclosures()] == ["r (10) to me"]
    assert drop_dead(plan).digest() == plan.digest()
    assert drop_dead(Builder("empty").plan()).nodes == ()


def test_symbols_survive(example):
    plan = example(100).plan
    assert drop_dead(plan).maxima == plan.maxima


def late(limit, rows=100, *, columns=False):
    b = Builder("late", tile_rows=64)
    x = b.input("x", ring(2, rows, limit=limit))
    cut = x.rescale(4)
    (cut.sum_columns() if columns else cut.sum()).reveal("sum", to="me")
    return b.plan()


@pytest.mark.parametrize("columns", [False, True])
def test_truncation_moves_behind_a_sum_that_fits(columns):
    plan = optimise(late(2.0**40, columns=columns))
    assert kinds(plan) == ["input", "sum_columns" if columns else "sum", "truncate", "reveal"]
    assert plan.nodes[-1].types[0].shape == ((100,) if columns else (2,))


def test_truncation_stays_where_the_sum_would_not_fit():
    plan = late(2.0**60)
    assert kinds(optimise(plan)) == kinds(plan) == ["input", "truncate", "sum", "reveal"]


def test_truncation_stays_where_something_else_reads_it():
    b = Builder("two readers", tile_rows=64)
    cut = b.input("x", ring(2, 100)).rescale(4)
    cut.sum().reveal("sum", to="me")
    cut.reveal("all", to="me")
    assert kinds(truncate_late(b.plan())) == kinds(b.plan())


@pytest.mark.parametrize("protocol", [Plain, Replicated])
async def test_late_truncation_means_the_same(protocol, scheduled):
    plan = late(2.0**20, rows=200)
    words = np.random.default_rng(1).integers(-(2**19), 2**19, (2, 200))
    inputs = {"x": (ring(2, 200), words.view(np.uint64))}
    early, before = await scheduled(plan, protocol, inputs)
    found, after = await scheduled(optimise(plan), protocol, inputs)
    true = words.sum(axis=1) / 2.0**8
    np.testing.assert_allclose(found["sum"], true, rtol=0, atol=2.0**-4)
    np.testing.assert_allclose(early["sum"], true, rtol=0, atol=200 * 2.0**-4)
    if protocol is Replicated:
        assert after[0].statistics.bytes_sent < before[0].statistics.bytes_sent / 50


async def test_passes_keep_the_meaning_of_everything(example, scheduled, verified):
    one = example(130)
    revealed, _ = await scheduled(optimise(one.plan), Plain, one.inputs)
    verified(one, revealed)
    assert set(optimise(one.plan).disclosures()) == set(one.plan.disclosures())


def in_steps():
    """A plan of three steps, with a checkpoint after each of the first two."""
    b = Builder("steps", tile_rows=64)
    x, y = b.input("x", ring(2, 100)), b.input("y", ring(2, 100))
    z = (x * y).rescale(8)
    z.checkpoint(1, "z 1")
    w = (z + y).rescale(4)
    w.checkpoint(2, "w 2")
    z.sum().checkpoint(2, "total 2")
    (w + y).sum().reveal("sum", to="me")
    w.store("w")
    return optimise(b.plan())


async def test_the_rest_of_a_plan_gives_the_same(scheduled):
    plan = in_steps()
    words = np.random.default_rng(1).integers(-(2**19), 2**19, (2, 2, 100))
    inputs = {name: (ring(2, 100), one.view(np.uint64)) for name, one in zip("xy", words, strict=True)}
    whole, _ = await scheduled(plan, Plain, inputs)
    left = rest(plan, 1)
    assert (left.name, left.tile_rows, checkpoints(left)) == (plan.name, 64, {2: {"w 2", "total 2"}})
    z = (words[0] * words[1]) >> 8
    kept = {checkpoint_handle("z 1"): (left.nodes[0].types[0], z.view(np.uint64)), "y": inputs["y"]}
    found, outcomes = await scheduled(left, Plain, kept)
    np.testing.assert_allclose(found["sum"], whole["sum"], rtol=0, atol=1)
    assert list(outcomes[0].stored) == ["w"]
    assert left.disclosures() == plan.disclosures()


def test_what_is_left_reads_no_more_than_it_needs():
    plan = in_steps()
    assert checkpoints(plan) == {1: {"z 1"}, 2: {"w 2", "total 2"}}
    left = rest(plan, 2)
    read = [node.get("handle") for node in left.nodes if node.kind == "input"]
    assert sorted(read) == [*map(checkpoint_handle, ["total 2", "w 2"]), "y"]
    assert "truncate" not in kinds(left)
    assert checkpoints(left) == {}
    with pytest.raises(PlanError, match="has no checkpoint 3"):
        rest(plan, 3)


def test_what_was_drawn_at_random_is_not_drawn_again():
    b = Builder("drawn", tile_rows=64)
    x, key = b.input("x", Type(Form.WORDS, (2, 100))), b.random_words(2)
    names = b.apply("prf", key, x)
    names.checkpoint(1, "pseudonyms")
    b.apply("prf", key, names).store("more")
    with pytest.raises(PlanError, match=r"\(random\) comes before checkpoint 1 and after it"):
        rest(b.plan(), 1)


def test_names_of_checkpoints_are_used_once():
    b = Builder("twice", tile_rows=64)
    x = b.input("x", ring(10))
    x.checkpoint(1, "x")
    (x * 2).checkpoint(2, "x")
    with pytest.raises(PlanError, match="two checkpoints of 'x'"):
        checkpoints(b.plan())
