"""How a running node goes over to the list of members that follows, when that takes effect.

Nothing is restarted. New links are made by the certificates, addresses and names of the new list from one
moment on; links with those whose certificates are other ones now, or who are gone, end. So where members come
and go, what others have under way is not touched. Where a node's key was renewed, its links to the other
nodes are made anew, and what was under way is interrupted and goes on as after any lost link. Jobs of members
who are gone end.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

import attrs
import trio

from tercet.actors.node import Node
from tercet.errors import ConfigError, StorageError, TercetError, TransportError
from tercet.members.audit import AuditLog
from tercet.members.config import ClusterFile
from tercet.members.keys import MemberKeys
from tercet.members.succession import changes
from tercet.nodes.gate import LakeGate
from tercet.nodes.refusals import shortened
from tercet.transports import TlsTransport
from tercet.transports.names import party_name

logger = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often a node looks whether something follows its list."""


@attrs.define(eq=False)
class Changeover:
    """Looks after the list of one node."""

    node: Node
    gate: LakeGate
    transport: TlsTransport
    _told: str = ""
    _written: bytes = b""
    """The digest of the list of which the audit log has what it changes."""

    async def run(self) -> None:
        """Go over whenever something takes effect; a file that does not follow is told in the log, once."""
        roster = self.gate.roster
        await self._end_jobs()  # that the node could not end before it was started again
        while True:
            pause = LOOK_S
            try:
                after = await trio.to_thread.run_sync(roster.successor, abandon_on_cancel=True)
                if after is not None:
                    await self.go_over(after)
            except (ConfigError, StorageError, TransportError) as error:
                self._tell(str(error))
            except Exception as error:  # noqa: BLE001 - the node goes on, and tries again
                what = f"the list that follows could not be gone by ({type(error).__name__}: {error})"
                self._tell(what, unforeseen=error)
            else:
                self._tell("")
                pause = roster.until_due(LOOK_S)
            with trio.move_on_after(pause):
                await roster.changed.wait()
            roster.changed = trio.Event()

    def _tell(self, problem: str, unforeseen: Exception | None = None) -> None:
        if problem and problem != self._told:
            logger.error("%s", problem, exc_info=unforeseen)
        self._told = problem

    async def go_over(self, after: ClusterFile) -> None:
        """Go by a list that follows the present one. Raises ConfigError, StorageError or TransportError."""
        gate, roster = self.gate, self.gate.roster
        before = roster.cluster
        identity = await trio.to_thread.run_sync(roster.identity_of, after)
        steps = await trio.to_thread.run_sync(roster.steps_to, after)
        if self._written != after.digest():
            tell_amended(gate.audit, [before, *steps])
            self._written = after.digest()
        await trio.to_thread.run_sync(gate.audit.settle)
        await gate.vault.ask(lambda: gate.vault.journal.note_lake_file(after.to_text().encode()))
        if after.nodes[roster.index].certificate.strip() != before.nodes[roster.index].certificate.strip():
            gate.audit.renew(MemberKeys(identity))
        self.transport.pin(identity, others(after, roster.index))
        addresses = [entry.address for entry in after.nodes]
        was, now = before.pins(), after.pins()
        renewed = [name for name in was.keys() & now.keys() if was[name].strip() != now[name].strip()]
        gone = was.keys() - now.keys()
        self.node.go_by(after.digest(), after.number, addresses, renewed=renewed, gone=gone)
        roster.cluster = after
        roster.expect(None)
        gate.board.look_again(gone)
        logger.info("went over to number %d of cluster.toml", after.number)
        await self._end_jobs()

    async def _end_jobs(self) -> None:
        """End jobs of those who are gone, each whether or not others could be forgotten."""
        jobs, cluster = self.gate.jobs, self.gate.roster.cluster
        for job in list(jobs.jobs.values()):
            if cluster.member(job.caller) is None:
                try:
                    await jobs.end(job)
                except Exception as error:  # the next one has to end all the same
                    name, unforeseen = job.session.hex()[:8], not isinstance(error, TercetError)
                    logger.warning("job %s of %s: %s", name, job.caller, error, exc_info=unforeseen)


def tell_amended(audit: AuditLog, files: Sequence[ClusterFile]) -> None:
    """Write into the audit log what changes from file to file, before anything goes by the last one.

    A node that ends before it has noted that it goes by that writes it again when it starts.
    """
    for before, after in itertools.pairwise(files):
        audit.append("amended", file=after.number, changes=shortened(changes(before, after)))


def others(cluster: ClusterFile, index: int) -> dict[str, str]:
    """The certificates that a node pins: everybody's but its own."""
    return {name: pem for name, pem in cluster.pins().items() if name != party_name(index)}
