"""Which workers of a party are here, and since when and why others are not: for who looks after its node."""

from __future__ import annotations

import time
from typing import Any

import attrs

STARTED_ANEW = "all workers of its party are started anew"


@attrs.frozen
class WorkerState:
    """Whether a worker is `here`, since when (seconds since 1970), and why not."""

    here: bool
    since: float
    why: str = ""


class Presence:
    """The states of a party's workers, by number; none is here at first."""

    def __init__(self, workers: int) -> None:
        self.states = [WorkerState(False, time.time(), "it has not been here yet")] * workers

    def come(self) -> None:
        """All of them are here."""
        self.states = [WorkerState(True, time.time()) for _ in self.states]

    def leave(self, lost: int | None, why: str) -> None:
        """None of them is here any more, since one is lost; or all are missing for the same reason."""
        now = time.time()
        for number, state in enumerate(self.states):
            since = now if state.here else state.since
            if lost in (None, number):
                self.states[number] = WorkerState(False, since, why)
            elif state.here:
                self.states[number] = WorkerState(False, since, STARTED_ANEW)

    def to_wire(self) -> list[list[Any]]:
        """What a node says of them: `[here, since, why]` each."""
        return [list(attrs.astuple(state)) for state in self.states]

    @property
    def missing(self) -> list[int]:
        """The numbers of those that are not here."""
        return [number for number, state in enumerate(self.states) if not state.here]
