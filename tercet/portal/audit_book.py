"""The audit logs of all nodes as a portal shows them: verified in the background, searched in memory.

How far they were verified is noted beside the member's key, as `tercet audit` does it, so a log that has lost
or changed lines since is told, whichever of the two has looked before. A portal that starts reads all lines,
which have to lead to the head that was noted, and verifies the signatures of those after it; afterwards it
reads what is new. Signatures of all lines are verified when its member says so.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from tercet.client.lake import AsyncLake
from tercet.errors import TercetError
from tercet.members.audit_lines import parse, understood
from tercet.members.config import ClusterFile
from tercet.members.seals import Head
from tercet.members.verified import Verified
from tercet.portal.mishaps import unforeseen

LOG_WAIT_S = 0.4
"""How long a page waits for what is new; it shows what is there, and comes again once all of it was read."""
MOST_LINES = 100_000
"""Of each node, so many of the latest lines can be searched; all are verified."""
MOST_CHARACTERS = 1 << 27
"""Of each node, so many characters in these lines."""
LONGEST_FACT = 1 << 16
"""Characters of a fact; of a longer one it is told how long it is."""
SHOWN = 100
"""Characters that are shown of a line that makes no sense."""
NONSENSE = "makes no sense"
SETTLED_S = 60.0
"""Nodes write what they decide at about the same time; lines that are younger are not compared."""
SAME = ("caller", "session", "study", "run", "position", "computation", "kind", "name", "digest")
"""What nodes write alike of one event."""
COMPARED = ("proposed", "approved", "refused-study", "begins", "admitted", "runs", "kept", "dropped")


@attrs.frozen
class Entry:
    """A line of a node's log."""

    node: str
    number: int
    time: float
    event: str
    facts: Mapping[str, Any]
    text: str
    """All that it says, in small letters, to be searched."""

    @classmethod
    def of(cls, node: str, line: str) -> Entry:
        """Of a line that was verified: it is the node's, which may have written anything."""
        told = understood(line)
        if told is None:
            return cls._nonsense(node, line)
        number, seconds, event, rest = told
        try:
            facts = {name: _plain(value) for name, value in rest.items()}
        except RecursionError:
            return cls._nonsense(node, line)
        words = " ".join((node, event, *map(str, facts.values())))
        return cls(node, number, seconds, event, facts, words.lower())

    @classmethod
    def _nonsense(cls, node: str, line: str) -> Entry:
        """Of a line that no node of this release writes; it stands where it is seen."""
        number = -1
        with contextlib.suppress(RecursionError, ValueError):
            match parse(line):
                case {"number": int(number)}:
                    pass
        note = f"{len(line):,} characters, which begin {line[:SHOWN]!a}"
        return cls(node, number, time.time(), NONSENSE, {"note": note}, f"{node} {NONSENSE} {note}".lower())

    @property
    def said(self) -> str:
        """What it says, for people."""
        return "; ".join(
            f"{name} {_said(value)}" for name, value in self.facts.items() if value not in (None, [])
        )

    def concerns(self, member: str, tables: frozenset[str]) -> bool:
        """Whether it is about a member: what she did, was asked, or was computed on tables of hers."""
        owners, read = self._texts("owners"), self._texts("reads")
        return self.facts.get("caller") == member or member in owners or not tables.isdisjoint(read)

    @property
    def reveals(self) -> list[str]:
        """What came out of a computation."""
        return self._texts("reveals")

    def _texts(self, name: str) -> list[str]:
        """A fact that is a list of texts; of anything else the texts that it has."""
        found = self.facts.get(name)
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _plain(value: Any) -> Any:
    """A fact of a line as text, a number, or a list of those, however deep it was."""
    length = len(str(value))
    if length > LONGEST_FACT:
        return f"({length:,} characters)"
    if isinstance(value, list):
        return [one if isinstance(one, str | int | float) else str(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class AuditBook:
    """What was read of the logs, and where they stand."""

    def __init__(
        self,
        cluster: ClusterFile,
        identity: Path,
        lake: Callable[[], Awaitable[AsyncLake]],
        nursery: trio.Nursery,
    ) -> None:
        self.heads: dict[str, Head] = {}
        self.reading = False
        self.why_not = ""
        """What has kept the logs from being read or verified."""
        self.read_at: float | None = None
        self._cluster, self._lake, self._nursery = cluster, lake, nursery
        self._noted = Verified.beside(identity)
        self._entries: dict[str, deque[Entry]] = {node.name: deque() for node in cluster.nodes}
        self._cut: set[str] = set()
        """Nodes of which earlier lines were left out."""
        self._all_signatures = False
        """Whether all are to be verified, until they have been."""

    def refresh(self) -> None:
        """Read what is new, in the background."""
        if not self.reading:
            self.reading = True
            self._nursery.start_soon(self._read)

    def verify(self) -> None:
        """Verify the signatures of all lines again, in the background, once what is being read was read."""
        self._all_signatures = True
        self.refresh()

    async def read(self, within_s: float) -> bool:
        """Wait for what is new, if that takes no longer; whether it is there."""
        self.refresh()
        with trio.move_on_after(within_s):
            while self.reading:  # noqa: ASYNC110 - a task of its own reads, with its own end
                await trio.sleep(0.05)
        return not self.reading

    async def _read(self) -> None:
        all_signatures = self._all_signatures
        if all_signatures:
            self.heads = {}
            self._cut.clear()
            for entries in self._entries.values():
                entries.clear()
        try:
            known = self.heads or {
                node.name: self._noted.head(*node.certificates) for node in self._cluster.nodes
            }
            begins = not self.heads
            lake = await self._lake()
            logs = await lake.audit(known, again=begins, by_hash=not all_signatures, most=MOST_LINES)
            for name, (head, lines) in logs.items():
                if len(lines) < head.lines - (0 if begins else known.get(name, Head()).lines):
                    self._cut.add(name)
                self._add(name, await trio.to_thread.run_sync(_parsed, name, lines))
                self.heads[name] = head
            self._noted.remember({node.certificate: self.heads[node.name] for node in self._cluster.nodes})
            self.why_not, self.read_at = "", time.time()
            if all_signatures:
                self._all_signatures = False
        except TercetError as error:
            self.why_not = str(error)
        except Exception as error:  # noqa: BLE001 - a portal goes on
            self.why_not = unforeseen("reading the audit logs", error)
        finally:
            self.reading = False
        if self._all_signatures and not all_signatures:
            self.refresh()

    def _add(self, name: str, entries: list[Entry]) -> None:
        """Have lines searched; the earliest make room."""
        found = self._entries[name]
        found += entries
        room = MOST_CHARACTERS - sum(len(one.text) for one in found)
        while len(found) > MOST_LINES or room < 0:
            room += len(found.popleft().text)
            self._cut.add(name)

    def entries(self, node: str = "") -> Iterator[Entry]:
        """Lines, the latest first, of one node or of all."""
        chosen = [self._entries[node]] if node in self._entries else self._entries.values()
        yield from sorted((one for some in chosen for one in some), key=lambda one: -one.time)

    def found(self, words: str, node: str = "", event: str = "") -> list[Entry]:
        """Lines with all of these words in them."""
        wanted = words.lower().split()
        return [
            one
            for one in self.entries(node)
            if (not event or one.event == event) and all(word in one.text for word in wanted)
        ]

    def events(self) -> list[str]:
        """Kinds of lines that there are."""
        return sorted({one.event for one in self.entries()})

    def differences(self) -> list[tuple[Entry, dict[str, int]]]:
        """Events that nodes have not equally often, and how often each has them.

        Of the time of which all nodes' lines are known here, but for the last minute.
        """
        full = [self._entries[name] for name in self._cut if self._entries[name]]
        since = max((some[0].time for some in full), default=0.0) + (SETTLED_S if full else 0.0)
        until = time.time() - SETTLED_S
        counts: dict[str, Counter[tuple[Any, ...]]] = {}
        shown: dict[tuple[Any, ...], Entry] = {}
        for name, some in self._entries.items():
            counts[name] = Counter()
            for one in some:
                if one.event in COMPARED and since <= one.time <= until:
                    key = (one.event, *(str(one.facts.get(fact)) for fact in SAME))
                    counts[name][key] += 1
                    shown.setdefault(key, one)
        found = ((one, {name: count[key] for name, count in counts.items()}) for key, one in shown.items())
        return [(one, each) for one, each in found if len(set(each.values())) > 1]


def _parsed(name: str, lines: list[str]) -> list[Entry]:
    return [Entry.of(name, line) for line in lines]
