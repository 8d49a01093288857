"""Turns: how many plans run at a time, and whose is next.

Party 0 gives the turns, and the others begin a plan when party 0 has: were each to queue by itself, two plans
could wait for each other at different nodes. Members take turns, whoever has asked for how many plans, so
nobody waits for all plans of someone else.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque

import attrs
import trio


@attrs.define(eq=False)
class Turns:
    """At most `at_once` turns are taken; the rest wait, in order for each member, round robin among them.

    A member has all but one of them at most, so that one is free when another member comes.
    """

    at_once: int
    taken: int = 0
    _of: Counter[str] = attrs.field(factory=Counter)
    _waiting: OrderedDict[str, deque[trio.Event]] = attrs.field(factory=OrderedDict)

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return sum(map(len, self._waiting.values()))

    async def take(self, member: str) -> None:
        """Wait for a turn; whoever got one has to give it back."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._may(member):
            self._give(member)
            return
        mine = trio.Event()
        self._waiting.setdefault(member, deque()).append(mine)
        try:
            await mine.wait()
        except trio.Cancelled:
            if mine.is_set():
                self.give_back(member)
            else:
                self._leave(member, mine)
            raise

    def give_back(self, member: str) -> None:
        """End a turn of a member: it passes to who has waited for longest since their last one, and may."""
        self.taken -= 1
        self._of[member] -= 1
        other = next((one for one in self._waiting if self._may(one)), None)
        if other is None:
            return
        events = self._waiting[other]
        self._give(other)
        events.popleft().set()
        self._waiting.move_to_end(other)
        if not events:
            del self._waiting[other]

    def _may(self, member: str) -> bool:
        return self.taken < self.at_once and self._of[member] < max(1, self.at_once - 1)

    def _give(self, member: str) -> None:
        self.taken += 1
        self._of[member] += 1

    def _leave(self, member: str, mine: trio.Event) -> None:
        self._waiting[member].remove(mine)
        if not self._waiting[member]:
            del self._waiting[member]
