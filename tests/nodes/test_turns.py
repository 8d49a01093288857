"""Turns: never more at a time than allowed, fair among members, none lost when somebody gives up."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tercet.nodes.turns import Turns


async def test_members_take_turns():
    turns, order = Turns(1), []

    async def want(member, number):
        await turns.take(member)
        order.append(f"{member}{number}")

    await turns.take("x")
    async with trio.open_nursery() as nursery:
        for member, number in (("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("c", 2)):
            nursery.start_soon(want, member, number)
            await wait_all_tasks_blocked()
        assert turns.waiting == 6
        for _ in range(6):
            turns.give_back((["x", *order])[-1][0])
            await wait_all_tasks_blocked()
    assert order == ["a1", "b1", "c1", "a2", "c2", "a3"]
    turns.give_back("a")
    assert (turns.taken, turns.waiting) == (0, 0)


async def test_who_gives_up_loses_no_turn():
    turns = Turns(2)
    for member in "ac":
        await turns.take(member)
    scopes = [trio.CancelScope() for _ in range(3)]
    got = []

    async def want(scope, number):
        with scope:
            await turns.take("b")
            got.append(number)

    async with trio.open_nursery() as nursery:
        for number, scope in enumerate(scopes):
            nursery.start_soon(want, scope, number)
            await wait_all_tasks_blocked()
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        turns.give_back("a")
        scopes[0].cancel()  # too late, or in the same moment: the turn is taken or passed on
        await wait_all_tasks_blocked()
        if got == [0]:
            turns.give_back("b")
        turns.give_back("c")
        await wait_all_tasks_blocked()
    assert got in ([0, 2], [2])
    assert turns.taken == 1
    with trio.CancelScope() as scope:
        scope.cancel()
        await turns.take("c")
        pytest.fail("a turn was given to one that was cancelled")
    assert turns.taken == 1


async def test_one_turn_is_left_for_another_member():
    turns = Turns(3)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(turns.take, "a")
        await wait_all_tasks_blocked()
        assert (turns.taken, turns.waiting) == (2, 3)
        await turns.take("b")
        assert turns.taken == 3
        turns.give_back("b")
        await wait_all_tasks_blocked()
        assert (turns.taken, turns.waiting) == (2, 3)
        for _ in range(3):
            turns.give_back("a")
            await wait_all_tasks_blocked()
        assert (turns.taken, turns.waiting) == (2, 0)
    assert Turns(1)._may("a")
