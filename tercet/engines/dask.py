"""Workers on Dask: whatever deploys Dask (SSH, Kubernetes, Slurm) then deploys the workers of a party.

Dask finds places for workers, one each, and starts, watches and restarts its own processes there. Of Tercet
it runs one short task a worker, `begin`, which starts the worker in a thread of that process and is not run
again by itself. From then on worker and node talk over a link of their own, and when the node closes it, the
worker ends, so that nothing of a run is left with Dask. What Dask carries is the configuration of workers,
with the keys that their node has made for them: so its scheduler and workers have to be the party's own, and
talk TLS wherever they leave the machine.
"""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import attrs
import trio

from tercet.actors.engine import Engine, WorkerConfig
from tercet.actors.line import first_cause
from tercet.actors.scratch import GIVE_BACK, KEEP_MEMORY, settle_malloc
from tercet.actors.worker import work
from tercet.compiled import load_all
from tercet.errors import ConfigError, TercetError, TransportError
from tercet.transports import registry
from tercet.transports.names import worker_name

logger = logging.getLogger(__name__)

CONNECT_S, WAIT_S, START_S = 20.0, 40.0, 20.0
"""How long it may take to reach the scheduler, until there are as many workers as are needed, and to start
Tercet's there: together less than a node waits for all that."""
STOP_S = 5.0
LOOK_S = 1.0
"""How often to look whether the processes of Dask in which workers are to start are there."""
QUIET = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}
"""What Dask's processes on this machine say when they are stopped means nothing to users."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@attrs.frozen
class DaskTls:
    """Files that Dask's TLS goes by: the authority, this node's certificate and its key."""

    ca: str
    certificate: str
    key: str


@attrs.define(eq=False)
class Dask(Engine):
    """Workers of a party on the Dask cluster of a scheduler, or on one of its own on this machine.

    Raises ConfigError for a scheduler on another machine to which there is no TLS, or without Dask.
    """

    workers: int
    scheduler: str = ""
    tls: DaskTls | None = None
    _silent: set[str] = attrs.field(init=False, factory=set)
    """Places at which no worker began when it was to."""
    _client: Any = None
    _cluster: Any = None
    _one: trio.CapacityLimiter = attrs.field(init=False, factory=lambda: trio.CapacityLimiter(1))
    """What hangs in Dask takes no place of the node's own threads."""

    @classmethod
    def make(cls, workers: int, options: Mapping[str, Any], directory: Path) -> Self:
        """As `Engine.make`: of a `scheduler`, and three files."""
        files = ("ca", "certificate", "key")
        if odd := options.keys() - {"scheduler", *files}:
            raise ConfigError(
                f"[dask] has {min(odd)!r}, which means nothing; it takes scheduler, ca, certificate, key"
            )
        if not all(isinstance(value, str) for value in options.values()):
            raise ConfigError("all that [dask] has is text")
        given = [str(directory / options[name]) for name in files if options.get(name)]
        if given and len(given) < len(files):
            raise ConfigError("[dask] has to name all of ca, certificate and key, or none")
        if missing := [path for path in given if not Path(path).is_file()]:
            raise ConfigError(f"[dask] names {missing[0]}, which is no file")
        return cls(workers, options.get("scheduler", ""), DaskTls(*given) if given else None)

    def __attrs_post_init__(self) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise ConfigError("workers need Dask; run `pip install tercet[dask]`") from error
        where = urlsplit(self.scheduler)
        if self.scheduler and where.hostname not in LOOPBACK and (where.scheme != "tls" or self.tls is None):
            raise ConfigError(
                f"the Dask scheduler {self.scheduler!r} is on another machine, and what goes there has to be "
                "encrypted: name it as tls://host:port, and say under [dask] which files are ca, certificate "
                "and key"
            )

    async def address(self) -> str:
        """As `Engine.address`: on the interface by which the scheduler is reached."""
        where = urlsplit(self.scheduler)
        if not self.scheduler or where.hostname in LOOPBACK:
            return "127.0.0.1:0"
        return f"{await trio.to_thread.run_sync(_own_address, where.hostname or '', where.port or 8786)}:0"

    async def run(self, configs: Sequence[WorkerConfig]) -> None:
        """As `Engine.run`."""
        await trio.to_thread.run_sync(self._start, configs, abandon_on_cancel=True, limiter=self._one)
        await trio.sleep_forever()

    async def aclose(self) -> None:
        """As `Engine.aclose`."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close)

    # -- in a thread -----------------------------------------------------------------------------------------

    def _start(self, configs: Sequence[WorkerConfig]) -> None:
        try:
            self._begin_all(configs)
        except TercetError:
            raise
        except Exception as error:
            self._close()  # the next attempt connects anew
            raise TransportError(
                f"Dask could not start the workers ({type(error).__name__}: {error}); see its logs"
            ) from error

    def _begin_all(self, configs: Sequence[WorkerConfig]) -> None:
        client = self._connected()
        try:
            client.wait_for_workers(self.workers, timeout=WAIT_S)
        except TimeoutError as error:
            found = len(client.ncores())
            raise TransportError(
                f"Dask at {client.scheduler.address} has {found} workers, and this party needs "
                f"{self.workers}; start more of them, or set workers in node.toml"
            ) from error
        # Where none came last time, a process stands still perhaps; there may be others.
        places = sorted(client.ncores(), key=lambda place: (place in self._silent, place))
        begun = [
            client.submit(
                begin,
                config,
                version("tercet"),
                quiet=not self.scheduler,
                workers=[place],
                pure=False,
                retries=0,
            )
            for config, place in zip(configs, places, strict=False)
        ]
        try:
            for config, place, one in zip(configs, places, begun, strict=False):
                self._await(worker_name(config.index, config.number), place, one)
        except BaseException:
            client.cancel(begun, force=True)
            raise

    def _await(self, name: str, place: str, begun: Any) -> None:
        """Wait until a worker has begun at a place. Raises TransportError if it does not."""
        for _ in range(int(2 * START_S / LOOK_S)):
            try:
                begun.result(timeout=LOOK_S)
            except TimeoutError:
                if place not in self._client.ncores():
                    what = (
                        f"{name} did not start: the process of Dask at {place} has ended; it is tried again"
                    )
                    raise TransportError(what) from None
            else:
                break
        else:
            self._silent.add(place)
            raise TransportError(
                f"{name} did not start within {2 * START_S:g} s in the process of Dask at {place}; it stands "
                "still, or is cut off: restart that process"
            )
        self._silent.discard(place)

    def _connected(self) -> Any:
        """A client of the scheduler. Raises TransportError if it does not answer."""
        import distributed

        dask: Any = distributed
        if self._client is not None:
            return self._client
        security = dask.Security.temporary() if not self.scheduler else None
        if self.tls is not None:
            ca, certificate, key = attrs.astuple(self.tls)
            roles = {
                f"tls_{role}_{what}": path
                for role in ("client", "scheduler", "worker")
                for what, path in (("cert", certificate), ("key", key))
            }
            security = dask.Security(tls_ca_file=ca, require_encryption=True, **roles)
        try:
            if not self.scheduler:
                logging.getLogger("distributed").setLevel(logging.CRITICAL)
                self._cluster = dask.LocalCluster(
                    n_workers=self.workers,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    security=security,
                    memory_limit=None,
                    env=QUIET,
                )
            self._client = dask.Client(
                self._cluster or self.scheduler, security=security, set_as_default=False, timeout=CONNECT_S
            )
        except (OSError, TimeoutError) as error:
            self._close()
            raise TransportError(
                f"the Dask scheduler {self.scheduler or 'of this machine'} does not answer ({error}); is it "
                "running, and are its TLS files those in node.toml?"
            ) from error
        return self._client

    def _close(self) -> None:
        held, self._client, self._cluster = (self._client, self._cluster), None, None
        for one in held:
            if one is not None:
                try:
                    one.close(timeout=STOP_S)
                except Exception:
                    logger.warning("Dask did not stop in order", exc_info=True)


def _own_address(host: str, port: int) -> str:
    """The address of this machine on the way to a host. Raises TransportError if there is no way."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(where)  # sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise TransportError(f"the Dask scheduler {host} cannot be reached ({error})") from error


