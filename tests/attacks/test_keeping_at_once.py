"""Requests to keep and drop that come at once, or are given up half way: names, books and disks stay right.

A member sends as many requests as she likes on one line, takes each back when she likes, and has the threads
of hers be busy for as long as she likes. So whatever a node decides and does later can be cut in two.
"""

from __future__ import annotations

import threading

import numpy as np
import trio

from tercet import Allow
from tercet.errors import QuotaError, TercetError
from tercet.members.rules import Rules
from tercet.nodes.backup import back_up
from tercet.nodes.ledger import Ledger
from tercet.nodes.manifest import check_backup
from tercet.nodes.vault import Vault
from tercet.storage.catalog import Catalog
from tercet.storage.share_files import file_name
from tests.attacks.lake import TIMEOUT_S, allow

NODES = 3
OWN = {"id": np.arange(12), "x": np.arange(12.0)}


async def stored(attacked, handles, who=None):
    """Numbers that a plan of a member's has stored, of a table of her own."""
    who = who or attacked.ann
    name = who.cluster.caller
    await who.upload(OWN, name=f"of {name}", key="id", owner=name, allow=Allow(plans="any"))
    table = await who.table(f"of {name}")
    b = attacked.builder("store")
    part = table.parts[0]
    for handle in handles:
        b.input(part.handle, part.type).select([0]).reshape(table.rows).sum().reshape(1).store(handle)
    await attacked.ask(b.plan(), who)


async def keep(attacked, name, handle, failed, who=None):
    """As a client of her own asks it, which takes nothing back."""
    client = (who or attacked.ann).cluster.client
    try:
        await client.ask("keep_number", [name, [handle], Rules().to_bytes(), None])
    except TercetError as error:
        failed.append(error)


def held_up(monkeypatch, where, name, *, first=True):
    """The first call of a method at each node waits in its thread, before or after its work, for an event."""
    method, go_on, came = getattr(where, name), threading.Event(), []

    def late(*args, **options):
        came.append(args)
        waits = len(came) <= NODES
        if waits and first:
            go_on.wait(TIMEOUT_S)
        found = method(*args, **options)
        if waits and not first:
            go_on.wait(TIMEOUT_S)
        return found

    monkeypatch.setattr(where, name, late)
    return go_on, came


async def arrived(came, count=NODES):
    with trio.fail_after(TIMEOUT_S / 4):
        while len(came) < count:  # noqa: ASYNC110 - threads tell nobody
            await trio.sleep(0.01)


def entries(node):
    catalog = node.gate.vault.catalog
    return {one.name: (one.owner, one.handles) for one in catalog.entries() if one.kind == "number"}


def require_files(attacked):
    """Every node has the files that its catalog names, and no others."""
    for node in attacked.nodes:
        vault = node.gate.vault
        handles = vault.catalog.handles() | set(vault.journal.handles())
        assert sorted(vault.files.files.names()) == sorted(map(file_name, handles))


async def test_one_value_has_one_name(attacked, monkeypatch):
    """A second entry of it failed in the catalog, and took the file of the first with it."""
    await stored(attacked, ["total"])
    failed = []
    go_on, came = held_up(monkeypatch, Catalog, "put")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, attacked, "first", "total", failed)
        await arrived(came)
        nursery.start_soon(keep, attacked, "second", "total", failed)
        nursery.start_soon(keep, attacked, "third", "total", failed)
        await trio.sleep(0.2)
        go_on.set()
    assert ["is kept as 'first' already" in str(one) for one in failed] == [True, True]
    require_files(attacked)
    for node in attacked.nodes:
        assert entries(node) == {"first": ("ann", ("total",))}


async def test_nobody_takes_a_name_that_another_is_getting(attacked, monkeypatch):
    await stored(attacked, ["total"])
    await stored(attacked, ["other"], attacked.insurer)
    failed = []
    go_on, came = held_up(monkeypatch, Catalog, "put")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, attacked, "risk", "total", failed)
        await arrived(came)
        nursery.start_soon(keep, attacked, "risk", "other", failed, attacked.insurer)
        nursery.start_soon(keep, attacked, "Risk", "other", failed, attacked.insurer)
        await trio.sleep(0.2)
        go_on.set()
    assert "'risk' is ann's; take another name" in str(failed)
    assert "'Risk' looks like 'risk', which is ann's" in str(failed)
    for node in attacked.nodes:
        assert entries(node) == {"risk": ("ann", ("total",))}


