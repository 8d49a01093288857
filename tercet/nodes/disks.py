"""The disks that a node writes to, and how much room they have."""

from __future__ import annotations

import os
from pathlib import Path

from tercet.members.node_file import NodeFile
from tercet.storage.sealed import directory_of


def places(file: NodeFile) -> dict[str, Path]:
    """The directories of a node on this machine, by what it writes there."""
    found = {"audit log": file.directory}
    storage = directory_of(file.storage, file.directory)
    if storage is not None:
        found["storage"] = storage
    scheme, _, path = file.catalog.partition(":///")
    if scheme == "sqlite" and path:
        found["catalog"] = (file.directory / path).parent
    if file.scratch is not None:
        found["scratch"] = file.scratch
    return found


def free_bytes(file: NodeFile) -> dict[str, int]:
    """How many bytes may still be written, by what for; 0 where that cannot be found out."""
    found = {}
    for name, path in places(file).items():
        try:
            disk = os.statvfs(path)
        except OSError:
            found[name] = 0
        else:
            found[name] = disk.f_bavail * disk.f_frsize
    return found
