"""A session: one run of a plan at one party, from the first word of a peer to the answer to the client.

A session is pure bookkeeping plus a cancel scope: the party feeds it what peers say, and runs it. It starts
once every peer has said which plan it was given; what they send before that waits here, within what the plan
declares.
"""

from __future__ import annotations

import secrets
from collections import ChainMap
from typing import Any

import attrs
import trio

from tercet.actors.lowering import Allowance, lower, runs_in_lockstep
from tercet.actors.progress import Progress
from tercet.actors.rounds import Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.actors.threads import in_thread, turn
from tercet.errors import PlanError, ProtocolError, TercetError
from tercet.plans.plan import Plan
from tercet.plans.tiles import Costs, Layout, Ledger
from tercet.protocols.base import Protocol
from tercet.protocols.domains import Words

NONCE_BYTES = 32
DIGEST_BYTES = 32


@attrs.frozen
class Start:
    """What a party says when it starts a plan: the plan's digest, and its nonce for the session's keys."""

    digest: bytes
    nonce: bytes

    @classmethod
    def read(cls, digest: Any, nonce: Any) -> Start:
        """From the wire. Raises ProtocolError."""
        for value, size in ((digest, DIGEST_BYTES), (nonce, NONCE_BYTES)):
            if not isinstance(value, bytes) or len(value) != size:
                raise ProtocolError("a start message has no proper digest and nonce")
        return cls(digest, nonce)


LONG_PLAN = 1 << 10
"""What follows from plans of more nodes is worked out in a thread, so that heartbeats go on."""


async def work_out(plan: Plan, protocol: type[Protocol], parties: int) -> None:
    """Find what all runs of a plan have in common, before a session needs it."""

    def find() -> None:
        with turn(plan.apart_from_handles):
            if runs_in_lockstep(plan):
                lower(plan, protocol, parties)

    if len(plan.nodes) > LONG_PLAN:
        await in_thread(find)


Runner = Scheduler | Lockstep
"""What runs a plan at one party."""


class Session:
    """One run of a plan at one party."""

    def __init__(
        self,
        name: bytes,
        plan: Plan,
        protocol: type[Protocol],
        *,
        party: int,
        parties: int,
        caller: str = "",
    ) -> None:
        self.name = name
        self.caller = caller
        self.plan = plan
        self.own = Start(plan.digest(), secrets.token_bytes(NONCE_BYTES))
        self.scope = trio.CancelScope()
        self.error: TercetError | None = None
        self.symbols: dict[str, int] = {}
        self._party = party
        self._parties = parties
        self._starts: dict[int, Start] = {}
        self._one_started = trio.Event()
        self._all_started = trio.Event()
        self.in_lockstep = runs_in_lockstep(plan)
        self._runner: Runner | None = None
        self._early: list[tuple[int, Any, Words]] = []
        self._ledger: Ledger | Allowance
        if self.in_lockstep:
            self._ledger = Allowance(lower(plan, protocol, parties))
        else:
            layout = Layout(plan, ChainMap(self.symbols, dict(plan.maxima)))
            self._ledger = Ledger(Costs(layout, protocol, parties))
        if parties == 1:
            self._all_started.set()

    # -- before the run --------------------------------------------------------------------------------------

    def start(self, peer: int, said: Start) -> None:
        """Note what a peer said."""
        if peer in self._starts:
            self.fail(ProtocolError(f"party {peer} started the session twice; names are used once"))
            return
        self._starts[peer] = said
        self._one_started.set()
        if said.digest != self.own.digest:
            self.fail(
                PlanError(
                    f"party {self._party} and party {peer} were given different plans under one "
                    "session; nothing was run"
                )
            )
        elif len(self._starts) == self._parties - 1:
            self._all_started.set()

    async def started_by(self, party: int) -> None:
        """Wait until a peer has started, for as long as it takes."""
        while party not in self._starts:
            await self._one_started.wait()
            self._one_started = trio.Event()

    async def wait_for_starts(self, seconds: float) -> list[int]:
        """Wait until all peers have started; those that have not after `seconds`."""
        with trio.move_on_after(seconds):
            await self._all_started.wait()
        return [party for party in range(self._parties) if party != self._party and party not in self._starts]

    def nonces(self) -> list[bytes]:
        """The nonces of all parties, in order."""
        starts = {**self._starts, self._party: self.own}
        return [starts[party].nonce for party in range(self._parties)]

    # -- the run ---------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """How far this party is."""
        return Progress() if self._runner is None else self._runner.progress()

    def begin(self, runner: Runner) -> None:
        """Hand what has arrived so far to what runs the plan, and all that comes from now on."""
        self._runner = runner
        early, self._early = self._early, []
        for frame in early:
            self.take(*frame)

    def admit(self, peer: int, entries: Any, size: int) -> bool:
        """Whether a peer may send this frame now; if not, the session fails.

        `entries` says what is in it: its messages, or the number of a round in lockstep.
        """
        if self.error is not None:
            return False
        try:
            self._ledger.charge(peer, entries, size)
        except TercetError as error:
            self.fail(error)
            return False
        return True

    def take(self, peer: int, entries: Any, payload: Words | None) -> None:
        """Take a frame of a peer that was admitted."""
        if self.error is not None:
            return
        if payload is None:
            self.fail(
                ProtocolError(
                    f"party {self._party} has no memory for what party {peer} sent; use smaller tables"
                )
            )
        elif self._runner is None:
            self._early.append((peer, entries, payload))
        else:
            try:
                self._runner.take(peer, entries, payload)
            except TercetError as error:
                self.fail(error)

    def fail(self, error: TercetError) -> None:
        """End the session with the first error that struck it."""
        if self.error is None:
            self.error = error
        self.scope.cancel()
