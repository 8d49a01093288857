"""An engine for tests: workers as tasks of the event loop that their node runs in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import trio

from tercet.actors.engine import Engine, MakeTransport, WorkerConfig
from tercet.actors.worker import work
from tercet.errors import PeerLost
from tercet.transports import registry
from tercet.transports.names import worker_name

_numbers = itertools.count()


@attrs.define(eq=False)
class Tasks(Engine):
    """Workers in this event loop; `make_link` makes their transports, if all of them are one in memory.

    `scopes` ends single workers.
    """

    workers: int
    make_link: MakeTransport | None = None
    scopes: dict[int, trio.CancelScope] = attrs.field(factory=dict)

    @classmethod
    def make(cls, workers: int, options: Mapping[str, Any], directory: Path) -> Self:
        """As `Engine.make`."""
        _ = options, directory
        return cls(workers)

    async def address(self) -> str:
        """As `Engine.address`."""
        return "127.0.0.1:0" if self.make_link is None else f"place {next(_numbers)}"

    async def run(self, configs: Sequence[WorkerConfig]) -> None:
        """As `Engine.run`."""
        async with trio.open_nursery() as nursery:
            for config in configs:
                nursery.start_soon(self._work, config)

    async def aclose(self) -> None:
        """As `Engine.aclose`: nothing is held."""

    async def _work(self, config: WorkerConfig) -> None:
        make = self.make_link or registry.get(config.transport).for_party
        with trio.CancelScope() as scope:
            self.scopes[config.number] = scope
            await work(config, make, await self.address())
        name = worker_name(config.index, config.number)
        raise PeerLost(f"{name} has ended", peer=name)
