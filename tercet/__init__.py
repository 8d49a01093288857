"""Tercet, a private data lake.

Link tables, train and evaluate models between parties that show each other nothing. Start with
`tercet.local`, or `tercet.connect`.
"""

from importlib import metadata

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
from tercet.lake import AsyncLake, Lake, connect, local, open_lake, open_local
from tercet.ml.table import Table
from tercet.studies import compare

__version__ = metadata.version("tercet")
"""The release, which `pyproject.toml` says and nothing else does."""

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
