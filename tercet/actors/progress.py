"""How far a run is: what each party tells of it, and all parties together beside what the plan was to take.

A client that wants to know asks its nodes a few times a second. What they tell is public: rounds, bytes and
nodes done follow from the plan and the sizes that it declares. Sizes that a plan reveals while it runs are
not among those, since a gate may hold them back from the caller; so a party's word stands still from the
first of them on (see `Scheduler.progress`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import attrs
import trio

from tercet.errors import ProtocolError
from tercet.plans.plan import Plan

logger = logging.getLogger(__name__)

WATCHED_AFTER_S = 1.0
WATCH_EVERY_S = 0.4
"""How long a run takes before it is watched, and how often its nodes are asked how far it is."""
ROUND_S = 1.5e-3
"""About what a round takes besides latency."""
LEAST_S = 1e-6


@attrs.frozen
class Progress:
    """How far a run is at one party.

    Nodes of the plan that are done, of how many; rounds on the critical path and payload bytes sent so far.
    """

    done: int = 0
    nodes: int = 0
    rounds: int = 0
    bytes_sent: int = 0

    @classmethod
    def read(cls, fields: Any) -> Self:
        """From the wire. Raises ProtocolError."""
        match fields:
            case {"done": int(done), "nodes": int(nodes), "rounds": int(rounds), "bytes_sent": int(sent)}:
                if min(done, nodes, rounds, sent) >= 0:
                    return cls(done, nodes, rounds, sent)
        raise ProtocolError(f"{fields!r:.200} does not tell how far a run is; look at that node's release")


@attrs.frozen
class Reading:
    """How far a run is, all parties together: the `share` of its work from 0 to 1, rounds, bytes sent by all.

    `begun` is False for a run that waits for its turn or for owners, and for one that has ended.
    """

    share: float
    rounds: int
    bytes_sent: int
    begun: bool


Watch = Callable[[Reading], None]
"""Is told how far a run is."""


@attrs.frozen
class Forecast:
    """What a run is expected to take: rounds, bytes sent by all parties, and seconds without latency."""

    rounds: int
    bytes_sent: int
    seconds: float

    @classmethod
    def of(cls, plan: Plan, protocol: str, parties: int) -> Self:
        """From the declared costs of a plan and the profile of this machine; see `explain`."""
        from tercet.actors.estimate import explain  # which who runs no plan need not wait for

        found = explain(plan, protocol, parties)
        return cls(found.rounds, sum(found.bytes_sent), found.seconds)

    def reading(self, told: Sequence[Progress], latency_s: float) -> Reading:
        """Put together what the parties tell.

        Work is measured by bytes, or by nodes done where none are sent; waiting for the network by rounds,
        each of which takes `latency_s` besides its own time.
        """
        rounds, sent = min(one.rounds for one in told), sum(one.bytes_sent for one in told)
        done, nodes = sum(one.done for one in told), sum(one.nodes for one in told)
        worked = _part(sent, self.bytes_sent) if self.bytes_sent else _part(done, nodes)
        work_s = max(self.seconds - self.rounds * ROUND_S, LEAST_S)
        network_s = self.rounds * (ROUND_S + latency_s)
        share = (_part(rounds, self.rounds) * network_s + worked * work_s) / (network_s + work_s)
        return Reading(share, rounds, sent, begun=all(one.nodes > 0 for one in told))


async def follow(
    plan: Plan, watch: Watch, ask: Callable[[], Awaitable[Sequence[Progress]]], *, protocol: str, parties: int
) -> None:
    """Tell `watch` how far a run is, a few times a second once it has taken a while, until cancelled.

    `ask` asks all nodes. A run that was interrupted is waited for, until it goes on.
    """
    latency_s, begun = math.inf, False
    try:
        await trio.sleep(WATCHED_AFTER_S)
        forecast = await trio.to_thread.run_sync(Forecast.of, plan, protocol, parties, abandon_on_cancel=True)
        while True:
            asked = trio.current_time()
            told = await ask()
            latency_s = min(latency_s, (trio.current_time() - asked) / 2)
            reading = forecast.reading(told, latency_s)
            if reading.begun or not begun:  # else some nodes have answered already, or it was interrupted
                watch(reading)
            begun = begun or reading.begun
            await trio.sleep(WATCH_EVERY_S)
    except Exception as error:  # noqa: BLE001 - whoever looks on must not disturb the run, whose own errors tell
        logger.info("plan %s is no longer watched: %r", plan.name, error)


def _part(some: int, whole: int) -> float:
    return min(some / whole, 1.0) if whole else 0.0


__all__ = ["Forecast", "Progress", "Reading", "Watch", "follow"]