# -- in a process of Dask ------------------------------------------------------------------------------------


def begin(config: WorkerConfig, release: str, *, quiet: bool) -> None:
    """Start a worker in a thread of this process, and wait until it has called its node.

    A `quiet` one does not warn of others that have gone, as all do when a lake on one machine is closed.
    The process keeps freed memory from now on, as nodes do, or gives it back if it has a scratch: Dask would
    have the kernel clear each array anew.
    Raises what keeps the worker from that, and TransportError for another release of Tercet.
    """
    from distributed import get_worker

    name = worker_name(config.index, config.number)
    if version("tercet") != release:
        raise TransportError(
            f"{name} has release {version('tercet')} of Tercet, its node {release}; install the same at both"
        )
    settle_malloc(KEEP_MEMORY if config.scratch.directory is None else GIVE_BACK)
    if quiet:
        logging.getLogger("tercet").setLevel(logging.ERROR)
    host = urlsplit(get_worker().address).hostname
    called: concurrent.futures.Future[None] = concurrent.futures.Future()
    thread = threading.Thread(target=_work, args=(config, f"{host}:0", called), name=name, daemon=True)
    thread.start()
    try:
        called.result(START_S)
    except TimeoutError as error:
        raise TransportError(
            f"{name} has not called its node within {START_S:g} s: its machine has too much to do, or cannot "
            f"reach {config.node}; it is tried again"
        ) from error


def _work(config: WorkerConfig, listen: str, called: concurrent.futures.Future[None]) -> None:
    try:
        load_all()
        make = registry.get(config.transport).for_party
        trio.run(functools.partial(work, config, make, listen, called=lambda: called.set_result(None)))
    except BaseException as error:
        if called.done():
            raise
        name = worker_name(config.index, config.number)
        called.set_exception(TransportError(f"{name} could not start: {first_cause(error)}"))
