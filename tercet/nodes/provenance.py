"""Where values at a node come from: the tables by whose rows they are, and all that they were made from."""

from __future__ import annotations

import time

from tercet.errors import ConsentError, PlanError
from tercet.members.rules import LATEST, TABLE, Rules
from tercet.ml.uses import models_elsewhere, tables_over
from tercet.nodes.ledger import Ledger
from tercet.nodes.requests import Built
from tercet.nodes.vault import Vault
from tercet.plans.review import NOTHING, Rows, Tables
from tercet.plans.row_axis import Order


async def origin_of(caller: str, handle: str, vault: Vault, ledger: Ledger) -> tuple[Tables, Tables]:
    """The tables whose rows a value is by, and all that it comes from. Raises what forbids to read it."""
    loose = ledger.find(handle)
    if loose is not None and loose.caller == caller:
        order = Order(loose.order) if loose.order else Order.MIXED
        return Rows.of(loose.rows, order) if loose.rows else NOTHING, loose.sources
    entry = None if loose else await vault.ask(vault.catalog.of_handle, handle)
    if entry is None:
        raise PlanError(f"nothing of {caller} is stored under {handle!r:.80}; upload the table again")
    if entry.kind == TABLE:
        return frozenset({entry.identity}), frozenset({entry.identity})
    if caller not in (entry.owner, *Rules.from_bytes(entry.rules).readers):
        raise ConsentError(f"{entry.owner} does not let {caller} use {entry.kind} {entry.name!r}")
    if (entry.expires or LATEST) <= time.time():
        raise PlanError(f"{entry.kind} {entry.name!r} was kept for a time that is over; make it anew")
    # Models of an earlier release may be by row; nobody knows in what order.
    orders = dict(zip(entry.handles, map(Order, entry.orders), strict=False))
    order = orders.get(handle, Order.MIXED)
    by_row = entry.rows and order is not Order.STEADY
    return Rows.of(entry.rows, order) if by_row else NOTHING, frozenset(entry.sources)


async def goes_over(caller: str, built: Built | None, vault: Vault, ledger: Ledger) -> Tables | None:
    """The tables over whose rows a computation goes; None of a plan by hand, which may do anything."""
    if built is None:
        return None
    found: set[str] = set()
    for table in tables_over(built.arguments):
        for handle in dict.fromkeys([table.keys.handle, *(part.handle for part in table.parts)]):
            found |= (await origin_of(caller, handle, vault, ledger))[0]
    for handle in models_elsewhere(built.arguments):
        found -= (await origin_of(caller, handle, vault, ledger))[1]
    return frozenset(found)
