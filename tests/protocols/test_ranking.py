"""Ranking: the exact order with ties by position, few comparisons, and an allowance that is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import ProtocolError
from tercet.protocols.domains import BITS
from tercet.protocols.plain import Plain
from tercet.protocols.ranking import (
    distinct,
    expected_cost,
    openings,
    rank,
    ranks,
    sort_rows,
    sort_rows_cost,
    sort_tables,
)
from tercet.protocols.replicated import Replicated
from tercet.protocols.samplesort import ALL_PAIRS, ROOM, sort
from tercet.testing.lockstep import lockstep, parties, reconstruct, share


def in_the_clear(keys):
    """`sort` by clear keys: the order, the comparisons, the steps and the packed words."""
    counts = []

    def less(first, second, rows):
        left, right = rows[first], rows[second]
        counts.append(left.size)
        yield from ()
        return (keys[left] < keys[right]) | ((keys[left] == keys[right]) & (left < right))

    order = lockstep([sort(keys.size, less)]).results[0]
    return order, sum(counts), len(counts), sum(-(-count // 64) for count in counts)


def ranked(cls, keys, bits, *, allowance=None):
    session = parties(cls)
    allowance = openings(keys.size) if allowance is None else allowance
    bound = [p.bind("rank", openings=allowance) for p in session]
    shares = share(session, keys.view(np.uint64))
    return lockstep([rank(p, x, bits) for p, x in zip(bound, shares, strict=True)], record=False)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 5000), st.integers(0, 2**32))
def test_any_keys_are_sorted_with_ties_by_position(rows, values, seed):
    keys = np.random.default_rng(seed).integers(-values, values, size=rows)
    order, *_ = in_the_clear(keys)
    np.testing.assert_array_equal(order, np.lexsort((np.arange(rows), keys)))


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 11, 12, 13, 14, 64, 65, 1000, 5000])
def test_shared_keys_are_sorted_alike_at_all_parties(rows):
    keys = np.random.default_rng(rows).integers(-(2**20) + 1, 2**20, size=rows) // 1000
    run = ranked(Replicated, keys, 21)
    for order in run.results:
        np.testing.assert_array_equal(order, np.lexsort((np.arange(rows), keys)))


@pytest.mark.parametrize("bits", [2, 8, 63])
def test_the_widest_keys_are_compared_exactly(bits):
    most = 2 ** (bits - 1) - 1
    keys = np.array([most, -most, 0, most, -most, most - 1, 1 - most, 0, -1, 1] * 3)
    np.testing.assert_array_equal(ranked(Replicated, keys, bits).results[0], np.argsort(keys, kind="stable"))


def test_few_comparisons_and_steps_for_many_rows():
    rows = 100_000
    order, comparisons, steps, words = in_the_clear(np.random.default_rng(1).permutation(rows))
    assert order.size == rows
    assert comparisons <= 1.15 * rows * np.log2(rows)
    assert steps <= 40
    assert words <= openings(rows)


@pytest.mark.parametrize("rows", [2, 12, 13, 30, 100, 300, 1000, 3000])
def test_the_allowance_is_never_exceeded(rows):
    rng = np.random.default_rng(rows)
    used = [in_the_clear(rng.permutation(rows))[3] for _ in range(100)]
    assert max(used) <= openings(rows)
    # What is left is slack for bad luck, not carelessness.
    assert openings(rows) <= 4.2 * max(used) + 80


@pytest.mark.parametrize("cls", [Plain, Replicated])
@pytest.mark.parametrize("rows", [0, 1, 20, 500])
def test_rows_are_sorted_by_their_key_and_keep_the_order_of_equals(cls, rows):
    keys = np.random.default_rng(rows).integers(-5, 6, size=rows)
    others = np.arange(2 * rows, dtype=np.uint64).reshape(2, rows)
    session = parties(cls)
    shares = zip(share(session, keys.view(np.uint64)), share(session, others, domain=BITS), strict=True)
    bound = [p.bind("sort", openings=openings(rows)) for p in session]
    run = lockstep([sort_rows(p, s, 4) for p, s in zip(bound, shares, strict=True)])
    columns = [reconstruct(session, [columns[i] for columns in run.results]) for i in range(2)]
    order = np.argsort(keys, kind="stable")
    np.testing.assert_array_equal(columns[0].view(np.int64), keys[order])
    np.testing.assert_array_equal(columns[1], others[:, order])
    cost = sort_rows_cost(bound[0], [bound[0].spec((rows,)), bound[0].spec((2, rows), domain=BITS)], 4)
    assert abs(sum(run.sent) - cost.total) <= 0.4 * cost.total


@pytest.mark.parametrize("cls", [Plain, Replicated])
def test_several_tables_are_sorted_in_the_rounds_of_the_longest(cls):
    sizes, rng = [300, 0, 301, 1, 40], np.random.default_rng(7)
    tables = [rng.integers(-500, 500, size=rows) for rows in sizes]
    session = parties(cls)
    shares = [share(session, keys.view(np.uint64)) for keys in tables]
    allowance = sum(map(openings, sizes))
    bound = [p.bind("sort", openings=allowance) for p in session]
    each = [[[column[party], column[party]] for column in shares] for party in range(len(session))]
    run = lockstep([sort_tables(p, columns, 11) for p, columns in zip(bound, each, strict=True)])
    for number, keys in enumerate(tables):
        for column in range(2):
            found = reconstruct(session, [result[number][column] for result in run.results])
            np.testing.assert_array_equal(found.view(np.int64), np.sort(keys))
    bound = [p.bind("one", openings=allowance) for p in session]
    alone = lockstep([sort_tables(p, columns[:1], 11) for p, columns in zip(bound, each, strict=True)])
    assert run.rounds <= 1.6 * alone.rounds


def test_keys_of_several_lists_are_ranked_with_ties_by_position():
    lists = [np.random.default_rng(n).integers(-9, 9, size=n) for n in (70, 5, 13, 0)]
    session = parties(Replicated)
    bound = [p.bind("ranks", openings=sum(openings(keys.size) for keys in lists)) for p in session]
    shares = zip(*(share(session, keys.view(np.uint64)) for keys in lists), strict=True)
    run = lockstep([ranks(p, keys, 5) for p, keys in zip(bound, shares, strict=True)])
    for orders in run.results:
        for keys, order in zip(lists, orders, strict=True):
            np.testing.assert_array_equal(order, np.argsort(keys, kind="stable"))


def test_the_order_that_is_shown_hangs_on_the_shuffle_alone():
    """Equal or not, keys leave no trace in the public order: with one seed, it is the same."""
    orders = []
    for keys in (np.zeros(200, dtype=np.int64), np.arange(200), np.arange(200) // 7):
        session = parties(Replicated, seed=b"the same")
        bound = [p.bind("sort", openings=openings(200)) for p in session]
        made = [distinct(p, x, 9) for p, x in zip(bound, share(session, keys.view(np.uint64)), strict=True)]
        run = lockstep([_shuffled_rank(p, x, bits) for p, (x, bits) in zip(bound, made, strict=True)])
        orders.append(run.results[0].tolist())
    assert orders[0] == orders[1] == orders[2] != sorted(orders[0])


def _shuffled_rank(protocol, keys, bits):
    [keys] = yield from protocol.shuffle([keys])
    return (yield from rank(protocol, keys, bits))


@pytest.mark.parametrize("rows", [1, 12, 100, 300, 1000, 3000, 20_000])
def test_the_expected_cost_is_about_right(rows):
    run = ranked(Replicated, np.random.default_rng(rows).permutation(rows), 20)
    cost = expected_cost(parties(Replicated)[0], rows, 20)
    assert abs(run.rounds - cost.rounds) <= 0.35 * cost.rounds
    assert abs(sum(run.sent) - cost.total) <= 0.4 * cost.total


@pytest.mark.parametrize("rows", [2, 12, 100, ALL_PAIRS])
def test_few_rows_are_sorted_in_one_step_whatever_their_order(rows):
    for seed in range(3):
        run = ranked(Plain, np.random.default_rng(seed).permutation(rows), 20)
        cost = expected_cost(parties(Plain)[0], rows, 20)
        assert (run.rounds, tuple(run.sent)) == (cost.rounds, cost.sent)


@pytest.mark.parametrize(
    ("rows", "most"), [(ALL_PAIRS + 1, 3), (1000, 4), (2000, 5), (4000, 7), (16_000, 17)]
)
def test_some_thousand_rows_take_few_steps_of_a_bounded_size(rows, most):
    sizes = []

    def less(first, second, order):
        left, right = order[first], order[second]
        sizes.append(left.size)
        yield from ()
        return keys[left] < keys[right]

    for seed in range(5):
        keys = np.random.default_rng(seed).permutation(rows)
        sizes.clear()
        np.testing.assert_array_equal(lockstep([sort(rows, less)]).results[0], np.argsort(keys))
        assert len(sizes) <= most
        assert max(sizes) <= ROOM


def test_rows_in_the_worst_order_are_sorted_all_the_same():
    """Pivots are the first rows: in ascending order, each step leaves nearly all rows in one bucket."""
    order, *_ = in_the_clear(np.arange(3000))
    np.testing.assert_array_equal(order, np.arange(3000))


def test_equal_keys_become_distinct_in_their_order():
    keys = np.array([5, -3, 5, 5, -3, 0])
    for cls in (Plain, Replicated):
        session = parties(cls)
        made = [
            distinct(p, x, 4)
            for p, x in zip(session, share(session, keys.view(np.uint64), scale=2), strict=True)
        ]
        assert {bits for _, bits in made} == {7}
        values = reconstruct(session, [x for x, _ in made]).view(np.int64)
        assert np.unique(values).size == keys.size
        np.testing.assert_array_equal(np.argsort(values), np.argsort(keys, kind="stable"))
        assert np.abs(values).max() < 2**6


def test_widths_that_do_not_fit_are_refused():
    [protocol] = parties(Plain)
    keys = protocol.constant(np.arange(100, dtype=np.uint64))
    with pytest.raises(ProtocolError, match="keys of 57 bits and row numbers of 7 bits"):
        distinct(protocol, keys, 57)
    with pytest.raises(ProtocolError, match="keys of 64 bits cannot be ranked"):
        next(rank(protocol, keys, 64))
