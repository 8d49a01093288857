"""What one member may have of a node: so much and no more, and nothing is left of the rest."""

from __future__ import annotations

import secrets
import threading
import time

import attrs
import numpy as np
import pytest
import trio

from tercet.actors import pages
from tercet.actors.service import MOST_PIECE
from tercet.client.lake import open_lake
from tercet.errors import ConfigError, PlanError, QuotaError
from tercet.members.audit import AuditLog
from tercet.members.node_file import NodeFile
from tercet.members.quota import Quota
from tercet.members.rules import Rules
from tercet.nodes.ledger import Ledger
from tercet.nodes.vault import Vault
from tercet.plans import Form, Type
from tercet.storage.journal import LooseValue
from tests.attacks.lake import TIMEOUT_S, allow, values_of


def state(attacked):
    """All that nodes have of values: in memory, in files, in their books."""
    return [
        (
            sorted(node.party.store),
            sorted(node.gate.vault.files.files.names()),
            dict(+node.gate.ledger.bytes),
            dict(+node.gate.ledger.values),
        )
        for node in attacked.nodes
    ]


async def until(condition):
    """Wait until something is so at nodes that tell when they are asked."""
    with trio.fail_after(60):
        while not await condition():  # noqa: ASYNC110 - nodes tell when asked
            await trio.sleep(0.02)


async def settled(attacked, expected):
    """Wait until what was refused at one node is gone from all."""

    async def gone():
        return state(attacked) == expected

    await until(gone)


async def plans_wait(attacked, count):
    async def wait():
        return len(await attacked.hospital.plans()) == count

    await until(wait)


def plan_of(attacked, kind, handle):
    b = attacked.builder()
    b.input(handle, kind).sum().reveal("sum", to="analyst")
    return b.plan()


async def test_dealt_values_are_bounded_in_bytes(attacked):
    allow(attacked, dealt_mb=1)
    words = np.ones(30_000, dtype=np.int64)
    handle, kind = await attacked.deal(words)  # two words held of each: 480 kB
    await attacked.deal(words)
    before = state(attacked)
    why = (
        r"ann has 0.9 MB of values that are not kept at this node, and 0.5 MB more would be beyond its limit "
    )
    why += r"of 1 MB; keep them under a name, or drop some; .*dealt_mb in node.toml"
    with pytest.raises(QuotaError, match=why):
        await attacked.deal(words)
    await settled(attacked, before)
    assert (await attacked.run(plan_of(attacked, kind, handle))).revealed["sum"] == 30_000
    await attacked.hospital.cluster.client.put(
        "other", kind, words.view(np.uint64)
    )  # another member has room
    await attacked.ann.cluster.client.drop([handle])
    await attacked.deal(words)


async def test_what_plans_store_counts_too(attacked):
    allow(attacked, dealt_mb=1)
    handle, kind = await attacked.deal(np.ones(40_000, dtype=np.int64))
    before = state(attacked)
    b = attacked.builder()
    (b.input(handle, kind) + b.input(handle, kind)).store("twice")
    with pytest.raises(QuotaError, match="beyond its limit of 1 MB"):
        await attacked.run(b.plan())
    await settled(attacked, before)


async def test_an_upload_that_would_never_fit_is_refused_before_it_costs(attacked):
    """Of seeds that travel as a few bytes, a node would make shares of any length."""
    before = state(attacked)
    kind = Type(Form.RING, (1, 1 << 31), 0, 1.0)
    asked = []

    def rows(start, stop):
        asked.append(stop)
        return np.zeros((1, stop - start), dtype=np.uint64)

    with pytest.raises(QuotaError, match=r"32,768.0 MB more would be beyond its limit of 16,384 MB"):
        await attacked.ann.cluster.client.put_rows("huge", kind, rows)
    assert len(asked) == 1
    wide = Type(Form.RING, (MOST_PIECE >> 6, 64), 0, 1.0)
    fields = [wide.form.value, list(wide.shape), wide.scale, wide.limit]
    with pytest.raises(PlanError, match="at a time; cut it into tiles of fewer rows"):
        await attacked.ann.cluster.client.ask("put", ["wide", fields, 64, 0, 64])
    await settled(attacked, before)


async def test_many_small_values_are_bounded(attacked):
    allow(attacked, values=3)
    for _ in range(3):
        await attacked.deal([1])
    with pytest.raises(QuotaError, match="ann has 3 values that are not kept at this node, and 1 more"):
        await attacked.deal([1])