async def test_what_is_asked_at_once_counts_one_after_the_other(attacked, monkeypatch):
    handles = [f"v{place}" for place in range(4)]
    await stored(attacked, handles)
    allow(attacked, entries=3)  # of which the table is one
    failed = []
    go_on, came = held_up(monkeypatch, Catalog, "put")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, attacked, "v0", "v0", failed)
        await arrived(came)
        for handle in handles[1:]:
            nursery.start_soon(keep, attacked, handle, handle, failed)
        await trio.sleep(0.2)
        go_on.set()
    assert {type(one) for one in failed} == {QuotaError}
    assert all(len(entries(node)) == 2 for node in attacked.nodes)


async def test_a_value_that_is_dropped_while_it_is_kept_stays(attacked, monkeypatch):
    await stored(attacked, ["total"])
    failed = []
    go_on, came = held_up(monkeypatch, Catalog, "put")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, attacked, "mean", "total", failed)
        await arrived(came)
        await attacked.ann.cluster.client.ask("drop", [["total"]])
        go_on.set()
    assert not failed
    require_files(attacked)


async def test_a_drop_that_is_taken_back_leaves_nothing(attacked, monkeypatch):
    """It freed the quota, and then waited for threads that she kept busy; what was left counted for none."""
    await stored(attacked, ["total", "more"])
    client = attacked.ann.cluster.client
    for node in attacked.nodes:
        node._callers["ann"].threads.limiter.total_tokens = 1
    go_on, came = held_up(monkeypatch, Catalog, "labels")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, attacked, "mean", "more", [])
        await arrived(came)
        with trio.move_on_after(0.3):
            await client.ask("drop", [["total"]])
        go_on.set()
    for node in attacked.nodes:
        assert node.gate.ledger.find("total") is None
        assert "total" not in node.gate.vault.journal.loose()
    require_files(attacked)


async def test_a_keep_that_is_taken_back_is_whole(attacked, monkeypatch, tmp_path):
    """The journal went on naming what had been kept, and then its file, which was gone: no backup then."""
    await stored(attacked, ["total"])
    client = attacked.ann.cluster.client
    for node in attacked.nodes:
        node._callers["ann"].threads.limiter.total_tokens = 1
    go_on, came = held_up(monkeypatch, Catalog, "put")
    busy, occupied = held_up(monkeypatch, Catalog, "page")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, attacked, "mean", "total", [])
        await arrived(came)
        nursery.start_soon(client.ask, "entries", [])
        await arrived(occupied)
        go_on.set()
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    await trio.sleep(0.1)
    client.post("forget", ["number", "mean"])
    busy.set()
    with trio.fail_after(TIMEOUT_S / 4):
        while any(entries(node) for node in attacked.nodes):  # noqa: ASYNC110
            await trio.sleep(0.02)
    for index in range(3):
        made = tmp_path / f"backup {index}"
        back_up(attacked.made.root / f"n{index}" / "node.toml", made)
        check_backup(made)


async def test_a_node_that_ends_between_catalog_and_journal_knows_it_once(attacked):
    """The value was in the books as one that nobody keeps: its readers had none, and its days did not end."""
    await stored(attacked, ["total"])
    gate = attacked.nodes[0].gate
    (value,) = [one.value for handle, one in gate.ledger._loose.items() if handle == "total"]
    await keep(attacked, "mean", "total", failed := [])
    assert not failed
    journal = gate.vault.journal
    journal.end(bytes(16), {"total": value}, [], 1)  # as if the journal had not let go of it
    assert "total" in journal.loose()
    ledger = Ledger(Vault(gate._file))
    assert ledger.find("total") is None
    assert not ledger.values["ann"]
    assert "total" not in journal.loose()


async def test_what_is_dropped_twice_at_once_is_not_the_next_of_its_name(attacked, monkeypatch):
    """A drop had found whose it was, and then dropped what another member had kept under that name since."""
    await stored(attacked, ["total"])
    await stored(attacked, ["other"], attacked.insurer)
    await keep(attacked, "risk", "total", failed := [])
    go_on, came = held_up(monkeypatch, Catalog, "find", first=False)
    ann = attacked.ann.cluster.client
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ann.ask, "forget", ["number", "risk"])
        await arrived(came)
        await ann.ask("forget", ["number", "risk"])
        await keep(attacked, "risk", "other", failed, attacked.insurer)
        go_on.set()
    assert not failed
    for node in attacked.nodes:
        assert entries(node) == {"risk": ("insurer", ("other",))}
    require_files(attacked)
