"""The audit log of a node: who asked for what, and what was let through or refused, in order and for good.

One JSON object a line, each with the hash of the line before and a signature with the node's key. A line that
was changed, removed or inserted breaks the chain at that place; a log that was cut at its end is found by
comparing its head with one that was noted elsewhere: by an auditor, from what `tercet audit` prints, and by
the node, in its catalog. No line has anything in it that is not public to members.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from tercet.consent.keys import MemberKeys, verify
from tercet.errors import ConsentError, StorageError

PURPOSE = b"audit"
GENESIS = "0" * 64


@attrs.frozen
class Head:
    """Where a log stands: how many lines it has, and the hash of the last one."""

    lines: int = 0
    digest: str = GENESIS


class AuditLog:
    """The log of this node, open for appending; verified when it is opened.

    `noted` is a head that it has had. Raises ConsentError for a log that was changed, and unless `lost` for
    one that has lost lines since; where it is said to be lost, the next line tells what was noted.
    """

    def __init__(
        self, path: Path, keys: MemberKeys, *, noted: Head | None = None, lost: bool = False
    ) -> None:
        self.path = path
        self._keys = keys
        self.head, noted = Head(), noted or Head()
        known = noted == self.head
        for self.head in _heads(read_lines(path), keys.identity.certificate_pem, where=str(path)):
            known = known or noted == self.head
        if not known and not lost:
            raise ConsentError(
                f"{path} has lost lines: it had {noted.lines}, and the last of those is not among the "
                f"{self.head.lines} that it has; restore it, or if it is lost start the node with --log-lost"
            )
        if not known:
            self.append("lost", lines=noted.lines, digest=noted.digest)

    def append(self, event: str, **facts: Any) -> None:
        """Add a line; `settle` has it on the disk. Raises StorageError if it cannot be written."""
        body = {
            "number": self.head.lines,
            "time": round(time.time(), 3),
            "event": event,
            **facts,
            "before": self.head.digest,
        }
        text = json.dumps(body, sort_keys=True)
        signature = self._keys.sign(PURPOSE, text.encode()).hex()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                _write_whole(descriptor, f"{text}\t{signature}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unwritten(error) from error
        self.head = Head(self.head.lines + 1, _digest(text))

    def settle(self) -> None:
        """Wait until all lines are on the disk, which may take long: call it in a thread."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: OSError) -> StorageError:
        return StorageError(
            f"the audit log {self.path} cannot be written ({error.strerror}); make room: nothing is run "
            "without it"
        )

    def lines(self, start: int, count: int) -> list[str]:
        """Lines as they are, from a number on."""
        return [line for number, line in enumerate(read_lines(self.path)) if start <= number < start + count]


def _write_whole(descriptor: int, data: bytes) -> None:
    """Add all of it or nothing: what is left of a line would spoil the next one."""
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a log; none if it does not exist yet. What is not UTF-8 comes as nobody has signed it."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            yield from (line.removesuffix("\n") for line in file)


def parse(line: str) -> dict[str, Any]:
    """What a line says."""
    found: dict[str, Any] = json.loads(line.partition("\t")[0])
    return found


def check_lines(lines: Iterable[str], certificate: str, *, where: str) -> Head:
    """Verify a whole log; where it stands. Raises ConsentError that names the first line that is wrong."""
    heads = deque(_heads(lines, certificate, where=where), maxlen=1)
    return heads[0] if heads else Head()


def _heads(lines: Iterable[str], certificate: str, *, where: str) -> Iterator[Head]:
    """Where a log stood after each of its lines, verified."""
    head = Head()
    for number, line in enumerate(lines):
        text, _, signature = line.partition("\t")
        try:
            body = json.loads(text)
            signed = verify(certificate, PURPOSE, text.encode(), bytes.fromhex(signature))
            linked = body["number"] == number and body["before"] == head.digest
        except (ValueError, KeyError, TypeError) as error:
            raise ConsentError(
                f"{where}, line {number + 1}, is damaged ({error}): keep it for who looks into it"
            ) from error
        if not signed or not linked:
            what = "was not signed by this node's key" if not signed else "does not follow the line before"
            raise ConsentError(f"{where}, line {number + 1}, {what}: lines were changed, removed or inserted")
        head = Head(number + 1, _digest(text))
        yield head


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
