"""Turns: how many plans run at a time, and whose is next.

Party 0 gives the turns, and the others begin a plan when party 0 has: were each to queue by itself, two plans
could wait for each other at different nodes. Members take turns, whoever has asked for how many plans, so
nobody waits for all plans of someone else.
"""

from __future__ import annotations

from collections import OrderedDict, deque

import attrs
import trio


@attrs.define(eq=False)
class Turns:
    """At most `at_once` turns are taken; the rest wait, in order for each member, round robin among them."""

    at_once: int
    taken: int = 0
    _waiting: OrderedDict[str, deque[trio.Event]] = attrs.field(factory=OrderedDict)

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return sum(map(len, self._waiting.values()))

    async def take(self, member: str) -> None:
        """Wait for a turn; whoever got one has to give it back."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.taken < self.at_once:
            self.taken += 1
            return
        mine = trio.Event()
        self._waiting.setdefault(member, deque()).append(mine)
        try:
            await mine.wait()
        except trio.Cancelled:
            if mine.is_set():
                self.give_back()
            else:
                self._leave(member, mine)
            raise

    def give_back(self) -> None:
        """End a turn: it passes to the member who has waited for longest since their last one."""
        if not self._waiting:
            self.taken -= 1
            return
        member, events = next(iter(self._waiting.items()))
        events.popleft().set()
        self._waiting.move_to_end(member)
        if not events:
            del self._waiting[member]

    def _leave(self, member: str, mine: trio.Event) -> None:
        self._waiting[member].remove(mine)
        if not self._waiting[member]:
            del self._waiting[member]
