"""A node: a party with a listener, so that peers and clients can reach it.

Many nodes may live in one event loop; `main` runs one as a process, started by `cluster`. Links begin with a
hello from both ends (see `hello`). A client asks by messages `["put" | "submit" | "drop" | "trace", request,
...]` and is answered `["done", request, ...]` or `["failed", request, error]`; `["cancel", request]` takes a
question back. A client that leaves takes all of them back; how long what it has submitted goes on, it has
said itself (see `jobs`).
What a client may do, and requests beyond these, are the gate's to decide (see `gate`).
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import trio

from tercet.actors.engine import engine
from tercet.actors.gate import Gate
from tercet.actors.hello import Hello, greet
from tercet.actors.jobs import Jobs
from tercet.actors.line import CONNECT_S, Line
from tercet.actors.muster import Muster
from tercet.actors.party import Party
from tercet.actors.peer import link_key
from tercet.actors.service import FAREWELL_S, Caller, Deaf, Service
from tercet.actors.threads import counted
from tercet.actors.values import Outcome
from tercet.compiled import load_all
from tercet.errors import ConsentError, PeerLost, QuotaError, TercetError, TransportError
from tercet.plans.passes import Since
from tercet.protocols import registry
from tercet.transports import Identity, Link, Listener, Shaping, Transport
from tercet.transports import registry as transports
from tercet.transports.names import CLIENT, is_party, party_name

logger = logging.getLogger(__name__)

RETRY_S, LONGEST_RETRY_S = 0.25, 10.0
"""Pauses between attempts to link up with a peer: each twice the one before."""


class Node:
    """A party that listens: connects to the peers before it, accepts those after it, then serves clients.

    One that is `lasting` goes on when a peer is absent or lost, and links up with it again when it can.
    `lake` is what the ends of every link compare in their hellos, and `number` is which file it is of.
    """

    def __init__(
        self,
        party: Party,
        transport: Transport,
        *,
        shaping: Shaping,
        trusted_names: bool,
        lasting: bool = False,
        lake: bytes = b"",
        number: int = 0,
        gate: Gate | None = None,
        jobs: Jobs | None = None,
    ) -> None:
        self.party = party
        self.transport = transport
        self.shaping = shaping
        self.lasting = lasting
        self.gate = Gate() if gate is None else gate
        self.jobs = Jobs() if jobs is None else jobs
        self.clients: Counter[str] = Counter()
        """Clients that are connected now, by name."""
        self._callers: dict[str, Caller] = {}
        self._goes_by = lake, number
        self._others_go_by: dict[int, tuple[bytes, int]] = {}
        """By what peers go, as they have said last."""
        self._addresses: Sequence[str] = ()
        self._services: dict[str, set[Service]] = {}
        self._trusted_names = trusted_names
        self._listener: Listener | None = None
        self._expected = set(range(party.index + 1, party.parties))
        self._all_here = trio.Event()
        party.load, party.begin_in_parts = self.gate.load, self.gate.in_parts
        if lasting:
            party.on_list = self._heard_list

    async def listen(self, address: str, *, nursery: trio.Nursery) -> str:
        """Start to listen; returns the address with its port."""
        self._listener = await self.transport.listen(address, nursery=nursery)
        return self._listener.address

    async def serve(
        self, addresses: Sequence[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Link up with all peers, and serve until cancelled.

        `task_status` is told when the party can run plans; of a lasting node, when clients can connect.

        Raises PeerLost or TransportError if a peer cannot be linked up with, unless the node is lasting.
        """
        self._addresses = addresses
        if not self._expected:
            self._all_here.set()
        async with trio.open_nursery() as nursery:
            await nursery.start(self.party.run)
            self.jobs.start(self.run, nursery)
            nursery.start_soon(self._accept_all, nursery)
            for index in range(self.party.index):
                if self.lasting:
                    nursery.start_soon(self._stay_linked, index)
                else:
                    await self._connect(index)
            if not self.lasting:
                await self._all_here.wait()
            task_status.started()

    async def run(self, session: bytes, packed: bytes, caller: str, since: Since | None = None) -> Outcome:
        """Run a plan for a client, with the other parties; see `Party.run_plan`."""
        if self.party.stopping:
            raise self.party.cancelled("")
        with counted(self.caller(caller).threads):
            return await self.party.run_plan(session, packed, caller=caller, gate=self.gate, since=since)

    def caller(self, name: str) -> Caller:
        """What is counted for a client. Those who are pinned are few, so they are remembered."""
        return self._callers.setdefault(name, Caller(self.gate.clients))

    async def _stay_linked(self, index: int) -> None:
        """Link up with a peer again and again: whenever the link is lost, until it answers."""
        pause, told = RETRY_S, ""
        while True:
            try:
                await self._connect(index)
            except TercetError as error:
                if str(error) != told:
                    logger.warning("%s: %s", self.party.name, error)
                    told = str(error)
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_RETRY_S)
            else:
                logger.info("%s: linked up with %s", self.party.name, party_name(index))
                pause, told = RETRY_S, ""
                await self.party.until_lost(index)

    async def _connect(self, index: int) -> None:
        name, address = party_name(index), self._addresses[index]
        with trio.move_on_after(CONNECT_S) as scope:
            raw = await self.transport.connect(address, peer=name)
        if scope.cancelled_caught:
            raise PeerLost(
                f"{name} did not answer at {address} within {CONNECT_S:g} s; is it running?", peer=name
            )
        link = self.shaping.apply(raw)
        try:
            theirs, key = await self._greet(link)
            self._require_trust(raw)
            if theirs != name:
                raise TransportError(f"{theirs} answered at {address}, where {name} was expected")
        except BaseException:
            await link.aclose()
            raise
        self._link_up(index, link, key)

    def _link_up(self, index: int, link: Link, key: bytes) -> None:
        """Take a link to a peer. Lists that have followed while both said hello are compared then."""
        self._others_go_by.pop(index, None)
        self.party.add_peer(index, link, key)
        if self.lasting:
            self.party.tell(index, [self._goes_by[1], self._goes_by[0]], "list")

    async def _greet(self, link: Link) -> tuple[str, bytes]:
        """Exchange hellos; returns the role of the other end, and the link's key."""
        party = self.party
        mine = Hello(party.name, party.protocol.name, party.parties, *self._goes_by)
        theirs = await greet(link, mine, timeout_s=party.timeout_s)
        return theirs.role, link_key(mine.contribution, theirs.contribution)

    def _require_trust(self, raw: Link) -> None:
        """Raise TransportError if the lake's list of members has changed since the link was made."""
        if not self.transport.trusts(raw):
            raise TransportError(f"{raw.peer} has another certificate by now; the link was refused")

    async def _accept_all(self, nursery: trio.Nursery) -> None:
        if self._listener is None:
            raise TransportError("this node does not listen yet; call listen() before serve()")
        async with self._listener:
            while True:
                nursery.start_soon(self._accept, await self._listener.accept())

    async def _accept(self, raw: Link) -> None:
        link = self.shaping.apply(raw)
        try:
            role, key = await self._greet(link)
            self._require_trust(raw)
            pinned = raw.peer if self._trusted_names else role
            if role == CLIENT and not is_party(pinned):
                await self._serve_client(link, pinned)
            elif role != pinned:
                raise TransportError(f"{raw.peer} says that it is {role}; the link was refused")
            else:
                self._add(role, link, key)
        except TercetError as error:
            logger.warning("%s: %s", self.party.name, error)
            await link.aclose()
        except BaseException:
            await link.aclose()
            raise

    async def _serve_client(self, link: Link, name: str) -> None:
        link.peer = name
        limits = self.gate.clients
        if limits is not None and self.clients[name] >= limits.connections:
            await self._turn_away(link, limits.connections)
            return
        self.clients[name] += 1
        service = Service(self, link, name)
        self._services.setdefault(name, set()).add(service)
        try:
            await service.run()
        finally:
            self._services[name].discard(service)
            self.clients[name] -= 1

    def go_by(
        self,
        lake: bytes,
        number: int,
        addresses: Sequence[str],
        *,
        renewed: Collection[str],
        gone: Collection[str],
    ) -> None:
        """From now on, go by another list of the lake's members, and of addresses of nodes.

        Links end with peers and clients whose certificates were `renewed`, who may make them anew, with those
        who are `gone`, and with peers who go by another list of that number.
        """
        self._goes_by, self._addresses = (lake, number), addresses
        for index in range(self.party.parties):
            if party_name(index) in renewed:
                self.party.hang_up(index)
            else:
                self.party.tell(index, [number, lake], "list")
                self._compare_lists(index)
        me = self.party.name
        for name in renewed:
            why = f"{me} goes by another certificate of {name} from now on; ask again"
            self._dismiss(name, PeerLost(why, peer=me))
        for name in gone:
            self._dismiss(name, ConsentError(f"{name} is no member of the lake any more"))

    def _heard_list(self, index: int, lake: bytes, number: int) -> None:
        """A peer goes by a list of the lake's members from now on."""
        self._others_go_by[index] = lake, number
        self._compare_lists(index)

    def _compare_lists(self, index: int) -> None:
        """End the link to a peer that goes by another list of the same number; the next hello says why."""
        lake, number = self._others_go_by.get(index, self._goes_by)
        if number == self._goes_by[1] and lake != self._goes_by[0]:
            why = f"goes by another number {number} of the lake's cluster.toml than {self.party.name}"
            logger.error("%s: %s %s", self.party.name, party_name(index), why)
            self.party.hang_up(index, why)

    def _dismiss(self, name: str, error: TercetError) -> None:
        for service in self._services.get(name, ()):
            service.dismiss(error)

    async def _turn_away(self, link: Link, connections: int) -> None:
        """Say why, and hang up."""
        name = self.party.name
        error = QuotaError(
            f"{link.peer} has {connections} connections to {name}, and no more at a time; close some, or ask "
            "the node's operator for more (connections in node.toml)"
        )
        logger.warning("%s: %s", name, error)
        line = Line(link, owner=name, timeout_s=self.party.timeout_s, patient=True)
        line.post(["failed", 0, error.to_wire()])
        with trio.move_on_after(FAREWELL_S):
            await line.run(Deaf())

    def _add(self, role: str, link: Link, key: bytes) -> None:
        """Take a link that a peer has made; a lasting node lets it replace an earlier one."""
        index = next((i for i in self._expected if party_name(i) == role), None)
        if index is None:
            raise TransportError(f"{role} is not expected to connect here now; the link was refused")
        if not self.lasting:
            self._expected.discard(index)
        self._link_up(index, link, key)
        logger.info("%s: %s has linked up", self.party.name, role)
        if not self._expected:
            self._all_here.set()


