"""Keeping values under a name: whose they are, what they were made from, and whether their owner has room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from tercet.actors.party import Party
from tercet.actors.threads import in_thread
from tercet.errors import ConsentError
from tercet.members.rules import MODEL, TABLE
from tercet.nodes.entries import read_entry, require_name
from tercet.nodes.ledger import Ledger
from tercet.nodes.quotas import Quotas
from tercet.nodes.vault import Vault
from tercet.plans.review import NOTHING
from tercet.storage.catalog import Entry


async def keep(
    caller: str,
    fields: Mapping[str, Any],
    party: Party,
    vault: Vault,
    ledger: Ledger,
    quotas: Quotas,
    *,
    made_here: bool = False,
) -> Entry | None:
    """Have values of a member last under a name; the entry, None if it was there before.

    Models are kept if a computation of this node has given them (`made_here`).

    Raises ConsentError or StorageError; nothing is kept then.
    """
    entry = await in_thread(read_entry, caller, fields)
    if entry.kind == MODEL and not made_here:
        raise ConsentError(f"model {entry.name!r} was not fitted here; members keep what computations gave")
    await in_thread(require_name, entry, await vault.ask(vault.catalog.labels))
    before = await vault.ask(vault.catalog.find, entry.kind, entry.name)
    if before is not None and before.owner != caller:
        raise ConsentError(f"{entry.kind} {entry.name!r} is {before.owner}'s; take another name")
    if before is not None and (before.body, before.rules, before.handles) == (
        entry.body,
        entry.rules,
        entry.handles,
    ):
        return None  # also the second time that somebody asks
    known, values = [], {}
    for handle in entry.handles:
        kept = await vault.ask(vault.catalog.of_handle, handle)
        if kept is not None and kept.owner == caller:
            raise ConsentError(
                f"{entry.kind} {entry.name!r} is kept as {kept.name!r} already, and only once: open it "
                "under that name, or drop it and make it anew"
            )
        one, value = ledger.find(handle), party.store.get(handle) or await vault.load(handle)
        if one is None or one.caller != caller or value is None:
            raise ConsentError(f"no value of {caller} is stored under {handle!r}")
        known.append(one)
        values[handle] = value
    sources, rows = (
        NOTHING.union(*sets) for sets in ([one.sources for one in known], [one.rows for one in known])
    )
    if sources and entry.kind == TABLE:
        raise ConsentError(
            f"table {entry.name!r} was made from {await _names(vault, sources)}; only uploads are kept as "
            "tables"
        )
    if rows:
        raise ConsentError(
            f"model {entry.name!r} has single rows of {await _names(vault, rows)}; only what was learned "
            "from all rows is kept as a model"
        )
    entry = attrs.evolve(entry, sources=tuple(sorted(sources)))
    sizes = {handle: one.size for handle, one in zip(values, known, strict=True)}
    await _require_room(vault, quotas, entry, sizes, before)
    await vault.keep(entry, values, sizes)
    party.drop(entry.handles)
    await ledger.forget(entry.handles, files=False)
    return entry


async def _require_room(
    vault: Vault, quotas: Quotas, entry: Entry, sizes: Mapping[str, int], before: Entry | None
) -> None:
    """Raise QuotaError for what would be too many entries of their owner, or too large ones."""
    count, used = await vault.ask(vault.catalog.kept, entry.owner)
    more = sum(sizes.values()) + len(entry.body) + len(entry.rules)
    if before is None:
        quotas.require(entry.owner, "entries", count)
    else:
        used -= await vault.ask(vault.catalog.bytes_of, entry.kind, entry.name)
        used -= len(before.body) + len(before.rules)
    quotas.require(entry.owner, "kept_mb", used, more)


async def _names(vault: Vault, identities: Iterable[str]) -> str:
    """What tables are called, as far as they are there."""
    found = [await vault.ask(vault.catalog.identified, one) for one in identities]
    return ", ".join(sorted(one.name for one in found if one is not None)) or "tables that are gone"
