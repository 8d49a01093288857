"""Lines of an audit log as whoever audits it reads them: signed by their node, each linked to that before.

Somebody has them from the node or from its files, so nothing of them counts before it was verified. What is
in a log, and how one is written: see `tercet.members.audit`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from tercet.errors import ConsentError
from tercet.members.keys import digest_of_certificate, verify
from tercet.members.rules import LATEST
from tercet.members.seals import Head

PURPOSE = b"audit"
RENEWED = "renewed"
"""The event by which a log goes over to another key of its node."""


def parse(line: str) -> dict[str, Any]:
    """What a line says."""
    found: dict[str, Any] = json.loads(line.partition("\t")[0])
    return found


def understood(line: str) -> tuple[int, float, str, dict[str, Any]] | None:
    """Number, time, event and facts of a line that was verified; None if it is like none that nodes write.

    It is its node's, which may have written anything.
    """
    try:
        told: Any = parse(line)
    except (RecursionError, ValueError):
        return None
    match told:
        case {"number": int(number), "time": int() | float() as seconds, "event": str(event), **rest} if (
            0 <= seconds < LATEST
        ):
            facts = {str(name): value for name, value in rest.items() if name != "before"}
            return number, float(seconds), event, facts
    return None


def check_lines(
    lines: Iterable[str],
    certificates: str | Sequence[str],
    *,
    where: str,
    since: Head | None = None,
    known: Head | None = None,
) -> Head:
    """Verify lines that follow a head, by all certificates that their node has had; where they lead.

    `known` is a head that the log has had. Raises ConsentError that names the first line that is wrong.
    """
    reading = Follower(all_of(certificates), where, since or Head(), known or Head())
    for _ in reading.follow(lines):
        pass
    return reading.head


def lines_after(known: Head, lines: Iterable[str], *, where: str) -> Iterator[str]:
    """Lines after a head that is known; `lines` begin with the last one before it, if there is one.

    Raises ConsentError if that is gone, or another one.
    """
    lines = iter(lines)
    if known.lines:
        text = next(lines, "").partition("\t")[0]
        require(Head(known.lines, digest_of(text)), known, where=where)
    yield from lines


def require(head: Head, known: Head, *, where: str) -> None:
    """Raise ConsentError if a log does not have a head that is known, of as many lines."""
    if head != known:
        raise ConsentError(
            f"{where} had {known.lines} lines when it was verified last, and the last of those is gone or "
            "another one: lines were lost or changed since; keep a copy, and tell the other members. Once "
            "that is settled, remove the note of it beside your key (*.audited.json)"
        )


@attrs.define
class Follower:
    """Follows a log, page by page: where it stands, and which of its node's keys it has come to.

    `certificates` are all that the node has had, the first one first. The key is that of the first line that
    is read, and goes on to a later one only with the line that says so.

    `by_hash`: whoever reads has verified the log to the head that is `known`, and lines that lead there are
    those lines, since each has the hash of the one before. Their signatures are not verified again, but for
    the last one, which tells the key; so no line counts before that one has come.
    """

    certificates: Sequence[str]
    where: str
    head: Head = attrs.field(factory=Head)
    known: Head = attrs.field(factory=Head)
    key: int | None = None
    by_hash: bool = False

    def follow(self, lines: Iterable[str]) -> Iterator[tuple[str, Head]]:
        """Each of the next lines, verified, and where the log stood after it. Raises ConsentError."""
        for line in lines:
            text, _, signature = line.partition("\t")
            try:
                body = json.loads(text)
                signed = (self.by_hash and self.head.lines < self.known.lines - 1) or self._is_signed(
                    body, text.encode(), bytes.fromhex(signature)
                )
                linked = body["number"] == self.head.lines and body["before"] == self.head.digest
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ConsentError(
                    f"{self.where}, line {self.head.lines + 1}, is damaged ({error}): keep it for who looks "
                    "into it"
                ) from error
            if not signed or not linked:
                what = "does not follow the line before" if signed else "was not signed by this node's key"
                raise ConsentError(
                    f"{self.where}, line {self.head.lines + 1}, {what}: lines were changed, removed or "
                    "inserted"
                )
            self.head = Head(self.head.lines + 1, digest_of(text))
            if self.head.lines == self.known.lines:
                require(self.head, self.known, where=self.where)
            yield line, self.head

    def _is_signed(self, body: Mapping[str, Any], text: bytes, signature: bytes) -> bool:
        if self.key is not None and verify(self.certificates[self.key], PURPOSE, text, signature):
            return True
        told = body["certificate"] if body["event"] == RENEWED else None
        for key, certificate in enumerate(self.certificates):
            named = self.key is None or (key > self.key and told == digest_of_certificate(certificate))
            if named and verify(certificate, PURPOSE, text, signature):
                self.key = key
                return True
        return False

    def require_present_key(self) -> None:
        """Raise ConsentError if what was read ends under an earlier key than the node's present one."""
        if self.key not in (None, len(self.certificates) - 1):
            raise ConsentError(
                f"{self.where} ends under an earlier key of its node, which was renewed since: lines are "
                "missing, or were written by somebody who has that key; tell the other members"
            )


def all_of(certificates: str | Sequence[str]) -> tuple[str, ...]:
    """Certificates of a node, of which it may have had only one."""
    return (certificates,) if isinstance(certificates, str) else tuple(certificates)


def digest_of(text: str) -> str:
    """The hash of what a line says."""
    return hashlib.sha256(text.encode()).hexdigest()
