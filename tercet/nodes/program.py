"""The node as a program: reads its files, serves until it is told to stop, and says what it does in its log.

On SIGTERM or SIGINT it takes no new plans, waits for those under way, up to `grace_s`, and ends; a second
signal ends it at once. On SIGUSR1 its log says more, until SIGUSR2. Whatever makes a start impossible is one
sentence and exit code 1.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
import trio

from tercet.actors.engine import Engine, engine
from tercet.actors.line import plain_errors
from tercet.actors.muster import Muster
from tercet.actors.node import Node, collect_seldom
from tercet.actors.party import Party
from tercet.actors.scratch import GIVE_BACK, KEEP_MEMORY, Scratch
from tercet.actors.storage import Storage
from tercet.compiled import load_all
from tercet.errors import ConfigError, StorageError
from tercet.members.audit import AuditLog
from tercet.members.config import ClusterFile
from tercet.members.keys import MemberKeys
from tercet.members.node_file import NodeFile
from tercet.members.seals import Head
from tercet.members.succession import current, in_force
from tercet.nodes.changeover import Changeover, others, tell_amended
from tercet.nodes.gate import LakeGate
from tercet.nodes.manifest import require_restored
from tercet.nodes.metrics import serve_metrics
from tercet.nodes.peer_logs import PeerLogs
from tercet.nodes.roster import Roster, note_start, require_goes_on
from tercet.nodes.running import running
from tercet.nodes.supervised import Supervisor
from tercet.nodes.vault import Vault
from tercet.storage.sealed import is_shared
from tercet.storage.shared import SharedStorage
from tercet.transports import Identity, Shaping, TlsTransport
from tercet.transports.names import is_party

logger = logging.getLogger(__name__)

SWEEP_S = 60.0
SWITCH_S = 0.0005
"""A thread that works in Python lets the event loop have the interpreter after so long."""


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, where, what."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr(*, level: str) -> None:
    """Log JSON lines to standard error, where systemd and its kin collect them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def settle_memory(path: Path | None = None) -> None:
    """Start this process again if its C library was not told what to do with freed memory.

    It is kept (see `cluster`), unless the file of a node names a scratch: such a node gives long arrays back,
    since what it kept would be room that mapped files lack.
    """
    wanted = KEEP_MEMORY if path is None or NodeFile.read(path).scratch is None else GIVE_BACK
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})  # noqa: S606


