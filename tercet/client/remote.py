"""A lake whose nodes run elsewhere, as a cluster that plans run on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from tercet.client.cluster import Cluster
from tercet.client.member_api import Desk
from tercet.client.reach import PATIENCE_S, open_desk


@attrs.define(eq=False, kw_only=True)
class Remote(Cluster):
    """A cluster whose nodes run elsewhere, and the member's desk."""

    desk: Desk


@contextlib.asynccontextmanager
async def open_remote(
    path: str | Path, identity: str | Path, *, timeout_s: float = 6.0, patience_s: float = PATIENCE_S
) -> AsyncIterator[Remote]:
    """Connect to all nodes of a lake as a member, and hang up at the end; raises as `open_desk`."""
    async with open_desk(path, identity, timeout_s=timeout_s, patience_s=patience_s) as desk:
        yield Remote(
            client=desk.client,
            protocol=desk.cluster.protocol,
            parties=len(desk.cluster.nodes),
            transport="tls",
            caller=desk.name,
            desk=desk,
        )
