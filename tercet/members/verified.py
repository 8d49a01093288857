"""How far somebody has verified the audit logs of nodes, so that the next time they go on from there.

A file beside a key: for each node, known by its certificate, the head to which its log was verified last. A
log that has lost or changed lines since then does not have that head any more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import attrs

from tercet.errors import ConfigError
from tercet.members.keys import digest_of_certificate
from tercet.members.seals import Head


@attrs.frozen
class Verified:
    """Heads by node certificate (PEM), in a file."""

    path: Path

    @classmethod
    def beside(cls, key: Path) -> Self:
        """The file beside the key of a member or node."""
        return cls(key.with_name(f"{key.stem}.audited.json"))

    def head(self, *certificates: str) -> Head:
        """To which head the log of a node was verified, under any of the certificates that it has had.

        Raises ConfigError if the file makes no sense.
        """
        known = self._read()
        heads = [known.get(digest_of_certificate(one), Head()) for one in certificates]
        return max(heads, key=lambda head: head.lines, default=Head())

    def remember(self, heads: Mapping[str, Head]) -> None:
        """Note to which heads logs were verified now. Raises ConfigError."""
        known = self._read() | {
            digest_of_certificate(certificate): head for certificate, head in heads.items()
        }
        text = json.dumps({name: attrs.astuple(head) for name, head in known.items()}, indent=1)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            temporary.write_text(text + "\n")
            temporary.replace(self.path)
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written ({error.strerror}): how far logs were verified is noted there"
            ) from error

    def _read(self) -> dict[str, Head]:
        if not self.path.exists():
            return {}
        try:
            told = json.loads(self.path.read_text())
            return {str(name): Head(int(lines), str(digest)) for name, (lines, digest) in told.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{self.path} does not tell how far audit logs were verified ({error}); remove it, and "
                "verify them from their beginning with --verify"
            ) from error
