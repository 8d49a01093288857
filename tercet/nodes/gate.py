"""The gate of a node that lasts: what members may do, and what they can ask beyond running plans."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from tercet.actors.gate import Gate
from tercet.actors.party import Party
from tercet.nodes.config import NodeFile


class LakeGate(Gate):
    """Answers members of a lake."""

    def __init__(self, party: Party, file: NodeFile) -> None:
        self.party = party
        self._file = file

    async def answer(self, caller: str, verb: str, args: Sequence[Any]) -> dict[str, Any]:
        """Answer a request; see `Gate.answer`."""
        match verb, args:
            case "status", []:
                return self._status()
            case _:
                return await super().answer(caller, verb, args)

    def _status(self) -> dict[str, Any]:
        disk = os.statvfs(self._file.directory)
        return {
            "release": version("tercet"),
            "missing_parties": self.party.missing(),
            "runs": self.party.running,
            "free_bytes": disk.f_bavail * disk.f_frsize,
        }