@attrs.define
class Doorbell:
    """Writes refused connections to the audit log, but not more an hour than leave room for all else."""

    audit: AuditLog
    most: int = 100
    _hour: int = 0
    _rung: int = 0

    def ring(self, why: str) -> None:
        """A connection was refused."""
        hour = int(time.time() // 3600)
        self._hour, self._rung = hour, self._rung + 1 if hour == self._hour else 1
        if self._rung <= self.most:
            more = "; more in this hour are only in the node's log" if self._rung == self.most else ""
            try:
                self.audit.append("refused", request="connect", why=why + more)
            except StorageError as error:  # strangers must not end the node; a plan's line has to be written
                logger.error("%s", error)  # noqa: TRY400 - the traceback would say nothing


@attrs.frozen
class Settings:
    """A node's files, read and found to fit together."""

    file: NodeFile
    cluster: ClusterFile
    identity: Identity
    index: int

    @property
    def certificates(self) -> tuple[str, ...]:
        """All that this node has had, the first one first."""
        return self.cluster.nodes[self.index].certificates

    @classmethod
    def read(cls, path: Path, *, may_change: bool = True) -> Settings:
        """Read `node.toml` and what it points to.

        If it `may_change` files, a list of members that is due takes the place of the one before it. Raises
        ConfigError, TransportError, or StorageError for a node that is half restored.
        """
        file = NodeFile.read(path)
        require_restored(file)
        return cls.of(file, current(file.cluster) if may_change else in_force(file.cluster))

    @classmethod
    def of(cls, file: NodeFile, cluster: ClusterFile) -> Settings:
        """The settings by a list of members. Raises ConfigError or TransportError."""
        found = cluster.of_mine(Identity.read_all(file.key))
        if found is None or not is_party(found[0]):
            raise ConfigError(
                f"{file.cluster} lists no node with the certificate in {file.key}; merge the public part of "
                "this node into it"
            )
        return cls(file, cluster, found[1], int(found[0].split()[1]))

    def transport(self) -> TlsTransport:
        """TLS, with everybody else's certificate pinned."""
        return TlsTransport(self.identity, others(self.cluster, self.index))


def engine_of(file: NodeFile) -> Engine:
    """What starts the workers of a node whose file asks for some. Raises ConfigError."""
    return engine(file.engine).make(file.workers, file.engine_options, file.directory)


def storage_of(file: NodeFile) -> Storage | None:
    """Where the workers of a node read what it has stored; None if only the node can."""
    return SharedStorage(file.storage, file.memory_mb << 20) if is_shared(file.storage) else None


async def serve(
    settings: Settings,
    *,
    log_lost: bool = False,
    signals: bool = True,
    task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a node until it is cancelled or told to stop by a signal. Raises what makes a start impossible.

    Without `signals`, as beside others in a process, it is cancelled only. With `log_lost`, an audit log that
    has lost lines does not.
    """
    with running(settings.file):
        await _serve(settings, log_lost=log_lost, signals=signals, task_status=task_status)


async def _serve(
    settings: Settings, *, log_lost: bool, signals: bool, task_status: trio.TaskStatus[Node]
) -> None:
    file, cluster = settings.file, settings.cluster
    party = Party(
        settings.index,
        parties=len(cluster.nodes),
        protocol=cluster.protocol_class,
        timeout_s=file.timeout_s,
        threads=file.threads,
        scratch=Scratch.within(file.memory_mb << 20, file.scratch),
    )
    await trio.to_thread.run_sync(load_all)
    vault = await trio.to_thread.run_sync(Vault, file)
    require_restored(file)  # it may have been begun since the settings were read
    lists = await vault.ask(require_goes_on, file.cluster, cluster, vault.journal, vault.catalog)
    noted = await vault.ask(vault.journal.noted)
    audit = AuditLog(
        file.directory / "audit.log",
        MemberKeys(settings.identity),
        former=settings.certificates[:-1],
        noted=None if noted is None else Head(*noted),
        lost=log_lost,
    )
    if len(lists) > 1:
        tell_amended(audit, lists)
        await vault.ask(audit.settle)
    await vault.ask(note_start, file.cluster, cluster, vault.journal, vault.catalog)
    gate = LakeGate(party, file, Roster(file, settings.index, cluster), vault, audit)
    if audit.head.lines:
        await gate.note_log()  # peers have perhaps been told of more than was noted
    logs = PeerLogs(party, gate.roster, vault, audit)
    transport = settings.transport()
    transport.on_refusal = Doorbell(audit).ring
    node = Node(
        party,
        transport,
        shaping=Shaping(),
        trusted_names=True,
        lasting=True,
        lake=cluster.digest(),
        number=cluster.number,
        gate=gate,
        jobs=gate.jobs,
    )
    muster = None
    if file.workers:
        muster = Muster(
            party,
            engine_of(file),
            transport.name,
            lasting=True,
            storage=storage_of(file),
            scratch=Scratch.within(file.memory_mb << 20, file.worker_scratch),
        )
    for name in vault.swept:
        logger.warning("%s was left by an upload that did not end, and was removed", name)
    if vault.strange:
        logger.warning(
            "%s has %d files that this node's key does not open, such as %s: another node's, or damaged; see "
            "whether node.toml names the right storage, and move them away if it does",
            file.storage,
            len(vault.strange),
            vault.strange[0],
        )
    with contextlib.ExitStack() as stack:
        if file.metrics:
            where = stack.enter_context(serve_metrics(node, file.metrics, gate.roster))
            logger.info("health and metrics are at http://%s", where)
        async with plain_errors(), trio.open_nursery() as nursery:
            address = await node.listen(file.listen, nursery=nursery)
            await nursery.start(node.serve, [entry.address for entry in cluster.nodes])
            name = cluster.nodes[settings.index].name
            logger.info("node %s is %s and listens at %s", name, party.name, address)
            audit.append("started", release=version("tercet"), address=address, file=cluster.number)
            if muster is not None:
                nursery.start_soon(muster.run)
            nursery.start_soon(logs.run)
            nursery.start_soon(_sweep, gate, logs)
            supervisor = Supervisor.of_environment()
            nursery.start_soon(supervisor.keep_told, node)
            nursery.start_soon(Changeover(node, gate, transport).run)
            task_status.started(node)
            if not signals:
                await trio.sleep_forever()
            await nursery.start(_follow_levels)
            await _until_told(node, file.grace_s, supervisor)
            nursery.cancel_scope.cancel()
    with _survived(), trio.move_on_after(file.timeout_s):
        await gate.note_log()


@contextlib.contextmanager
def _survived() -> Iterator[None]:
    """Log a catalog or disk that fails, and go on."""
    try:
        yield
    except StorageError as error:
        logger.error("%s", error)  # noqa: TRY400 - the traceback would say nothing


async def _sweep(gate: LakeGate, logs: PeerLogs) -> None:
    """Forget what has expired, and tell peers how far the audit log has come, now and then.

    A catalog or disk that fails is asked again.
    """
    while True:
        with _survived():
            await gate.sweep()
            await logs.tell()
        await trio.sleep(SWEEP_S)


async def _follow_levels(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Log at the level of debugging from SIGUSR1 on, and as when the node was started from SIGUSR2 on.

    Who may send signals is the system's to decide: the user that the node runs as, and root.
    """
    root = logging.getLogger()
    usual = root.level
    with trio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGUSR1:
                root.setLevel(logging.DEBUG)
                logger.warning("SIGUSR1: the log says all from now on, until SIGUSR2")
            else:
                logger.warning("SIGUSR2: the log is at level %s again", logging.getLevelName(usual).lower())
                root.setLevel(usual)


async def _until_told(node: Node, grace_s: float, supervisor: Supervisor) -> None:
    """Wait for a signal, then for the runs under way; a second signal ends the wait."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            logger.info("%s: waiting for %d runs to end", signal.Signals(number).name, node.party.running)
            break
        node.party.stopping = True
        supervisor.tell("STOPPING=1", f"STATUS=waiting for {node.party.running} runs to end")
        with trio.move_on_after(grace_s):
            async with trio.open_nursery() as nursery:

                async def again() -> None:
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(again)
                await node.party.until_idle()
                nursery.cancel_scope.cancel()
        logger.info("ended with %d runs under way", node.party.running)


def main(path: Path, *, level: str = "info", log_lost: bool = False) -> None:
    """Be a node until told to stop, as `serve`. Raises what makes a start impossible."""
    log_to_stderr(level=level)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # until the node is there, they would end it
    settings = Settings.read(path)
    collect_seldom()
    sys.setswitchinterval(SWITCH_S)
    with contextlib.suppress(KeyboardInterrupt):
        trio.run(functools.partial(serve, settings, log_lost=log_lost))
