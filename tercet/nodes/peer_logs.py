"""What nodes tell each other of their audit logs, so that one that goes back to an earlier state is noticed.

Every minute, and when a link is made, a node says how many lines of its log are on its disk, and the hash of
the last one. The others remember that in their catalogs. When a link is made they ask besides for the hash of
the line that was the last one then: a log that lacks it, or has another line there, is of a node that was put
back from a backup, or has lost lines or changed them. They write that down, and say so for a week to whoever
checks the lake. Nothing else follows: every node decides by what it has itself, so what the one has forgotten
the others hold against a plan.

A word is some 100 bytes. A node that lies can say what it likes of its own log; auditors read all of its
lines. Of what it says the latest word of each kind counts, and is looked at twice a second at most.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import time
from typing import Any

import attrs
import trio

from tercet.actors.party import Party
from tercet.actors.threads import in_thread
from tercet.errors import ProtocolError, StorageError
from tercet.members.audit import AuditLog
from tercet.members.audit_lines import digest_of
from tercet.members.seals import Head
from tercet.nodes.roster import Roster
from tercet.nodes.vault import Vault
from tercet.storage.catalog_copies import Restored
from tercet.storage.peer_rows import PeerRow, PeerRows
from tercet.transports.names import party_name

logger = logging.getLogger(__name__)

SAID_S = 7 * 86400.0
"""For how long it is said that a node has gone back."""
QUIET_S = 600.0
"""A peer that goes back again within so long gets no other line in the logs."""
PAUSE_S = 0.5
"""For how long what peers say waits after other words were looked at."""
MOST_LINES = 1 << 50
_DIGEST = re.compile(r"[0-9a-f]{64}")


@attrs.define
class _Link:
    """A link to a peer: about which number of lines it was asked, and what it has said before it answered."""

    asked: int | None = None
    said: Head | None = None


class PeerLogs:
    """Remembers the logs of the other nodes, and tells them of this one's."""

    def __init__(self, party: Party, roster: Roster, vault: Vault, audit: AuditLog) -> None:
        self._party, self._roster, self._vault, self._audit = party, roster, vault, audit
        self._journal, self._rows = vault.journal, PeerRows(vault.catalog)
        self._links = {index: _Link() for index in range(party.parties)}
        self._heard: dict[tuple[int, str], list[Any]] = {}
        """The latest word of each kind of each peer."""
        self._told_by: set[str] = set()
        """Peers that know of more lines of this node's log."""
        self._wake = trio.Event()
        self._say(self._rows.all())
        party.on_log = self._hear
        party.on_linked.append(self._linked)

    async def run(self) -> None:
        """Take what peers say; whatever goes wrong is told in the node's log, and the node goes on."""
        while True:
            await self._wake.wait()
            self._wake, heard = trio.Event(), self._heard
            self._heard = {}
            for (index, _), word in heard.items():
                try:
                    await self._take(index, word)
                except StorageError as error:
                    logger.warning("what %s says of its audit log: %s", party_name(index), error)
                except Exception:
                    logger.exception("what %s says of its audit log", party_name(index))
            await trio.sleep(PAUSE_S)

    async def tell(self) -> None:
        """Tell all peers how far this node's log has come and is on the disk. Raises StorageError."""
        head = await self._settled()
        for index in range(self._party.parties):
            if index != self._party.index:
                self._tell(index, ["now", head.lines, head.digest])
        self._say(await in_thread(self._rows.all))

    def _say(self, rows: list[PeerRow]) -> None:
        """Let whoever asks how this node is know who has gone back."""
        self._roster.went_back = [
            [row.node, row.had, row.has, _moment(row.noticed)]
            for row in rows
            if row.noticed is not None and row.noticed > time.time() - SAID_S
        ]

    async def _settled(self) -> Head:
        noted = await in_thread(self._journal.noted)
        return Head() if noted is None else Head(*noted)

    def _tell(self, index: int, word: list[Any]) -> None:
        self._party.tell(index, word, "log")

    # -- what peers say --------------------------------------------------------------------------------------

    def _linked(self, index: int) -> None:
        """There is a new link to a peer, which has said nothing yet."""
        self._heard = {key: word for key, word in self._heard.items() if key[0] != index}
        self._note(index, ["linked"])

    def _hear(self, index: int, word: list[Any]) -> None:
        """Take a word of a peer, which comes again if it matters. Raises ProtocolError."""
        match word:
            case ["now", int(lines), str(digest)] if _is_number(lines) and _DIGEST.fullmatch(digest):
                pass
            case ["at", int(lines)] if _is_number(lines):
                pass
            case ["had", int(lines), str(digest), int(has)] if (
                _is_number(lines) and _is_number(has) and (not digest or _DIGEST.fullmatch(digest))
            ):
                pass
            case _:
                raise ProtocolError(f"{party_name(index)} said {word!r:.80} of a log, which nobody says")
        self._note(index, word)

    def _note(self, index: int, word: list[Any]) -> None:
        self._heard[index, word[0]] = word
        self._wake.set()

    async def _take(self, index: int, word: list[Any]) -> None:
        link, name = self._links[index], self._name(index)
        match word:
            case ["linked"]:
                known = await in_thread(self._rows.find, name)
                link.asked = known.lines if known is not None and known.lines else None
                link.said = None
                if link.asked is not None:
                    self._tell(index, ["at", link.asked])
                head = await self._settled()
                self._tell(index, ["now", head.lines, head.digest])
            case ["at", lines]:
                digest = await in_thread(self._digest_at, lines)
                if not digest:
                    self._know_it_went_back(lines, name)
                self._tell(index, ["had", lines, digest, self._audit.head.lines])
            case ["had", lines, digest, has] if lines == link.asked:
                link.asked = None
                known = await in_thread(self._rows.find, name)
                if known is not None and known.lines == lines and known.digest != digest:
                    await self._went_back(known, has, link.said or Head())
                elif link.said is not None:
                    await self._follow(name, link.said)
            case ["now", lines, digest] if link.asked is not None:
                link.said = Head(lines, digest)
            case ["now", lines, digest]:
                await self._follow(name, Head(lines, digest))

    def _know_it_went_back(self, lines: int, name: str) -> None:
        """A peer knows of more lines of this node's log, which may have been put back by other means.

        Or so it says, which is told once.
        """
        if name in self._told_by:
            return
        self._told_by.add(name)
        own = self._name(self._party.index)
        if self._vault.restored is None:
            self._vault.restored = Restored(own, f"an earlier time, as {name} says")
        logger.error(
            "%s knows of %d lines of the audit log of %s, which has %d: this node has gone back to an "
            "earlier state, or has lost lines",
            name, lines, own, self._audit.head.lines,
        )  # fmt: skip

    async def _follow(self, name: str, head: Head) -> None:
        """The log of a peer has come to a head, or gone back to it."""
        known = await in_thread(self._rows.find, name) or PeerRow(name, 0, "")
        if head.lines < known.lines or (head.lines == known.lines and known.digest not in ("", head.digest)):
            await self._went_back(known, head.lines, head)
        elif (head.lines, head.digest) != (known.lines, known.digest):
            await in_thread(self._rows.put, attrs.evolve(known, lines=head.lines, digest=head.digest))

    async def _went_back(self, known: PeerRow, has: int, head: Head) -> None:
        now = time.time()
        said = known.noticed is not None and 0 <= now - known.noticed < QUIET_S
        row = PeerRow(known.node, head.lines, head.digest, known.lines, has, now)
        if not said:
            self._audit.append("went_back", node=row.node, had=row.had, has=row.has)
            await in_thread(self._audit.settle)
            logger.error(
                "%s has come back with %d lines of its audit log, and had %d, the last of which is not among "
                "them: it was put back from a backup, or has lost lines, and lacks what came since",
                row.node, has, known.lines,
            )  # fmt: skip
        await in_thread(self._rows.put, row)
        self._say(await in_thread(self._rows.all))

    def _digest_at(self, lines: int) -> str:
        """The hash of the last of so many lines of this node's log; empty if it has fewer.

        Blocks. Raises StorageError for a log of which the disk has less.
        """
        if lines > self._audit.head.lines:
            return ""
        if not lines:
            return Head().digest
        page = self._audit.lines(lines - 1, 1)
        if not page or not page[0]:
            raise StorageError(
                f"{self._audit.path} has lost line {lines - 1} while the node runs; restore it"
            )
        return digest_of(page[0].partition("\t")[0])

    def _name(self, index: int) -> str:
        return self._roster.cluster.nodes[index].name


def _is_number(lines: int) -> bool:
    return type(lines) is int and 0 <= lines <= MOST_LINES


def _moment(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
