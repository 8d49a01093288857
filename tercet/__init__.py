"""Tercet, a private data lake.

Link tables, train and evaluate models between parties that show each other nothing. Start with
`tercet.local`.
"""

from tercet.errors import (
    ConsentError,
    PeerLost,
    PlanError,
    PrivacyError,
    ProtocolError,
    SchemaError,
    TercetError,
    TransportError,
)
from tercet.lake import AsyncLake, Lake, local, open_local
from tercet.ml.table import Table

__version__ = "0.1.0"

__all__ = [
    "AsyncLake",
    "ConsentError",
    "Lake",
    "PeerLost",
    "PlanError",
    "PrivacyError",
    "ProtocolError",
    "SchemaError",
    "Table",
    "TercetError",
    "TransportError",
    "local",
    "open_local",
]
