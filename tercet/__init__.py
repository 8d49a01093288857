"""Tercet, a private data lake.

Link tables, train and evaluate models between parties that show each other nothing. Start with
`tercet.local`, or `tercet.connect`.

All but errors is imported when it is first asked for: each process of a node imports this package too, and
needs neither lakes nor models.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from tercet.errors import (
    ConfigError,
    ConsentError,
    PeerLost,
    PlanError,
    PrivacyError,
    ProtocolError,
    SchemaError,
    StorageError,
    TercetError,
    TransportError,
)

if TYPE_CHECKING:
    from tercet.lake import AsyncLake, Lake, connect, local, open_lake, open_local
    from tercet.ml.table import Table
    from tercet.studies import compare

__version__ = metadata.version("tercet")
"""The release, which `pyproject.toml` says and nothing else does."""

_HOMES = {
    **dict.fromkeys(("AsyncLake", "Lake", "connect", "local", "open_lake", "open_local"), "tercet.lake"),
    "Table": "tercet.ml.table",
    "compare": "tercet.studies",
}

__all__ = [
    "AsyncLake",
    "ConfigError",
    "ConsentError",
    "Lake",
    "PeerLost",
    "PlanError",
    "PrivacyError",
    "ProtocolError",
    "SchemaError",
    "StorageError",
    "Table",
    "TercetError",
    "TransportError",
    "compare",
    "connect",
    "local",
    "open_lake",
    "open_local",
]


def __getattr__(name: str) -> Any:
    """What is not imported yet: a name of `__all__`, or a module that lakes need, as in `tercet.lake.Job`."""
    if name in _HOMES:
        globals()[name] = getattr(import_module(_HOMES[name]), name)
    elif not name.startswith("_"):
        import_module("tercet.studies")
    if name not in globals():
        raise AttributeError(f"module 'tercet' has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
