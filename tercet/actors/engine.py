"""Engines: what places the workers of a party on cores and machines, and keeps an eye on them.

A package adds an engine by an entry point in the group `tercet.engines`, as others do for transports.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs

from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.actors.storage import Storage
from tercet.errors import ConfigError
from tercet.plugins import Registry
from tercet.transports import Identity, Transport

MakeTransport = Callable[[Identity | None, Mapping[str, str]], Transport]
"""Makes the transport of one end: its identity, and the certificates of others by name."""


@attrs.frozen(kw_only=True)
class WorkerConfig:
    """All that a worker has to know.

    `number` of so many `workers` of party `index`; where its node listens and by which certificate it knows
    it; its own identity, the certificates of the same worker at the other parties, by party, and those of its
    `fellows`, the other workers of the party, by name. On links that are not authenticated, all are missing.
    `storage` is where it reads stored values by itself; without, its node sends them. `scratch` is where
    large arrays lie, on its own machine.
    """

    index: int
    parties: int
    protocol: str
    number: int
    workers: int
    node: str
    transport: str
    node_certificate: str = ""
    identity: Identity | None = attrs.field(default=None, repr=False)
    pins: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    fellows: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    storage: Storage | None = None
    scratch: Scratch = IN_MEMORY
    timeout_s: float = 6.0
    threads: int = 1
    shaping: Mapping[str, Any] = attrs.field(factory=dict)


class Engine(abc.ABC):
    """Starts the workers of one party."""

    workers: int

    @classmethod
    @abc.abstractmethod
    def make(cls, workers: int, options: Mapping[str, Any], directory: Path) -> Self:
        """So many workers, with what `node.toml` in a directory says under the engine's name.

        Raises ConfigError.
        """

    @abc.abstractmethod
    async def address(self) -> str:
        """Where a node listens for its workers: an address that they can reach, with port 0."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Let go of what is held between runs."""

    @abc.abstractmethod
    async def run(self, configs: Sequence[WorkerConfig]) -> None:
        """Run a worker for each, on a place of its own, until cancelled; then none of them is left.

        Raises PeerLost, naming the worker, when one ends by itself.
        """


BUILT_IN = {"dask": "tercet.engines.dask:Dask"}
_REGISTRY: Registry[Engine] = Registry(
    group="tercet.engines", word="engine", base=Engine, built_in=BUILT_IN, error=ConfigError
)


def engine(name: str) -> type[Engine]:
    """The class of an engine. ConfigError if nobody offers the name, or the plug-in does not load."""
    return _REGISTRY.get(name)
