"""The audit logs of all nodes as a portal shows them: verified in the background, searched in memory.

The first time they are verified from their beginning; afterwards what is new. How far, is noted beside the
member's key, as `tercet audit` does it, so a log that has lost lines since is told, whichever of the two has
looked before.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from tercet.client.lake import AsyncLake
from tercet.errors import TercetError
from tercet.members.audit import Head, parse
from tercet.members.config import ClusterFile
from tercet.members.verified import Verified

MOST_LINES = 100_000
"""Of each node, so many of the latest lines can be searched; all are verified."""
SETTLED_S = 60.0
"""Nodes write what they decide at about the same time; lines that are younger are not compared."""
APART = ("before", "number", "time", "event")
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
        """Of a line that was verified."""
        body = parse(line)
        facts = {name: value for name, value in body.items() if name not in APART}
        words = " ".join((node, body["event"], *map(str, facts.values())))
        return cls(node, body["number"], body["time"], body["event"], facts, words.lower())

    @property
    def said(self) -> str:
        """What it says, for people."""
        return "; ".join(
            f"{name} {_said(value)}" for name, value in self.facts.items() if value not in (None, [])
        )

    def concerns(self, member: str, tables: frozenset[str]) -> bool:
        """Whether it is about a member: what she did, was asked, or was computed on tables of hers."""
        facts = self.facts
        read = facts.get("reads", [])
        return (
            facts.get("caller") == member
            or member in facts.get("owners", [])
            or (isinstance(read, list) and not tables.isdisjoint(read))
        )


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
        self._entries: dict[str, deque[Entry]] = {
            node.name: deque(maxlen=MOST_LINES) for node in cluster.nodes
        }

    def refresh(self) -> None:
        """Read what is new, in the background."""
        if not self.reading:
            self.reading = True
            self._nursery.start_soon(self._read)

    def verify(self) -> None:
        """Verify all lines again, in the background."""
        if not self.reading:
            self.heads = {}
            for entries in self._entries.values():
                entries.clear()
            self.refresh()

    async def read(self, within_s: float) -> bool:
        """Wait for what is new, if that takes no longer; whether it is there."""
        self.refresh()
        with trio.move_on_after(within_s):
            while self.reading:  # noqa: ASYNC110 - a task of its own reads, with its own end
                await trio.sleep(0.05)
        return not self.reading

    async def _read(self) -> None:
        try:
            known = self.heads or {
                node.name: self._noted.head(*node.certificates) for node in self._cluster.nodes
            }
            lake = await self._lake()
            logs = await lake.audit(known, again=not self.heads, most=MOST_LINES)
            for name, (head, lines) in logs.items():
                self._entries[name] += await trio.to_thread.run_sync(_parsed, name, lines)
                self.heads[name] = head
            self._noted.remember({node.certificate: self.heads[node.name] for node in self._cluster.nodes})
            self.why_not, self.read_at = "", time.time()
        except TercetError as error:
            self.why_not = str(error)
        finally:
            self.reading = False

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
        full = [some for some in self._entries.values() if len(some) == MOST_LINES]
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
