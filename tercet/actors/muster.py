"""How the crews of all parties come together, and do so again when a worker was lost.

Each node makes a key for each of its workers, and tells the other nodes the certificates that go with them
(`["crew", "certificates", nonce, certificates]`, over the lines between nodes). Once it has heard all of
them it lets its engine start its workers, which pin the certificates of the same worker at the other parties.
They call their node and say where they listen; nodes tell each other (`["crew", "addresses", view,
addresses]`), where `view` stands for the nonces of all, so that what belongs to an earlier attempt is told
apart; then worker k of each party links up with worker k of the others, and with all of its own party.

A node whose worker was lost begins anew with other keys and another nonce; the other nodes then start theirs
anew as well, under the keys that they have.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio

from tercet.actors.crew import Crew, News
from tercet.actors.engine import Engine, MakeTransport, WorkerConfig
from tercet.actors.hello import Hello, greet
from tercet.actors.line import gravest_cause
from tercet.actors.party import Party
from tercet.actors.presence import Presence
from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.actors.storage import Storage
from tercet.errors import ProtocolError, TercetError, TransportError
from tercet.transports import Link, Shaping, Transport, make_identity
from tercet.transports import registry as transports
from tercet.transports.identity import Pins
from tercet.transports.names import FOREMAN, party_name, worker_name

logger = logging.getLogger(__name__)

START_S = 120.0
"""How long workers may take to start and to link up."""
RETRY_S, LONGEST_RETRY_S = 0.5, 30.0
MOST_TEXT = 1 << 14
LONGEST_ADDRESS = 300
NONCE_BYTES = 16


@attrs.frozen
class _Told:
    """What a peer has said of its workers."""

    nonce: bytes
    certificates: Sequence[str]


class Muster:
    """Keeps a crew for a party: run it beside the party once that has lines to its peers.

    Links are of one kind of transport, which `make` makes if not that itself; those to other parties are
    shaped. Workers read stored values from `storage` by themselves, if there is one, and have large arrays in
    `scratch`. Unless a node is `lasting`, it gives up when its first crew does not come together.
    """

    def __init__(
        self,
        party: Party,
        engine: Engine,
        transport: str,
        *,
        make: MakeTransport | None = None,
        shaping: Shaping | None = None,
        lasting: bool = False,
        storage: Storage | None = None,
        scratch: Scratch = IN_MEMORY,
    ) -> None:
        self.party = party
        self._storage = storage
        self._scratch = scratch
        self.engine = engine
        self._lasting = lasting
        self._transport = transport
        self._shaping = Shaping() if shaping is None else shaping
        kind = transports.get(transport)
        self._make = kind.for_party if make is None else make
        self._authenticated = kind.authenticated
        self._told: dict[int, _Told] = {}
        self._addresses: dict[int, tuple[bytes, Sequence[str]]] = {}
        self._news = News()
        self._renew()
        self._crew_now: Crew | None = None
        party.shared_out, party.on_crew = True, self.hear
        self._presence = party.presence = Presence(engine.workers)
        party.on_linked.append(self._introduce)

    def _renew(self) -> None:
        """Make new keys for the workers, which are to be started anew."""
        names = [worker_name(self.party.index, number) for number in range(self.engine.workers)]
        self._identities = [make_identity(name) for name in names] if self._authenticated else []
        self._own = _Told(secrets.token_bytes(NONCE_BYTES), [one.certificate_pem for one in self._identities])

    # -- what peers say --------------------------------------------------------------------------------------

    def hear(self, peer: int, word: Sequence[Any]) -> None:
        """Note what a peer says. Raises ProtocolError."""
        match word:
            case ["certificates", bytes(nonce), int(workers), list(texts)] if _are_texts(texts):
                if len(nonce) != NONCE_BYTES or len(texts) != (workers if self._authenticated else 0):
                    raise ProtocolError(f"party {peer} told {len(texts)} certificates of {workers} workers")
                for text in texts:
                    _require_certificate(peer, text)
                if workers != self.engine.workers:
                    why = (
                        f"{party_name(peer)} has {workers} and {self.party.name} {self.engine.workers}; say "
                        "the same number of workers in node.toml everywhere"
                    )
                    if why != self.party.no_crew:
                        logger.error("%s", why)
                    self.party.no_crew = why
                    self._told.pop(peer, None)
                else:
                    self._told[peer] = _Told(nonce, texts)
            case ["addresses", bytes(view), list(texts)] if _are_texts(texts) and all(
                map(_is_address, texts)
            ):
                self._addresses[peer] = view, texts
            case _:
                raise ProtocolError(f"party {peer} said something of its workers that no party says")
        self._news.tell()

    def _introduce(self, peer: int) -> None:
        """Tell a peer by which certificates it knows the workers of this party."""
        word = ["certificates", self._own.nonce, self.engine.workers, list(self._own.certificates)]
        self.party.tell(peer, word, "crew")

    def _tell(self, *word: Any) -> None:
        for peer in self._peers:
            self.party.tell(peer, list(word), "crew")

    @property
    def _peers(self) -> list[int]:
        return [peer for peer in range(self.party.parties) if peer != self.party.index]

    def _view(self) -> bytes | None:
        """What stands for the nonces of all parties, once they have been told."""
        if any(peer not in self._told for peer in self._peers):
            return None
        told = {**self._told, self.party.index: self._own}
        nonces = b"".join(told[index].nonce for index in sorted(told))
        return hashlib.blake2b(nonces, digest_size=NONCE_BYTES).digest()

    def _has_changed(self, view: bytes | None) -> bool:
        return self._view() != view

    # -- crews -----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a crew until cancelled; `task_status` is told when the first one is there."""
        try:
            await self._keep(task_status)
        finally:
            await self.engine.aclose()

    async def _keep(self, task_status: trio.TaskStatus[None]) -> None:
        pause, started = RETRY_S, False
        while True:
            for peer in self._peers:
                self._introduce(peer)
            await self._news.until(lambda: self._view() is not None)
            view, told = self._view(), dict(self._told)

            def ready() -> None:
                nonlocal started, pause
                pause = RETRY_S
                self._presence.come()
                if not started:
                    started = True
                    task_status.started()

            self._crew_now = None
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._crew, view, told, ready)
                    await self._news.until(functools.partial(self._has_changed, view))
                    nursery.cancel_scope.cancel()
                self._presence.leave(None, "those of another party were started anew, and they with them")
            except* Exception as group:
                cause = gravest_cause(group)
                if not (started or self._lasting):
                    raise cause from None
                if not isinstance(cause, TercetError):
                    logger.exception("%s: workers failed in an unforeseen way", self.party.name)
                self.party.no_crew = str(cause)
                lost = None if self._crew_now is None else self._crew_now.lost_worker
                self._presence.leave(lost, str(cause))
                logger.warning("%s: %s", self.party.name, self.party.no_crew)
                self._renew()
            self.party.crew = None
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY_S)

    async def _crew(self, view: bytes | None, told: Mapping[int, _Told], ready: Callable[[], None]) -> None:
        """One crew, until a worker of it is lost, which raises PeerLost."""
        index, workers = self.party.index, range(self.engine.workers)
        foreman = make_identity(FOREMAN) if self._authenticated else None
        names = [worker_name(index, number) for number in workers]
        pins = {name: one.certificate_pem for name, one in zip(names, self._identities, strict=False)}
        transport = self._make(foreman, pins)
        async with trio.open_nursery() as nursery:
            listener = await transport.listen(await self.engine.address(), nursery=nursery)
            async with listener:
                certificate = "" if foreman is None else foreman.certificate_pem
                configs = [self._config(number, listener.address, certificate, told) for number in workers]
                nursery.start_soon(self.engine.run, configs)
                with trio.move_on_after(START_S) as scope:
                    links = await self._links(transport, listener.accept)
            if scope.cancelled_caught:
                raise TransportError(f"the workers of {self.party.name} did not start within {START_S:g} s")
            crew = self._crew_now = Crew(index, links, self.party.timeout_s, self.party.scratch)
            nursery.start_soon(crew.run)
            with trio.move_on_after(START_S) as scope:
                own = await crew.addresses()
                self._tell("addresses", view, own)
                await self._news.until(lambda: all(self._at(peer, view) is not None for peer in self._peers))
                found = {**{peer: self._at(peer, view) or () for peer in self._peers}, index: own}
                await crew.link([[found[party][number] for party in sorted(found)] for number in workers])
            if scope.cancelled_caught:
                raise TransportError(
                    f"the workers of {self.party.name} did not link up within {START_S:g} s with those of "
                    "the other parties; can they reach each other?"
                )
            self.party.crew, self.party.no_crew = crew, "they are being started anew; try again in a moment"
            ready()
            await trio.sleep_forever()

    def _config(self, number: int, node: str, certificate: str, told: Mapping[int, _Told]) -> WorkerConfig:
        party, pins, fellows = self.party, {}, {}
        if self._authenticated:
            pins = {party_name(peer): told[peer].certificates[number] for peer in self._peers}
            names = [worker_name(party.index, other) for other in range(self.engine.workers)]
            fellows = {
                name: one.certificate_pem
                for name, one in zip(names, self._identities, strict=True)
                if name != names[number]
            }
        return WorkerConfig(
            index=party.index,
            parties=party.parties,
            protocol=party.protocol.name,
            number=number,
            workers=self.engine.workers,
            node=node,
            transport=self._transport,
            node_certificate=certificate,
            identity=self._identities[number] if self._authenticated else None,
            pins=pins,
            fellows=fellows,
            storage=self._storage,
            scratch=self._scratch,
            timeout_s=party.timeout_s,
            threads=party.threads,
            shaping=attrs.asdict(self._shaping),
        )

    def _at(self, peer: int, view: bytes | None) -> Sequence[str] | None:
        """Where the workers of a peer listen, of this attempt."""
        told, addresses = self._addresses.get(peer, (b"", ()))
        return addresses if told == view and len(addresses) == self.engine.workers else None

    async def _links(self, transport: Transport, accept: Callable[[], Any]) -> list[Link]:
        """A link to each worker, as they call."""
        party = self.party
        links: dict[int, Link] = {}
        while len(links) < self.engine.workers:
            link = await accept()
            mine = Hello(FOREMAN, party.protocol.name, party.parties)
            theirs = await greet(link, mine, timeout_s=party.timeout_s)
            name = link.peer if transport.authenticated else theirs.role
            numbers = [n for n in range(self.engine.workers) if worker_name(party.index, n) == name]
            if not numbers or numbers[0] in links:
                raise TransportError(f"{name} called the node of {party.name}, which does not wait for it")
            link.peer = name
            links[numbers[0]] = link
        return [links[number] for number in sorted(links)]


def _require_certificate(peer: int, text: str) -> None:
    """Raise TransportError unless a text is one certificate and nothing else that counts."""
    if not text.isascii() or text.count("-----BEGIN") != 1:
        raise TransportError(f"party {peer} told something else than a certificate of a worker")
    Pins.read({party_name(peer): text})


def _is_address(text: str) -> bool:
    """Whether a text may be an address: errors show it."""
    return text.isascii() and text.isprintable() and len(text) <= LONGEST_ADDRESS


def _are_texts(texts: Sequence[Any]) -> bool:
    return len(texts) <= 1 << 10 and all(isinstance(text, str) and len(text) < MOST_TEXT for text in texts)