async def test_a_member_takes_its_part_of_memory_and_then_files(attacked):
    for node in attacked.nodes:
        node.gate._file = attrs.evolve(node.gate._file, memory_mb=1)  # 64 kB for a member
    words = np.arange(2000)
    dealt = [await attacked.deal(words) for _ in range(3)]
    for node in attacked.nodes:
        assert node.gate.ledger.in_memory["ann"] == 2000 * 16 * 2
        assert len(node.gate.vault.files.files.names()) == 1
    for handle, kind in dealt:
        assert (await attacked.run(plan_of(attacked, kind, handle))).revealed["sum"] == sum(words)
    await attacked.ann.cluster.client.drop([handle for handle, _ in dealt])
    assert [len(node.gate.vault.files.files.names()) for node in attacked.nodes] == [0, 0, 0]


async def test_kept_values_are_bounded(attacked):
    allow(attacked, kept_mb=1)
    desk, names = attacked.ann.desk, iter("abcde")
    words = np.ones(40_000, dtype=np.int64)

    async def keep(name):
        handle, _ = await attacked.deal(words)
        await desk.keep("table", name, b"", [handle], Rules())

    await keep(next(names))
    with pytest.raises(QuotaError, match=r"ann has 0.6 MB of tables, models .* limit of 1 MB; drop some"):
        await keep(next(names))
    await keep("a")  # in the place of the first
    await desk.forget("table", "a")
    await keep(next(names))
    assert [one.name for one in await desk.entries()] == ["c"]


async def test_waiting_and_queued_plans_are_bounded(attacked):
    table = await attacked.victim(plans="approved")
    allow(attacked, waiting=2)
    client = attacked.ann.cluster.client

    async def submitted(number):
        b = attacked.builder(f"plan {number}")
        (values_of(b, table).sum() * (number + 1)).reveal("total", to="analyst")
        return await client.submit(b.plan())

    jobs = [await submitted(number) for number in range(2)]
    await plans_wait(attacked, 2)
    with pytest.raises(QuotaError, match="ann has 2 plans that wait for approval at this node, and 1 more"):
        await client.fetch(await submitted(2))
    allow(attacked, waiting=64, queued=2)
    with pytest.raises(QuotaError, match="ann has 2 plans that are under way or wait for their turn"):
        await client.fetch(await submitted(3))
    for job in jobs:
        await client.ask("end", [job])

    async def over():
        return not any(node.gate.quotas._queued["ann"] for node in attacked.nodes)

    await until(over)
    assert not any(+node.gate.quotas._nodes for node in attacked.nodes)


async def test_results_for_others_are_bounded(attacked):
    allow(attacked, results=2, results_mb=1)
    b = attacked.builder()
    for number in range(3):
        b.random_words(1 + number, 3).reveal(f"to {number}", to="hospital")
    await attacked.run(b.plan())
    assert [one.name for one in await attacked.hospital.received()] == ["to 1", "to 2"]
    handle, kind = await attacked.deal(np.ones(80_000, dtype=np.int64))
    for last in (False, True):
        b = attacked.builder()
        b.input(handle, kind).reveal("much", to="hospital")
        if not last:
            await attacked.run(b.plan())
            continue
        with pytest.raises(QuotaError, match=r"ann has 0.\d MB of results that wait, .*results_mb"):
            await attacked.run(b.plan())
    assert len(await attacked.hospital.received()) == 1
    await attacked.run(b.plan())


async def test_lines_of_the_audit_log_are_bounded(attacked):
    allow(attacked, log_lines=3)
    handle, kind = await attacked.deal([1, 2])
    for _ in range(3):
        await attacked.run(plan_of(attacked, kind, handle))
    with pytest.raises(QuotaError, match=r"ann has 3 lines of this hour in the audit log.*in the next hour"):
        await attacked.run(plan_of(attacked, kind, handle))
    log = attacked.nodes[0].gate.audit
    again = AuditLog(log.path, log._keys)
    assert again.lines_this_hour("ann") == log.lines_this_hour("ann") >= 3


async def test_connections_of_a_member_are_bounded(attacked):
    allow(attacked, connections=2)
    made = attacked.made

    def connect(name):
        return open_lake(made.cluster, identity=made.key(name), timeout_s=TIMEOUT_S)

    async with connect("ann") as second:
        assert await second.tables() == []
        async with connect("ann") as third:
            with pytest.raises(QuotaError, match=r"ann has 2 connections to party \d, and no more at"):
                await third.tables()
        async with connect("aud") as other:
            assert await other.tables() == []

    async def gone():
        return all(node.clients["ann"] == 1 for node in attacked.nodes)

    await until(gone)
    async with connect("ann") as third:
        assert await third.tables() == []