# -- a node as a process -------------------------------------------------------------------------------------


COLLECTED = (50_000, 20, 20)
"""New objects from one garbage collection to the next, and how many of those to one of older objects."""


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)  # whoever started this process has gone


def _line(read_line: Callable[[], bytes]) -> bytes:
    """The next line from whoever started this process.

    When they go, so does the process, at once and whatever it computes: it keeps nothing.
    """
    line = read_line()
    if not line:
        os._exit(0)
    return line


async def _main(read_line: Callable[[], bytes]) -> None:
    async def hear() -> Any:
        return json.loads(await trio.to_thread.run_sync(_line, read_line, abandon_on_cancel=True))

    config = await hear()
    party = Party(
        config["index"],
        parties=config["parties"],
        protocol=registry.get(config["protocol"]),
        timeout_s=config["timeout_s"],
        threads=config["threads"],
    )
    load_all()
    identity = Identity(**config["identity"]) if "identity" in config else None
    transport = transports.get(config["transport"]).for_party(identity, config.get("pins", {}))
    node = Node(party, transport, shaping=Shaping(**config["shaping"]), trusted_names=transport.authenticated)
    async with trio.open_nursery() as nursery:
        _say({"address": await node.listen("127.0.0.1:0", nursery=nursery), "pid": os.getpid()})
        muster = None
        if config["workers"]:
            made = engine(config["engine"]).make(config["workers"], {}, Path())
            muster = Muster(party, made, config["transport"], shaping=node.shaping)
        await nursery.start(node.serve, await hear())
        if muster is not None:
            await nursery.start(muster.run)
        _say({"ready": True})
        if muster is not None:  # whose workers end in order, once there is no more to read
            await trio.to_thread.run_sync(read_line, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()
        await hear()


def collect_seldom() -> None:
    """For a process that is a node: what the imports made stays, and most of what plans are made of does.

    Looking through either again and again takes longer than a round.
    """
    gc.freeze()
    gc.set_threshold(*COLLECTED)


def main() -> None:
    """Run a node as this process; `cluster` holds the other ends of its standard input and output."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(name)s %(message)s")
    collect_seldom()
    try:
        trio.run(_main, sys.stdin.buffer.readline)
    except* TercetError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, TercetError):
            _say({"error": error.to_wire()})
        sys.exit(1)
