"""Seals: what a node signs of a segment of its audit log when the segment is full.

A seal says where the log stood before the segment and after it, how long its file is, and where in it every
64th line begins. So heads can be followed over segments without their lines, and a line is found without
those before it.
"""

from __future__ import annotations

import bisect
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import attrs

from tercet.errors import ConsentError
from tercet.members.keys import MemberKeys, verify

PURPOSE = b"audit seal"
GENESIS = "0" * 64
STRIDE = 64
"""A seal knows where every so manieth line begins."""


@attrs.frozen
class Head:
    """Where a log stands: how many lines it has, and the hash of the last one."""

    lines: int = 0
    digest: str = GENESIS


@attrs.frozen(eq=False)
class Seal:
    """A segment of a log: its number, the heads before and after it, its bytes, and where lines begin.

    Number 0 stands for lines that are not in a segment yet.
    """

    number: int
    before: Head
    head: Head
    size: int
    offsets: array[int]

    @property
    def count(self) -> int:
        """How many lines it has."""
        return self.head.lines - self.before.lines

    def path(self, log: Path) -> Path:
        """The file of the segment."""
        return segment_path(log, self.number) if self.number else log

    @classmethod
    def read(cls, log: Path, number: int, certificates: str | Sequence[str]) -> Self | None:
        """The seal of a segment, by any certificate that the node has had; None if there is none.

        Raises ConsentError for one that was changed.
        """
        known = (certificates,) if isinstance(certificates, str) else certificates
        path = seal_path(log, number)
        if not path.exists():
            return None
        text, _, signature = path.read_text(encoding="utf-8", errors="replace").partition("\t")
        try:
            signed = any(verify(one, PURPOSE, text.encode(), bytes.fromhex(signature)) for one in known)
            fields = json.loads(text)
            before, head = Head(*fields["before"]), Head(*fields["head"])
            found = cls(fields["number"], before, head, fields["size"], array("Q", fields["offsets"]))
        except (ValueError, KeyError, TypeError, OverflowError):
            signed = False
        if not signed or found.number != number:
            raise ConsentError(
                f"{path} was changed: keep a copy for who looks into it, and remove it; it is made again "
                "from the lines of its segment"
            )
        return found

    def write(self, log: Path, keys: MemberKeys) -> None:
        """Sign it, and write it whole or not at all. Raises OSError."""
        fields = {
            "number": self.number,
            "before": attrs.astuple(self.before),
            "head": attrs.astuple(self.head),
            "size": self.size,
            "offsets": self.offsets.tolist(),
        }
        text = json.dumps(fields, sort_keys=True)
        path = seal_path(log, self.number)
        temporary = path.with_suffix(".part")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(f"{text}\t{keys.sign(PURPOSE, text.encode()).hex()}")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync(path.parent)

    def lines(self, descriptor: int, start: int) -> Iterator[str]:
        """Its lines from a number on, out of its file, which is read stride by stride. Raises OSError."""
        stride, skipped = divmod(start - self.before.lines, STRIDE)
        ends = [*self.offsets[stride + 1 :], self.size]
        for begin, end in zip(self.offsets[stride:], ends, strict=True):
            read = os.pread(descriptor, end - begin, begin).decode(errors="replace")
            yield from read.removesuffix("\n").split("\n")[skipped:]
            skipped = 0


def segment_path(log: Path, number: int) -> Path:
    """The file of a segment of the log at a path."""
    return log.with_name(f"{log.stem}-{number:06d}{log.suffix}")


def seal_path(log: Path, number: int) -> Path:
    """The file of the seal of a segment."""
    return segment_path(log, number).with_suffix(".seal")


def segments_from(seals: Sequence[Seal], line: int) -> Sequence[Seal]:
    """Of neighbouring segments those that have a line or what comes after it."""
    return seals[bisect.bisect_right(seals, line, key=lambda seal: seal.head.lines) :]


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
