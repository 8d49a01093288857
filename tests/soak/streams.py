"""Every random stream that a process draws, written down: `python -m tests.soak.streams` is such a node.

Dask's processes load this module (`--preload`), and are watched too. A party's streams are named by keys that
nobody else has, so a name that comes twice at one party, in whatever process and attempt, is a mask twice.
Tables are cut into small tiles, so that little data keeps workers busy. `TERCET_STREAMS` is the directory.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tercet.protocols.base import Protocol

TILE_ROWS = 256
DIRECTORY = "TERCET_STREAMS"
NO_SESSION = bytes(32)
"""The key of a party that only works out what operations cost."""
NAME_BYTES = 16


def log_streams() -> None:
    """Write down the names of streams from now on, each at once: the process may be killed."""
    path = Path(os.environ[DIRECTORY]) / f"{os.getpid()}.log"
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    stream = Protocol.stream

    def drawing(protocol: Protocol, key: bytes, tag: str, purpose: str) -> Any:
        if key != NO_SESSION:
            name = hashlib.blake2b(f"{tag}/{purpose}".encode(), key=key, digest_size=NAME_BYTES)
            os.write(log, f"{protocol.party} {name.hexdigest()}\n".encode())
        return stream(protocol, key, tag, purpose)

    Protocol.stream = drawing  # type: ignore[method-assign]


def dask_setup(_: object) -> None:
    """What Dask calls as one of its processes starts."""
    log_streams()


def drawn(directory: Path) -> Counter[str]:
    """How often each party drew each stream: `party name`."""
    return Counter(line for log in directory.iterdir() for line in log.read_text().splitlines())


if __name__ == "__main__":
    from tercet.cli import app
    from tercet.nodes import requests

    log_streams()
    requests.TILE_ROWS = TILE_ROWS
    app(sys.argv[1:], prog_name="tercet")
