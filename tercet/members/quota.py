"""What each member may have of a node, as its operator says in the table `[quota]` of `node.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs

from tercet.errors import ConfigError


@attrs.frozen(kw_only=True)
class Quota:
    """What each member may have. Bytes are those of shares at this node, on disk or in memory."""

    dealt_mb: int = 16384
    values: int = 16384
    kept_mb: int = 65536
    entries: int = 1024
    waiting: int = 64
    queued: int = 64
    results: int = 256
    results_mb: int = 1024
    log_lines: int = 36000
    connections: int = 32
    requests: int = 200
    core_percent: int = 25

    @classmethod
    def read(cls, given: Mapping[str, Any], where: str) -> Self:
        """Limits by name, each a whole number of at least 1. Raises ConfigError."""
        known = attrs.fields_dict(cls)
        for name, value in given.items():
            if name not in known:
                names = ", ".join(known)
                raise ConfigError(f"{where}: [quota] has {name!r}, which means nothing; known are {names}")
            if type(value) is not int or value < 1:
                raise ConfigError(f"{where}: [quota] {name} = {value!r} is no whole number of at least 1")
        return cls(**given)
