"""Tercet, a private data lake.

Link tables, train and evaluate models between parties that show each other nothing. Start with
`tercet.local`, or `tercet.connect`.

All but errors is imported when it is first asked for: each process of a node imports this package too, and
needs neither lakes nor models.
"""

from importlib import import_module, metadata
from importlib.util import find_spec
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
    from tercet.actors.estimate import explain
    from tercet.client.allow import Allow
    from tercet.client.lake import AsyncLake, Lake, connect, local, open_lake, open_local
    from tercet.comparison import compare
    from tercet.ml.numbers import Formulas, Number
    from tercet.ml.numbers.declared import computation
    from tercet.ml.stacking import concat
    from tercet.ml.table import Table
    from tercet.plans.drawing import draw

__version__ = metadata.version("tercet")
"""The release, which `pyproject.toml` says and nothing else does."""

_HOMES = {
    "Allow": "tercet.client.allow",
    **dict.fromkeys(
        ("AsyncLake", "Lake", "connect", "local", "open_lake", "open_local"), "tercet.client.lake"
    ),
    "Table": "tercet.ml.table",
    "concat": "tercet.ml.stacking",
    "draw": "tercet.plans.drawing",
    "explain": "tercet.actors.estimate",
    "compare": "tercet.comparison",
    "computation": "tercet.ml.numbers.declared",
    **dict.fromkeys(("Formulas", "Number"), "tercet.ml.numbers"),
}

__all__ = [
    "Allow",
    "AsyncLake",
    "ConfigError",
    "ConsentError",
    "Formulas",
    "Lake",
    "Number",
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
    "computation",
    "concat",
    "connect",
    "draw",
    "explain",
    "local",
    "open_lake",
    "open_local",
]


def __getattr__(name: str) -> Any:
    """What is not imported yet: a name of `__all__`, or a package of Tercet, as in `tercet.ml`."""
    if name in _HOMES:
        globals()[name] = getattr(import_module(_HOMES[name]), name)
        return globals()[name]
    if not name.startswith("_") and find_spec(f"tercet.{name}"):
        return import_module(f"tercet.{name}")
    raise AttributeError(f"module 'tercet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