async def test_whoever_asks_too_often_is_read_more_slowly(attacked):
    """All connections of a member together, and nobody else; nothing is lost."""
    allow(attacked, requests=10)  # twenty at once
    made = attacked.made
    async with open_lake(made.cluster, identity=made.key("ann"), timeout_s=TIMEOUT_S) as second:
        done = []

        async def ask(client, count):
            for _ in range(count):
                await client.ask("status")
                done.append(time.monotonic())

        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, second.cluster.client, 60)
            await ask(attacked.hospital.cluster.client, 10)
            assert len(done) < 70, "the hospital has waited for nobody"
        assert time.monotonic() - began > 3.9, "40 more than twenty take 4 s"
        assert second.cluster.client.lost == []


async def test_threads_of_one_member_do_not_keep_others_waiting(attacked, monkeypatch):
    stop, lines = threading.Event(), AuditLog.lines

    def slow(self, start, *args, **options):
        assert stop.wait(60)
        return lines(self, start, *args, **options)

    monkeypatch.setattr(AuditLog, "lines", slow)
    handle, kind = await attacked.deal(np.arange(10))
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(attacked.insurer.cluster.client.ask, "audit", [0])
            await trio.sleep(0.2)
            with trio.fail_after(60):
                assert (await attacked.run(plan_of(attacked, kind, handle))).revealed["sum"] == 45
            assert all(
                node._callers["insurer"].threads.limiter.borrowed_tokens == 2 for node in attacked.nodes
            )
            stop.set()
    finally:
        stop.set()


async def test_lists_come_in_pages(attacked, monkeypatch):
    monkeypatch.setattr(pages, "PAGE_ITEMS", 2)
    names = [f"table {number}" for number in range(5)]
    for name in names:
        await attacked.ann.desk.keep("table", name, b"", [], Rules())
    assert [one.name for one in await attacked.ann.desk.entries()] == names
    table = await attacked.victim(plans="approved")
    jobs = []
    for number in range(5):
        b = attacked.builder(f"plan {number}")
        (values_of(b, table).sum() * (number + 1)).reveal("total", to="analyst")
        jobs.append(await attacked.ann.cluster.client.submit(b.plan()))
    await plans_wait(attacked, 5)
    assert [job.session for job in await attacked.ann.jobs()] == jobs
    for verb in ("entries", "plans", "jobs"):
        for told in await attacked.ann.cluster.client.ask(verb):
            assert (len(told[verb]), told["more"]) == (2, True)
    monkeypatch.setattr(pages, "PAGE_BYTES", 10)
    for verb in ("entries", "plans", "jobs"):
        for told in await attacked.ann.cluster.client.ask(verb):
            assert (len(told[verb]), told["more"]) == (1, True), "also bounded in bytes"
    assert len(await attacked.hospital.plans()) == 5
    b = attacked.builder()
    for number in range(5):
        b.random_words(1 + number, 3).reveal(f"to {number}", to="hospital")
    await attacked.run(b.plan())
    assert len(await attacked.hospital.received()) == 5


def test_loose_values_count_after_a_restart(tmp_path):
    from tests.nodes.on_disk import set_up

    set_up(tmp_path)
    file = NodeFile.read(tmp_path / "n0" / "node.toml")
    assert file.quota == Quota()
    vault = Vault(file)
    values = {name: LooseValue("ann", frozenset(), frozenset(), size=700) for name in ("x", "y")}
    vault.journal.end(secrets.token_bytes(16), values, [], 3)
    ledger = Ledger(Vault(file))
    assert (ledger.bytes["ann"], ledger.values["ann"]) == (1400, 2)


def test_quotas_are_read(tmp_path):
    from tests.nodes.on_disk import set_up

    set_up(tmp_path)
    path = tmp_path / "n0" / "node.toml"
    whole = path.read_text()
    path.write_text(whole.replace("dealt_mb = 16384", "dealt_mb = 7"))
    assert NodeFile.read(path).quota == Quota(dealt_mb=7)
    path.write_text(whole[: whole.index("[quota]")])
    assert NodeFile.read(path).quota == Quota()
    wrong = {"dealt = 7": "which means nothing", "dealt_mb = 0": "at least 1", "entries = true": "no whole"}
    for line, why in wrong.items():
        path.write_text(whole[: whole.index("[quota]")] + f"[quota]\n{line}\n")
        with pytest.raises(ConfigError, match=why):
            NodeFile.read(path)
