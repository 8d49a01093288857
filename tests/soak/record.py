"""What a soak has seen: how each call ended, how long it took, which faults there were, and what was wrong.

A call may end with a result, which its caller has compared with what it must be, or with an error of Tercet
that has a reason. It may not take for ever, fail in a way that nobody foresaw, or accuse the protocol, since
nobody here breaks it. Everything else is a complaint, and a soak with a complaint has failed.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

import attrs
import trio

from tercet.errors import PrivacyError, ProtocolError, TercetError, TransportError

T = TypeVar("T")

BOUND_S = 300.0
"""How long a call may take: some faults, one after the other, each with time-outs and patience, waiting for
others' plans, and a slow machine."""
NEVER = (ProtocolError, PrivacyError)
"""Errors that no fault explains."""


class WrongResultError(Exception):
    """A result that is not what it must be."""


@attrs.define(eq=False)
class Record:
    """Counts of what has happened, and complaints."""

    outcomes: dict[str, Counter[str]] = attrs.field(factory=lambda: defaultdict(Counter))
    """By kind of call: how many were right, and how many ended with which error."""
    faults: Counter[str] = attrs.field(factory=Counter)
    seconds: dict[str, list[float]] = attrs.field(factory=lambda: defaultdict(list))
    reasons: Counter[str] = attrs.field(factory=Counter)
    """Texts of errors, without what differs from time to time."""
    complaints: list[str] = attrs.field(factory=list)
    calm: bool = False
    """Whether there are no faults now, so that no node may be lost."""

    def complain(self, what: str) -> None:
        """Note that something is wrong."""
        self.complaints.append(what)

    def summary(self) -> dict[str, Any]:
        """As JSON has it; `seconds` are the median and the longest."""
        return {
            "operations": {
                name: {
                    **counts,
                    "seconds": [round(one, 2) for one in _median_and_longest(self.seconds[name])],
                }
                for name, counts in sorted(self.outcomes.items())
            },
            "faults": dict(sorted(self.faults.items())),
            "reasons": dict(self.reasons.most_common()),
            "complaints": self.complaints,
        }


def _median_and_longest(seconds: list[float]) -> tuple[float, float]:
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2], ordered[-1]


class Watch:
    """Times the calls of one member in one session, and ends the session when a call takes too long."""

    def __init__(self, record: Record, member: str) -> None:
        self.record = record
        self.member = member
        self.lost = False
        """Whether the session ended with an error that a new connection may mend."""
        self._under_way = "connect"
        self._scope = trio.CancelScope()

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Around a session: it swallows what the session failed with, having noted it."""
        with self._scope:
            try:
                yield
            except TercetError:
                self.lost = True  # `call` has noted it
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                told = "".join(traceback.format_exception(error)[-6:])
                self.record.complain(f"{self.member}, {self._under_way}: failed in an unforeseen way: {told}")
        if self._scope.cancelled_caught:
            self.record.outcomes[self._under_way]["HANG"] += 1
            self.record.complain(f"{self.member}, {self._under_way}: did not end within {BOUND_S:g} s")

    async def call(self, what: str, awaitable: Awaitable[T]) -> T:
        """Wait for a call; note how long it took, and how it ended."""
        began, self._under_way = trio.current_time(), what
        self._scope.deadline = began + BOUND_S
        try:
            found = await awaitable
        except TercetError as error:
            self._note(what, error)
            raise
        finally:
            ended = trio.current_time()
            self.record.seconds[what].append(ended - began)
            self._scope.deadline = ended + BOUND_S  # also for what comes between calls, and for leaving
        self.record.outcomes[what]["right"] += 1
        return found

    def _note(self, what: str, error: TercetError) -> None:
        kind = type(error).__name__
        self.record.outcomes[what][kind] += 1
        self.record.reasons[f"{kind}: {_without_numbers(str(error))}"] += 1
        if isinstance(error, NEVER) or (self.record.calm and isinstance(error, TransportError)):
            self.record.complain(f"{self.member}, {what}: {kind}: {error}")

    def refute(self, what: str, why: str) -> None:
        """The call that ended last gave what is not so."""
        self.record.outcomes[self._under_way]["right"] -= 1
        self.record.outcomes[self._under_way]["WRONG"] += 1
        self.record.complain(f"{self.member}, {what}: {self._under_way}: wrong: {why}")


def _without_numbers(text: str) -> str:
    """An error with the numbers in it made equal, so that like ones are counted together."""
    return "".join("0" if one.isdigit() else one for one in text[:160])
