"""Keeping values under a name: whose they are, what they were made from, and whether their owner has room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import msgpack
import trio

from tercet.actors.party import Party
from tercet.actors.threads import counted, in_thread
from tercet.actors.values import Stored
from tercet.errors import ConsentError, ProtocolError
from tercet.members.rules import MODEL, NUMBER, TABLE, Rules
from tercet.ml.models import SecretModel
from tercet.ml.numbers.saved import describe
from tercet.nodes.entries import read_entry, require_name
from tercet.nodes.ledger import Ledger
from tercet.nodes.quotas import Quotas
from tercet.nodes.requests import Requests
from tercet.nodes.vault import Vault
from tercet.plans.review import NOTHING
from tercet.plans.row_axis import Order
from tercet.storage.catalog import Entry
from tercet.storage.journal import LooseValue

VERBS = frozenset({"keep", "keep_model", "keep_number"})
"""What members ask for to have values last under a name."""
Known = dict[str, tuple[LooseValue, Stored]]
"""Loose values by handle, and what this node knows of each."""


@attrs.frozen
class Keeping:
    """Makes entries of loose values, for the gate of a node."""

    _party: Party
    _vault: Vault
    _ledger: Ledger
    _quotas: Quotas
    _requests: Requests
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """One after the other, so that what a decision rests on is so still when it is written."""

    async def answer(self, caller: str, verb: str, args: Sequence[Any]) -> Entry | None:
        """Have values of a member last under a name; the entry, None if it was there before.

        What is known of a model or number, this node says itself. Raises ConsentError, StorageError, or
        ProtocolError for what is asked for in another way; nothing is kept then.
        """
        match verb, args:
            case "keep", [dict(fields)]:
                return await self._keep(caller, fields)
            case "keep_model", [str(name), model, bytes(rules)]:
                return await self._keep_model(caller, name, model, rules)
            case "keep_number", [str(name), list(handles), bytes(rules), expires]:
                return await self._keep_number(caller, name, list(map(str, handles)), rules, expires)
        raise ProtocolError(f"{caller} asked to keep something in a way that nodes do not know")

    async def _keep_model(self, caller: str, name: str, data: Any, rules: bytes) -> Entry | None:
        """Keep a model that a computation has given."""
        model = await in_thread(self._requests.value, caller, data)
        if not isinstance(model, SecretModel):
            raise ConsentError(f"what {caller} asked to keep as {name!r:.80} is no model")
        body, handles = msgpack.packb(model.to_dict()), [model.weights[0], model.intercept[0]]
        fields = {"kind": MODEL, "name": name, "body": body, "rules": rules, "handles": handles}
        return await self._keep(caller, {**fields, "fingerprint": b"", "expires": None}, made_here=True)

    async def _keep_number(
        self, caller: str, name: str, handles: Sequence[str], rules: bytes, expires: Any
    ) -> Entry | None:
        """Keep a number that a plan has stored, and the bit that it rests on."""
        fields = {"kind": NUMBER, "name": name, "body": b"", "rules": rules, "handles": handles}
        return await self._keep(caller, {**fields, "fingerprint": b"", "expires": expires}, made_here=True)

    async def _description(self, entry: Entry, known: Known) -> bytes:
        """What everyone may know of a number, by the types and the sources of what lies here."""
        if any(value.dealt for _, value in known.values()):
            raise ConsentError(
                f"{entry.name!r} was uploaded, and numbers are what plans store; use x.save(name) in a plan"
            )
        least = 0
        for source in NOTHING.union(*(one.sources for one, _ in known.values())):
            table = await self._vault.ask(self._vault.catalog.identified, source)
            if table is not None:
                least = max(least, Rules.from_bytes(table.rules).least_for(entry.owner, table.owner))
        by_row = any(one.rows for one, _ in known.values())
        return describe([value.type for _, value in known.values()], rows=by_row, least=least)

    async def _known(self, entry: Entry) -> Known:
        """The loose values of an entry. Raises ConsentError for those of others, kept ones, and none."""
        found, caller = Known(), entry.owner
        for handle in entry.handles:
            one = self._ledger.find(handle)
            if one is None or one.caller != caller:
                kept = await self._vault.ask(self._vault.catalog.of_handle, handle)
                if kept is not None and kept.owner == caller:
                    raise ConsentError(
                        f"{entry.kind} {entry.name!r} is kept as {kept.name!r} already, and only once: open "
                        "it under that name, or drop it and make it anew"
                    )
                raise ConsentError(f"no value of {caller} is stored under {handle!r:.80}")
            value = self._party.store.get(handle) or await self._vault.load(handle)
            if value is None:
                raise ConsentError(f"no value of {caller} is stored under {handle!r:.80}")
            found[handle] = one, value
        return found

    async def _keep(self, caller: str, fields: Mapping[str, Any], *, made_here: bool = False) -> Entry | None:
        """Keep what a member describes, or, if it was `made_here`, this node."""
        entry = await in_thread(read_entry, caller, fields)
        if entry.kind != TABLE and not made_here:
            raise ConsentError(
                f"{entry.kind} {entry.name!r} was not {'fitted' if entry.kind == MODEL else 'saved'} here; "
                "members keep what computations and plans gave, as nodes describe it"
            )
        labels = await self._vault.ask(self._vault.catalog.labels)
        await in_thread(require_name, entry, labels)
        async with self._turn:
            with counted(None):  # the next one must not wait for threads of this member
                if (now := await self._vault.ask(self._vault.catalog.labels)) != labels:
                    await in_thread(require_name, entry, now)
                return await self._write(entry)

    async def _write(self, entry: Entry) -> Entry | None:
        """Decide on what is to be kept, and keep it. Nothing else is kept meanwhile."""
        vault, caller = self._vault, entry.owner
        before = await vault.ask(vault.catalog.find, entry.kind, entry.name)
        if before is not None and before.owner != caller:
            raise ConsentError(f"{entry.kind} {entry.name!r} is {before.owner}'s; take another name")
        if before is not None and _same(before, entry):
            return None  # also the second time that somebody asks
        known = await self._known(entry)
        sources = NOTHING.union(*(one.sources for one, _ in known.values()))
        rows = NOTHING.union(*(one.rows for one, _ in known.values()))
        if sources and entry.kind == TABLE:
            raise ConsentError(
                f"table {entry.name!r} was made from {await _names(vault, sources)}; only uploads are kept "
                "as tables"
            )
        if rows and entry.kind == MODEL:
            raise ConsentError(
                f"model {entry.name!r} has single rows of {await _names(vault, rows)}; only what was learned "
                "from all rows is kept as a model"
            )
        entry = attrs.evolve(
            entry,
            body=await self._description(entry, known) if entry.kind == NUMBER else entry.body,
            sources=tuple(sorted(sources)),
            rows=tuple(sorted(rows)),
            orders=tuple(_order(one) for one, _ in known.values()) if rows else (),
        )
        sizes = {handle: one.size for handle, (one, _) in known.items()}
        await _require_room(vault, self._quotas, entry, sizes, before)
        await vault.keep(entry, {handle: value for handle, (_, value) in known.items()}, sizes)
        self._party.drop(entry.handles)
        await self._ledger.forget(entry.handles, files=False)
        return entry


def _same(one: Entry, other: Entry) -> bool:
    """Whether what is kept is asked for again; numbers are described anew each time, by their values."""
    described = one.kind == NUMBER or one.body == other.body
    return described and (one.rules, one.handles) == (other.rules, other.handles)


def _order(value: LooseValue) -> str:
    """In what order the rows of a value lie; as figures do, if it has none."""
    return (value.order or Order.MIXED.value) if value.rows else Order.STEADY.value


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
