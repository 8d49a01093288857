"""A session: one run of a plan at one party, from the first word of a peer to the answer to the client.

A session is pure bookkeeping plus a cancel scope: the party feeds it what peers say, and runs it. It starts
once every peer has said which plan it was given, and that it has the same keys of groups, if there are any;
what they send before that waits here, within what the plan declares.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import trio

from tercet.actors.alike import sealed
from tercet.actors.group_keys import GroupKeys, groups_of, read_words
from tercet.actors.lowering import Allowance, lower, runs_in_lockstep
from tercet.actors.parts import Handover, Parcel, Part
from tercet.actors.progress import Progress
from tercet.actors.rounds import Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.actors.storage import ValueInParts
from tercet.actors.threads import in_thread, turn
from tercet.errors import PlanError, ProtocolError, TercetError
from tercet.plans.plan import Plan
from tercet.plans.shards import NODE, Shards
from tercet.plans.tiles import Costs, Layout, Ledger
from tercet.protocols.base import Protocol
from tercet.protocols.domains import Words
from tercet.protocols.prg import session_key
from tercet.transports.names import party_name, worker_name

NONCE_BYTES = 32
DIGEST_BYTES = 32


@attrs.frozen
class Start:
    """What a party says when it starts a plan.

    The plan's digest, its nonce for the keys of pairs, a seed for each group that the peer is in as well, of
    a protocol whose groups have keys, and a digest of what both hold of dealt values, if anything; and a seal
    of all that: a nonce that was damaged on its way would give two parties different keys, and nothing else
    might notice.
    """

    digest: bytes
    nonce: bytes
    seeds: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    alike: bytes = b""
    seal: bytes = b""

    def sealed(self, key: bytes, session: bytes, sender: int) -> Start:
        """The same with its seal, under the key of a link, as one end of that says it in a session."""
        said = [session, sender.to_bytes(8, "little"), self.digest, self.nonce, *self.seeds, self.alike]
        digest = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES, person=b"tercet-start")
        for part in said:
            digest.update(len(part).to_bytes(8, "little") + part)
        return attrs.evolve(self, seal=digest.digest())

    def to_wire(self) -> list[Any]:
        """What `read` takes."""
        return [self.digest, self.nonce, list(self.seeds), self.alike, self.seal]

    @classmethod
    def read(cls, digest: Any, nonce: Any, seeds: Any, alike: Any, seal: Any, *, groups: int) -> Start:
        """From the wire, with a seed for each of so many groups. Raises ProtocolError."""
        words = [digest, nonce, seal] if alike == b"" else [digest, nonce, seal, alike]
        read_words(words, len(words), "a start message")
        return cls(digest, nonce, read_words(seeds, groups, "a start message"), alike, seal)


class RollCall:
    """What all peers are to say, each of them once: who has, and what."""

    def __init__(self, peers: Iterable[int]) -> None:
        self.said: dict[int, Any] = {}
        self._peers = list(peers)
        self._all = trio.Event()
        self._look()

    def note(self, peer: int, said: Any = None) -> None:
        """A peer has said it."""
        self.said[peer] = said
        self._look()

    def _look(self) -> None:
        if not self.missing:
            self._all.set()

    @property
    def missing(self) -> list[int]:
        """The peers that have not said it yet."""
        return [peer for peer in self._peers if peer not in self.said]

    async def wait(self, seconds: float) -> list[int]:
        """Wait until all have said it; those who have not after `seconds`."""
        with trio.move_on_after(seconds):
            await self._all.wait()
        return self.missing


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
        party: int,
        parties: int,
        *,
        caller: str = "",
        alike: Mapping[int, bytes] | None = None,
        part: Part | None = None,
    ) -> None:
        self.name = name
        self.part = part
        self.caller = caller
        self.plan = plan
        self.own = Start(plan.digest(), secrets.token_bytes(NONCE_BYTES))
        self.in_parts: Mapping[int, ValueInParts] = {}
        """Values to be stored that workers of this party write, by nodes that store them."""
        self.scope = trio.CancelScope()
        self.error: TercetError | None = None
        self.symbols: dict[str, int] = {}
        self._party = party
        self._alike = {} if alike is None else alike
        self.peers = [peer for peer in range(parties) if peer != party]
        self.starts, self.confirmations = RollCall(self.peers), RollCall(self.peers)
        self.ends = RollCall(self.peers)
        self._one_started = trio.Event()
        self._groups = GroupKeys(name, party, parties) if groups_of(protocol, parties) else None
        self.in_lockstep = runs_in_lockstep(plan)
        self._runner: Runner | None = None
        self._early: list[tuple[int, Any, Words]] = []
        self._told_to_end = False
        self._ledger: Ledger | Allowance
        if self.in_lockstep:
            self._ledger = Allowance(lower(plan, protocol, parties))
        else:
            # The node of a party runs alone what workers run together, or not at all.
            workers = 0 if part is None or part.member == NODE else part.workers
            most = ChainMap(self.symbols, dict(plan.maxima))
            layout = Layout(plan, most, workers=workers, protocol=protocol)
            self._ledger = Ledger(Costs(layout, protocol, parties), self._may_run(protocol))

    def _may_run(self, protocol: type[Protocol]) -> Callable[[int, int], bool] | None:
        """Whether an instance runs at this member, as far as the numbers behind symbols are known here."""
        if self.part is None:
            return None
        layout = Layout(self.plan, self.symbols, workers=self.part.workers, protocol=protocol)
        return functools.partial(Shards(layout).may_run, self.part.member)

    # -- before the run --------------------------------------------------------------------------------------

    def own_start(self, peer: int, key: bytes) -> list[Any]:
        """What this party says to a peer when it starts, over a link with this key."""
        seeds = [] if self._groups is None else self._groups.seeds_for(peer)
        alike = sealed(self._alike.get(peer, b""), key, self.name, self._party)
        said = attrs.evolve(self.own, seeds=tuple(seeds), alike=alike)
        return ["start", self.name, *said.sealed(key, self.name, self._party).to_wire()]

    def damaged(self, keys: Mapping[int, bytes]) -> list[int]:
        """The peers whose starts are not as they have said them, once all have, by keys of links."""
        said = self.starts.said
        return [peer for peer, key in keys.items() if said[peer] != said[peer].sealed(key, self.name, peer)]

    def unlike(self, keys: Mapping[int, bytes]) -> list[int]:
        """The peers that hold other words of dealt values, once all have started, by keys of links."""
        return [
            peer
            for peer, key in keys.items()
            if self.starts.said[peer].alike != sealed(self._alike.get(peer, b""), key, self.name, peer)
        ]

    def start(self, peer: int, said: Start) -> None:
        """Note what a peer said."""
        if peer in self.starts.said:
            self.fail(ProtocolError(f"party {peer} started the session twice; names are used once"))
        elif said.digest != self.own.digest:
            self.fail(
                PlanError(
                    f"party {self._party} and party {peer} were given different plans under one "
                    "session; nothing was run"
                )
            )
        else:
            if self._groups is not None:
                self._groups.hear(peer, said.seeds)
            self.starts.note(peer, said)
            self._one_started.set()

    async def started_by(self, party: int) -> None:
        """Wait until a peer has started, for as long as it takes."""
        while party not in self.starts.said:
            await self._one_started.wait()
            self._one_started = trio.Event()

    def own_confirmations(self) -> dict[int, list[Any]]:
        """What this party says to each peer once all have started; nothing where groups have no keys."""
        if self._groups is None:
            return {}
        self._groups.make()
        return {peer: ["confirm", self.name, self._groups.digests(self._party, peer)] for peer in self.peers}

    def confirm(self, peer: int, digests: Any) -> None:
        """Note what a peer said of the keys of groups."""
        try:
            said = read_words(digests, len(self.peers) - 1, f"a confirmation of keys of party {peer}")
        except ProtocolError as error:
            self.fail(error)
            return
        if peer not in self.starts.said or peer in self.confirmations.said:
            self.fail(ProtocolError(f"party {peer} confirmed keys twice, or before it had started"))
        else:
            self.confirmations.note(peer, said)

    def group_keys(self) -> dict[int, bytes]:
        """The keys of groups, once all peers have confirmed them. Raises ProtocolError if they differ."""
        if self._groups is None:
            return {}
        self._groups.check(self.confirmations.said)
        return self._groups.keys

    def key_with(self, peer: int, master: bytes) -> bytes:
        """The key of this party and a peer in this session, from that of their link, once it has started."""
        nonces = {self._party: self.own.nonce}
        if peer != self._party:
            nonces[peer] = self.starts.said[peer].nonce
        return session_key(master, self.name, nonces)

    # -- the run ---------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether its plan runs here, so that it takes what other members of the party have made."""
        return self._runner is not None

    def progress(self) -> Progress:
        """How far this party is."""
        return Progress() if self._runner is None else self._runner.progress()

    def begin(self, runner: Runner) -> None:
        """Hand what has arrived so far to what runs the plan, and all that comes from now on."""
        self._runner = runner
        early, self._early = self._early, []
        for frame in early:
            self.take(*frame)
        if self._told_to_end:
            self.tell_to_end()

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
            own = party_name(self._party)
            if self.part is not None and self.part.member != NODE:
                own = worker_name(self._party, self.part.member)
            self.fail(
                ProtocolError(
                    f"{own} has no room, in memory or its scratch, for what party {peer} sent; make room "
                    "there, or use smaller tables"
                )
            )
        elif self._runner is None:
            self._early.append((peer, entries, payload))
        else:
            try:
                self._runner.take(peer, entries, payload)
            except TercetError as error:
                self.fail(error)

    def receive(self, parcel: Parcel | Handover) -> None:
        """Take what another member of this party has made, once this run has begun."""
        if self.error is None and isinstance(self._runner, Scheduler):
            try:
                self._runner.receive(parcel)
            except TercetError as error:
                self.fail(error)

    def tell_to_end(self) -> None:
        """The node of the party has all that it waits for: what a worker runs may end."""
        self._told_to_end = True
        if isinstance(self._runner, Scheduler):
            self._runner.end()

    def end(self, peer: int) -> None:
        """Note that a peer's run has ended well."""
        if peer not in self.starts.said or peer in self.ends.said:
            self.fail(ProtocolError(f"party {peer} ended the session twice, or before it had started"))
        else:
            self.ends.note(peer)

    def fail(self, error: TercetError) -> None:
        """End the session with the first error that struck it."""
        if self.error is None:
            self.error = error
        self.scope.cancel()
