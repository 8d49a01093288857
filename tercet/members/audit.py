"""The audit log of a node: who asked for what, and what was let through or refused, in order and for good.

One JSON object a line, each with the hash of the line before and a signature with the node's key. A line that
was changed, removed or inserted breaks the chain at that place; a log that was cut at its end is found by
comparing its head with one that was noted elsewhere: by an auditor, from what `tercet audit` prints, and by
the node, in its catalog. No line has anything in it that is not public to members.

A node whose key was renewed says so in a line that is the first one under its new key; lines after it under
an earlier key count as forged. So whoever verifies goes by all certificates that the node has had.

Lines are written to `audit.log`. When that is long it becomes a segment, `audit-000001.log` and so on, and is
sealed: `audit-000001.seal` has its first and last head and where in the file every 64th line begins, signed.
Heads chain over segments, so a node that starts verifies the seals and the lines of `audit.log`, and a page
is read at the same cost wherever it is. The lines of segments are verified by whoever audits the log.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import threading
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tercet.errors import ConsentError, StorageError
from tercet.members.audit_lines import PURPOSE, RENEWED, Follower, digest_of, parse
from tercet.members.keys import MemberKeys, digest_of_certificate, verify
from tercet.members.seals import STRIDE, Head, Seal, seal_path, segment_path, segments_from, sync

SEGMENT_LINES, SEGMENT_BYTES = 1 << 14, 1 << 24
"""A log of so many lines or bytes becomes a segment."""
HOUR_S = 3600
PAGE_LINES, PAGE_BYTES = 256, 1 << 20
"""What a page has at most, but at least one line."""


class AuditLog:
    """The log of this node, open for appending; `audit.log` and the seals are verified when it is opened.

    `former` are the certificates that the node had before, the first one first; where the last line is under
    one of those, the next line goes over to the present key. `noted` is a head that the log has had. Raises
    ConsentError for a log that was changed, and unless `lost` for one that has lost lines since; where it is
    said to be lost, the next line tells what was noted. One task appends, any thread does all else.
    """

    def __init__(
        self,
        path: Path,
        keys: MemberKeys,
        *,
        former: Sequence[str] = (),
        noted: Head | None = None,
        lost: bool = False,
        segment_lines: int = SEGMENT_LINES,
    ) -> None:
        self.path = path
        self._keys = keys
        self._certificates = (*former, keys.identity.certificate_pem)
        self._segment_lines = segment_lines
        self._changing = threading.Lock()
        self._hour = 0
        self._callers: Counter[str] = Counter()
        noted = noted or Head()
        self.seals, cut = self._sealed(lost=lost)
        noted = max(noted, cut, key=lambda head: head.lines)
        self.head = self.seals[-1].head if self.seals else Head()
        self._begin_segment()
        known = self._has(noted)
        reading = self._follow(read_lines(path), path)
        for line, head in reading:
            self._take(line, head)
            known = known or noted == head
        if not known and not lost:
            raise ConsentError(
                f"{path} has lost lines: it had {noted.lines}, and the last of those is not among the "
                f"{self.head.lines} that it has; restore it, or if it is lost start the node with --log-lost"
            )
        if self._is_of_earlier_key():
            self._tell_renewed()
        if not known:
            self.append("lost", lines=noted.lines, digest=noted.digest)
        self.rotate()

    def _is_of_earlier_key(self) -> bool:
        """Whether the last line, if there is one, is under an earlier key than the present one."""
        if len(self._certificates) == 1 or not self.head.lines:
            return False
        text, _, signature = self.lines(self.head.lines - 1, 1)[0].partition("\t")
        try:
            return not verify(self._certificates[-1], PURPOSE, text.encode(), bytes.fromhex(signature))
        except ValueError:
            return False  # it is damaged, which whoever audits the log finds

    def _tell_renewed(self) -> None:
        self.append(RENEWED, certificate=digest_of_certificate(self._certificates[-1]))

    def renew(self, keys: MemberKeys) -> None:
        """Go over to another key of this node's, with a line that says so. Raises StorageError.

        A second time with the same key, nothing is to be said.
        """
        if keys.identity.certificate_pem == self._certificates[-1]:
            return
        before = self._keys, self._certificates
        self._keys, self._certificates = keys, (*self._certificates, keys.identity.certificate_pem)
        try:
            self._tell_renewed()
        except StorageError:
            self._keys, self._certificates = before  # lines go on under the key that the log knows
            raise

    # -- writing ---------------------------------------------------------------------------------------------

    def append(self, event: str, **facts: Any) -> None:
        """Add a line; `settle` has it on the disk. Raises StorageError if it cannot be written."""
        with self._changing:
            body = {
                "number": self.head.lines,
                "time": round(time.time(), 3),
                "event": event,
                **facts,
                "before": self.head.digest,
            }
            text = json.dumps(body, sort_keys=True)
            signature = self._keys.sign(PURPOSE, text.encode()).hex()
            line = f"{text}\t{signature}\n".encode()
            try:
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    _write_whole(descriptor, line)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise self._unwritten(error) from error
            self.head = Head(self.head.lines + 1, digest_of(text))
            self._count(len(line))
            self._note(body)

    def settle(self) -> None:
        """Wait until all lines are on the disk, which may take long: call it in a thread."""
        try:
            with self._changing:
                if self.seals and self.head == self._first:
                    return  # what is in segments was waited for before
                descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unwritten(error) from error

    def rotate(self) -> None:
        """Make a segment of a log that is long. Blocks: call it in a thread.

        Should this process end half-way, the seal is made when the log is opened again.
        """
        if self._is_short():
            return
        self.settle()
        try:
            with self._changing:
                sync(self.path)  # the few lines that came meanwhile
                seal = Seal(len(self.seals) + 1, self._first, self.head, self._size, self._offsets)
                self.path.rename(seal.path(self.path))
                self.seals = (*self.seals, seal)
                self._begin_segment()
            seal.write(self.path, self._keys)
        except OSError as error:
            raise self._unwritten(error) from error

    def _is_short(self) -> bool:
        lines = self.head.lines - self._first.lines
        return not lines or (lines < self._segment_lines and self._size < SEGMENT_BYTES)

    def _begin_segment(self) -> None:
        self._first, self._size, self._offsets = self.head, 0, array("Q")

    def lines_this_hour(self, caller: str) -> int:
        """How many lines a member has caused in this hour, of those that are in no segment yet or are new."""
        return self._callers[caller] if self._hour == int(time.time() // HOUR_S) else 0

    def _note(self, body: Mapping[str, Any]) -> None:
        hour = int(body["time"] // HOUR_S)
        if hour != self._hour:
            self._hour, self._callers = hour, Counter()
        self._callers[str(body.get("caller", ""))] += 1

    def _take(self, line: str, head: Head) -> None:
        """Know of a line that is there."""
        self.head = head
        self._count(len(line.encode()) + 1)
        self._note(parse(line))

    def _count(self, size: int) -> None:
        if (self.head.lines - self._first.lines - 1) % STRIDE == 0:
            self._offsets.append(self._size)
        self._size += size

    def _unwritten(self, error: OSError) -> StorageError:
        return StorageError(
            f"the audit log {self.path} cannot be written ({error.strerror}); make room: nothing is run "
            "without it"
        )

    # -- reading ---------------------------------------------------------------------------------------------

    def lines(self, start: int, count: int = PAGE_LINES, *, most_bytes: int = PAGE_BYTES) -> list[str]:
        """A page: lines as they are, from a number on, up to so many and so many bytes, but at least one.

        Reads less than two strides of lines more than it gives. Blocks. Raises StorageError.
        """
        found: list[str] = []
        try:
            with contextlib.ExitStack() as stack:
                for line in self._from(start, stack):
                    most_bytes -= len(line)
                    if len(found) == count or (found and most_bytes < 0):
                        break
                    found.append(line)
        except OSError as error:
            raise StorageError(f"{error.filename or self.path} cannot be read ({error.strerror})") from error
        return found

    def _from(self, start: int, stack: contextlib.ExitStack) -> Iterator[str]:
        """All lines from a number on; files are closed with the stack."""
        with self._changing:
            now = Seal(0, self._first, self.head, self._size, array("Q", self._offsets))
            seals = self.seals
            file = self._open(now, stack) if now.count else -1
        for seal in segments_from((*seals, now) if now.count else seals, start):
            yield from seal.lines(
                file if seal is now else self._open(seal, stack), max(start, seal.before.lines)
            )

    def _open(self, seal: Seal, stack: contextlib.ExitStack) -> int:
        descriptor = os.open(seal.path(self.path), os.O_RDONLY)
        stack.callback(os.close, descriptor)
        return descriptor

    def _has(self, head: Head) -> bool:
        """Whether the segments have had a head."""
        if head == Head():
            return True
        line = self.lines(head.lines - 1, 1) if head.lines <= self.head.lines else []
        return any(digest_of(one.partition("\t")[0]) == head.digest for one in line)

    def _sealed(self, *, lost: bool) -> tuple[tuple[Seal, ...], Head]:
        """All segments, and the head that the last one has lost, if it has.

        One without a seal is verified and gets it. Raises ConsentError for what does not fit together.
        """
        seals: tuple[Seal, ...] = ()
        cut = head = Head()
        for number in itertools.count(1):
            path = segment_path(self.path, number)
            seal = Seal.read(self.path, number, self._certificates)
            size = path.stat().st_size if path.exists() else -1
            if seal is not None and size != seal.size:
                if not lost:
                    raise ConsentError(
                        f"{path} has lost lines: it had {seal.count} in {seal.size} bytes when it was "
                        "sealed; restore it, or if it is lost start the node with --log-lost"
                    )
                cut = seal.head
                seal_path(self.path, number).unlink()
                seal = None
            if size < 0:
                return seals, cut
            if seal is None:
                seal = self._seal_again(number, path, head)
            if seal.before != head:
                raise ConsentError(
                    f"{path} does not follow what is before it: segments were changed, removed or inserted"
                )
            seals, head = (*seals, seal), seal.head
        raise AssertionError("numbers do not end")

    def _follow(self, lines: Iterable[str], path: Path) -> Iterator[tuple[str, Head]]:
        """Lines after the present head, verified, and where the log stood after each."""
        return Follower(self._certificates, str(path), self.head).follow(lines)

    def _seal_again(self, number: int, path: Path, head: Head) -> Seal:
        """The seal of a segment that has none: its node ended before that was written, or it was removed."""
        self.head = head
        self._begin_segment()
        for line, after in self._follow(read_lines(path), path):
            self._take(line, after)
        seal = Seal(number, head, self.head, self._size, self._offsets)
        seal.write(self.path, self._keys)
        return seal


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
    """The lines of a file; none if it does not exist yet. What is not UTF-8 comes as nobody has signed it."""
    if path.exists():
        with _text(path) as file:
            yield from (line.removesuffix("\n") for line in file)


def log_lines(path: Path, certificates: str | Sequence[str] = "", start: int = 0) -> Iterator[str]:
    """The lines of a log from a number on, those of its segments first, also while its node runs.

    With a start, seals tell which segments need not be read. Raises ConsentError for a seal that was changed.
    """
    with contextlib.ExitStack() as stack:
        latest = stack.enter_context(_text(path)) if path.exists() else None
        place = os.fstat(latest.fileno()) if latest else None
        number = 0
        for segment in itertools.takewhile(
            Path.exists, (segment_path(path, one) for one in itertools.count(1))
        ):
            if place is not None and os.path.samestat(segment.stat(), place):
                break  # it was sealed just now
            seal = Seal.read(path, int(segment.stem[-6:]), certificates) if start else None
            if seal is not None and seal.head.lines <= start:
                number = seal.head.lines
                continue
            for line in read_lines(segment):
                if number >= start:
                    yield line
                number += 1
        for line in latest or ():
            if number >= start:
                yield line.removesuffix("\n")
            number += 1


def _text(path: Path) -> TextIO:
    return path.open(encoding="utf-8", errors="replace", newline="\n")
