"""Lists that a node shows, a page at a time: what it keeps, plans that wait, results for a member."""

from __future__ import annotations

from typing import Any

import msgpack

from tercet.actors import pages
from tercet.actors.threads import in_thread
from tercet.errors import ProtocolError
from tercet.nodes.entries import shown
from tercet.nodes.vault import Vault
from tercet.nodes.waiting import Board


async def listed(vault: Vault, board: Board, caller: str, what: str, mark: Any = None) -> dict[str, Any]:
    """A page of `entries`, `plans` or `results`; see `pages`. Raises ProtocolError for a mark of others."""
    bounds = pages.PAGE_ITEMS + 1, pages.PAGE_BYTES
    items: list[tuple[Any, Any]]
    if what == "entries":
        start = tuple(pages.after(mark, list) or ("", ""))
        if len(start) != 2 or not all(isinstance(one, str) for one in start):
            raise ProtocolError(f"{mark!r:.80} is not where a page of entries begins")
        found = await vault.ask(vault.catalog.page, start, *bounds)
        told = await in_thread(shown, found, await vault.ask(vault.catalog.labels))
        items = [([one["kind"], one["name"]], one) for one in told]
    elif what == "results":
        rows = await vault.ask(vault.journal.results, caller, pages.after(mark, int) or 0, *bounds)
        items = [(number, msgpack.unpackb(body)) for number, body in rows]
    else:
        run = pages.after(mark, bytes) or b""
        items = sorted((one["session"], one) for one in board.shown() if one["session"] > run)
    return await in_thread(pages.page, what, items, mark)


async def entry_of(vault: Vault, kind: str, name: str) -> dict[str, Any]:
    """A table, model or number by name, if there is one."""
    found = await vault.ask(vault.catalog.find, kind, name)
    if found is None:
        return {"entry": None}
    return {"entry": shown([found], await vault.ask(vault.catalog.labels))[0]}
