"""Checking a lake from outside: one finding for each thing that can be wrong, as a sentence with its mend.

Every node is looked at by itself, so that one that is down does not hide what is wrong with another. What a
node knows better than anyone outside (its disk, its peers) it is asked for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import trio

from tercet.actors.hello import Hello, greet
from tercet.actors.line import plain_errors
from tercet.actors.presence import WorkerState
from tercet.client.client import Client
from tercet.client.reach import dial, who_am_i
from tercet.client.wording import one_line
from tercet.errors import ConfigError, PeerLost, ProtocolError, TercetError, TransportError
from tercet.members.config import ClusterFile
from tercet.members.rules import LATEST, moment
from tercet.members.succession import current, require_signed, waiting
from tercet.transports import Identity, TlsTransport
from tercet.transports.identity import expiry
from tercet.transports.names import CLIENT, party_name, worker_name

SOON = dt.timedelta(days=30)
LITTLE_DISK = 1 << 30
CLOCK_NOTE_S = 2.0
TIMEOUT_S = 6.0
ANSWER_S = 30.0
"""How long a node may take to answer, once it has said hello."""
MOST_WORKERS = 256
MOST_PLACES = 16
"""Disks that a node may tell of."""


T = TypeVar("T")


@attrs.frozen
class Finding:
    """What was found at a node, or in the files (`where`); `good` if nothing has to be done.

    Each is a line, whatever a node has said.
    """

    where: str = attrs.field(converter=one_line)
    good: bool
    what: str = attrs.field(converter=one_line)


def check_files(path: Path, key: Path) -> tuple[ClusterFile, Identity, list[Finding]]:
    """Look at the files and at when certificates expire. Raises ConfigError or TransportError."""
    cluster = current(path)
    identity = who_am_i(cluster, key, path).identity
    what = f"number {cluster.number}, {len(cluster.nodes)} nodes; this is member {identity.name}"
    found = [Finding(str(path), True, what)]
    coming = waiting(path, cluster)
    if coming is not None:
        what = f"number {coming.number} takes its place on {_moment(coming.takes_effect)}"
        found.append(Finding(str(path), True, what))
    now = dt.datetime.now(dt.UTC)
    for entry in cluster.entries:
        ends = expiry(entry.certificate)
        if ends < now:
            what = f"the certificate expired on {ends:%Y-%m-%d}; `tercet renew` makes a new one"
            found.append(Finding(entry.name, False, what))
        elif ends < now + SOON:
            what = f"the certificate expires on {ends:%Y-%m-%d}; `tercet renew` makes a new one"
            found.append(Finding(entry.name, True, what))
    return cluster, identity, found


def _moment(when: dt.datetime | None) -> str:
    return "" if when is None else f"{when.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


@attrs.frozen
class Looked:
    """What a look at a node has found; if it answered, what it `told`, and by how much its clock is off."""

    name: str
    found: tuple[Finding, ...]
    told: Mapping[str, Any] | None = None
    skew_s: float | None = None

    @property
    def good(self) -> bool:
        """Whether nothing has to be done."""
        return all(one.good for one in self.found)


async def look_at_nodes(
    cluster: ClusterFile, identity: Identity, *, timeout_s: float = TIMEOUT_S
) -> list[Looked]:
    """Look at every node: network, certificate, version, protocol, clock, peers, disk.

    One that is silent for `timeout_s` does not answer.
    """

    async def look(index: int) -> Looked:
        return await _look(cluster, identity, index, timeout_s)

    return _compared(await _of_each(cluster, look))


def _compared(looked: Sequence[Looked]) -> list[Looked]:
    """What was found, and which nodes have different files to follow the list of members.

    Each would go by its own in time, and not run with the others any more.
    """
    coming = {one.name: one.told["coming"] for one in looked if one.told is not None and one.told["coming"]}
    if len({digest for _, _, digest in coming.values()}) < 2:
        return list(looked)
    told = ", ".join(f"{name} {digest[:16]}" for name, (_, _, digest) in coming.items())
    what = (
        f"nodes have different files that follow, by their digests {told}: settle which one counts, and "
        "remove cluster.next.toml where it is another one, before it takes effect"
    )
    return [
        attrs.evolve(one, found=(*one.found, Finding(one.name, False, what))) if one.name in coming else one
        for one in looked
    ]


async def check_nodes(cluster: ClusterFile, identity: Identity) -> list[Finding]:
    """What there is to say of every node."""
    return [finding for one in await look_at_nodes(cluster, identity) for finding in one.found]


async def _of_each(cluster: ClusterFile, look: Callable[[int], Awaitable[T]]) -> list[T]:
    """What is found at all nodes, which are looked at side by side."""
    found: dict[int, T] = {}

    async def one(index: int) -> None:
        found[index] = await look(index)

    async with trio.open_nursery() as nursery:
        for index in range(len(cluster.nodes)):
            nursery.start_soon(one, index)
    return [found[index] for index in range(len(cluster.nodes))]


async def ask_node(
    cluster: ClusterFile, identity: Identity, index: int, verb: str, *args: Any, timeout_s: float = TIMEOUT_S
) -> tuple[Hello, Hello, dict[str, Any]]:
    """Ask one node something, whether or not the others are there; both hellos, and what it answers.

    Raises TransportError, PeerLost or what the node refuses with.
    """
    transport = TlsTransport(identity, cluster.pins(nodes_only=True))
    mine = Hello(CLIENT, cluster.protocol, len(cluster.nodes), cluster.digest(), cluster.number)
    link = await dial(cluster, transport, index)
    told: dict[str, Any] = {}
    async with link:
        theirs = await greet(link, mine, timeout_s=timeout_s)
        if theirs.role != party_name(index):
            raise TransportError(f"{theirs.role} answered at {cluster.nodes[index].address}")
        async with plain_errors(), trio.open_nursery() as nursery:
            client = Client(cluster.protocol_class, [link], timeout_s=timeout_s)
            client.start(nursery)
            with trio.move_on_after(ANSWER_S) as waited:
                told = (await client.ask(verb, list(args)))[0]
            nursery.cancel_scope.cancel()
    if waited.cancelled_caught:
        where = f"{cluster.nodes[index].name} ({party_name(index)})"
        why = f"{where} did not answer within {ANSWER_S:g} s; look at its log, and at what it has to do"
        raise PeerLost(why, peer=party_name(index))
    return mine, theirs, told


async def give_amendment(cluster: ClusterFile, identity: Identity, packed: bytes) -> list[Finding]:
    """Give every node what follows its list of members, each whether or not the others are there."""

    async def give(index: int) -> Finding:
        where = _name(cluster, index)
        try:
            await ask_node(cluster, identity, index, "amend", packed)
        except TercetError as error:
            return Finding(where, False, str(error))
        return Finding(where, True, "it has the file, and goes by it in time")

    return await _of_each(cluster, give)


async def fetch_amendment(cluster: ClusterFile, identity: Identity) -> bytes:
    """What follows the list of members, as the nodes have it, if most nodes of the list have signed it.

    Raises TercetError if no node has such a file, or nodes have different ones.
    """

    async def fetch(index: int) -> tuple[ClusterFile, bytes] | TercetError | None:
        try:
            packed = (await ask_node(cluster, identity, index, "amendment"))[2].get("packed")
            if not isinstance(packed, bytes):
                raise ProtocolError(f"{_name(cluster, index)} gave no file")
            if not packed:
                return None
            after = ClusterFile.parse(packed, f"what {_name(cluster, index)} gave")
            require_signed(cluster, after)
        except TercetError as error:
            return error
        return after, packed

    answers = await _of_each(cluster, fetch)
    found = {index: one for index, one in enumerate(answers) if isinstance(one, tuple)}
    digests = {index: after.digest() for index, (after, _) in found.items()}
    if len({*digests.values()}) > 1:
        told = ", ".join(f"{_name(cluster, index)} {one.hex()[:16]}" for index, one in digests.items())
        raise ConfigError(
            f"the nodes have different files that follow number {cluster.number}, by their digests {told}; "
            "ask their operators which one counts, and take that one up with `tercet adopt FILE`"
        )
    for _, packed in found.values():
        return packed
    raise next((one for one in answers if isinstance(one, TercetError)), None) or ConfigError(
        f"no node has a file that follows number {cluster.number}; who has one gives it to them with "
        "`tercet adopt FILE`"
    )


def _name(cluster: ClusterFile, index: int) -> str:
    return f"{cluster.nodes[index].name} ({party_name(index)})"


async def _look(cluster: ClusterFile, identity: Identity, index: int, timeout_s: float) -> Looked:
    name, where = cluster.nodes[index].name, _name(cluster, index)
    try:
        mine, theirs, told = await ask_node(cluster, identity, index, "status", timeout_s=timeout_s)
        told = _read_status(told, [node.name for node in cluster.nodes], index)
    except TercetError as error:
        return Looked(name, (Finding(where, False, str(error)),))
    skew = theirs.clock - mine.clock
    return Looked(name, tuple(_judge(where, cluster, index, skew, told)), told, skew)


def _read_status(told: Mapping[str, Any], names: Sequence[str], index: int) -> dict[str, Any]:
    """What a node of these has answered to "status". Raises ProtocolError if it is not what nodes answer."""
    nodes, others = len(names), {*names} - {names[index]}
    workers = _read_workers(told.get("workers"))  # of which releases without them say nothing
    match told:
        case {
            "release": str(release),
            "missing_parties": [*missing],
            "runs": int(runs),
            "waiting": int(waiting),
            "free_bytes": dict(free),
            "audit": [int(lines), str(digest)],
            "coming": [] | [int(), str(), str()] as coming,
            "went_back": [*went_back],
            "memory_bytes": None | int() as memory,
        } if (
            all(type(one) is int and 0 <= one < nodes for one in missing)
            and all(isinstance(place, str) and type(size) is int for place, size in free.items())
            and 0 < len(free) <= MOST_PLACES
            and lines >= 0
            and all(one == one_line(one) for one in (release, digest, *free, *map(str, coming)))
            and all(_tells_back(one, others) for one in went_back)
            and len(went_back) == len({one[0] for one in went_back})
        ):
            return {
                "release": release,
                "missing_parties": sorted({*missing}),
                "workers": workers,
                "runs": runs,
                "waiting": waiting,
                "free_bytes": free,
                "audit": [lines, digest],
                "coming": list(coming),
                "went_back": [list(one) for one in went_back],
                "memory_bytes": memory,
            }
    raise ProtocolError("what it says of itself makes no sense; see its release, and who runs it")


def _read_workers(told: Any) -> list[WorkerState]:
    """What a node has said of its workers, if it has any. Raises ProtocolError if nodes do not say such."""
    match told:
        case None:
            return []
        case [*states] if len(states) <= MOST_WORKERS:
            found = []
            for state in states:
                match state:
                    case [bool(here), float(since), str(why)] if 0 <= since < LATEST:
                        found.append(WorkerState(here, since, one_line(why)))
            if len(found) == len(states):
                return found
    raise ProtocolError("what it says of its workers makes no sense; see its release, and who runs it")


def _tells_back(told: Any, others: Collection[str]) -> bool:
    """Whether a node has said properly that another one of the lake has gone back."""
    match told:
        case [str(name), int(had), int(has), str(when)]:
            return name in others and min(had, has) >= 0 and when == one_line(when)
    return False


def _missing_workers(told: Sequence[WorkerState]) -> dict[WorkerState, list[int]]:
    """The numbers of those that are missing for one reason since one minute."""
    found: dict[WorkerState, list[int]] = {}
    for number, state in enumerate(told):
        if not state.here:
            alike = attrs.evolve(state, since=state.since // 60 * 60)
            found.setdefault(alike, []).append(number)
    return found


def _judge(
    where: str, cluster: ClusterFile, index: int, skew: float, told: dict[str, Any]
) -> Sequence[Finding]:
    found = []
    missing = [cluster.nodes[i].name for i in told["missing_parties"]]
    if missing:
        what = (
            f"it has no link to {', '.join(missing)}: start them, and look at the network between the nodes"
        )
        found.append(Finding(where, False, what))
    if abs(skew) > CLOCK_NOTE_S:
        what = f"its clock is {skew:+.0f} s off from this machine's; synchronise both"
        found.append(Finding(where, False, what))
    for place, free in told["free_bytes"].items():
        if free < LITTLE_DISK:
            what = f"the disk of its {place} has {free / 1e6:.0f} MB left; make room, or drop tables"
            found.append(Finding(where, False, what))
    for name, had, has, when in told["went_back"]:
        what = (
            f"{name} came back to it on {when} with {has} lines of its audit log, and had {had}: it was put "
            f"back from a backup, or has lost lines; ask its operator, and upload again what {name} lacks"
        )
        found.append(Finding(where, False, what))
    for state, numbers in _missing_workers(told["workers"]).items():
        names = " and ".join(worker_name(index, number) for number in numbers)
        what = f"{names}: not there since {moment(state.since)}; {state.why}"
        found.append(Finding(where, False, what))
    if not found:
        workers = f", {len(told['workers'])} workers" if told["workers"] else ""
        what = f"ready; Tercet {told['release']}, {told['runs']} runs under way{workers}"
        found.append(Finding(where, True, what))
    if told["coming"]:
        number, when, _ = told["coming"]
        what = f"it goes by number {number} of cluster.toml from {when}; `tercet adopt` gets it"
        found.append(Finding(where, True, what))
    return found
