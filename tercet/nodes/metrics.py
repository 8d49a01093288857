"""Health and metrics of a node over HTTP: `/health` for supervisors, `/metrics` for Prometheus.

Only numbers that are public anyway are shown: how many links, clients, runs and values there are, when the
node's certificate ends, and how much room its disks have. The server
lives in a thread of its own, and reads counters of the event loop without touching them.
"""

from __future__ import annotations

import contextlib
import json
import resource
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Gauge, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from tercet.actors.node import Node
from tercet.actors.presence import Presence
from tercet.actors.values import FiledTiles
from tercet.errors import ConfigError
from tercet.members.node_file import NodeFile
from tercet.nodes.disks import free_bytes, places
from tercet.nodes.roster import Roster
from tercet.protocols.domains import WORD_BYTES
from tercet.transports.identity import expiry
from tercet.transports.tcp import split_address


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Requests of supervisors are not worth a line each."""


def registry_of(node: Node, roster: Roster | None = None) -> CollectorRegistry:
    """The metrics of a node; with its roster, its certificate and its disks too."""
    registry, party = CollectorRegistry(), node.party
    numbers: dict[str, tuple[str, Callable[[], float]]] = {
        "tercet_workers": ("Workers that are there.", lambda: party.workers_here),
        "tercet_peers_linked": ("Peers with a live link.", lambda: party.parties - 1 - len(party.missing())),
        "tercet_clients": ("Clients connected now.", lambda: node.clients.total()),
        "tercet_runs_under_way": ("Plans that run now.", lambda: party.running),
        "tercet_runs_total": ("Plans that have ended, well or not.", lambda: party.ended),
        "tercet_runs_failed_total": ("Plans that have failed.", lambda: party.failed),
        "tercet_values_in_memory": ("Values held in memory.", lambda: len(party.store)),
        "tercet_bytes_in_memory": (
            "Bytes of values in memory, tiles of those in files among them.",
            lambda: bytes_held(node),
        ),
    }
    for name, (what, read) in numbers.items():
        Gauge(name, what, registry=registry).set_function(read)
    if party.presence is not None:
        _show_workers(registry, party.presence)
    if roster is not None:
        what = "When the node's certificate expires, in seconds since 1970."
        expires = Gauge("tercet_certificate_expires_seconds", what, registry=registry)
        expires.set_function(lambda: expiry(roster.cluster.nodes[roster.index].certificate).timestamp())
        what = "Bytes that may still be written, by what for; 0 where that cannot be found out."
        free = Gauge("tercet_disk_free_bytes", what, ["place"], registry=registry)
        for place in places(roster.file):
            free.labels(place).set_function(partial(_free, roster.file, place))
    return registry


def _show_workers(registry: CollectorRegistry, presence: Presence) -> None:
    here = Gauge("tercet_worker_here", "Whether a worker is there.", ["worker"], registry=registry)
    what = "Since when a worker is there, or is not, in seconds since 1970."
    since = Gauge("tercet_worker_since_seconds", what, ["worker"], registry=registry)
    for number in range(len(presence.states)):
        here.labels(number).set_function(partial(_of_worker, presence, number, "here"))
        since.labels(number).set_function(partial(_of_worker, presence, number, "since"))


def _of_worker(presence: Presence, number: int, what: Literal["here", "since"]) -> float:
    return float(getattr(presence.states[number], what))


def _free(file: NodeFile, place: str) -> float:
    return free_bytes(file)[place]


def bytes_held(node: Node) -> int:
    """Bytes of values that a node holds in memory, tiles of those that lie in files among them."""
    values = [one.tiles for one in node.party.store.values() if not isinstance(one.tiles, FiledTiles)]
    own = sum(tile.data.size * WORD_BYTES for tiles in values for tile in tiles)
    return own + node.gate.bytes_held()


def resident_bytes() -> int | None:
    """Memory that this process uses; None where the system does not tell it as Linux does."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * resource.getpagesize()


def health(node: Node) -> dict[str, Any]:
    """Whether a node can run plans, and who is missing if not; of its workers too, if it has any."""
    party = node.party
    told = {"ready": party.is_complete, "party": party.index, "missing_parties": party.missing()}
    if party.presence is None:
        return told
    return told | {"workers": party.workers_here, "missing_workers": party.presence.missing}


@contextlib.contextmanager
def serve_metrics(node: Node, address: str, roster: Roster | None = None) -> Iterator[str]:
    """Serve until left; gives the address with its port. Raises ConfigError if it is taken."""
    metrics = make_wsgi_app(registry_of(node, roster))

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            found: Iterable[bytes] = metrics(environ, start)
            return found
        if environ["PATH_INFO"] != "/health":
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there are /health and /metrics\n"]
        told = health(node)
        start(
            "200 OK" if told["ready"] else "503 Service Unavailable", [("Content-Type", "application/json")]
        )
        return [json.dumps(told).encode() + b"\n"]

    host, port = split_address(address)
    try:
        server = make_server(host or "127.0.0.1", port, answer, ThreadingWSGIServer, _Quiet)
    except OSError as error:
        raise ConfigError(
            f"metrics cannot be served at {address} ({error.strerror or error}); give this node another port "
            'with metrics = "..." in its node.toml, or "" for none'
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="tercet-metrics", daemon=True)
    thread.start()
    try:
        yield f"{host or '127.0.0.1'}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
