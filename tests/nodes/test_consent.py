"""Consent, from end to end: three node processes, owners, an analyst, an auditor; and those who may not."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import attrs
import numpy as np
import pytest
import trio

import tercet
from tercet.actors import Form, Type
from tercet.consent.approvals import Approval
from tercet.errors import ConsentError, PlanError, SchemaError, StorageError, TercetError
from tercet.lake import Allow, Sent, open_lake

PATIENTS = {"id": np.arange(100), "age": np.linspace(20, 80, 100), "sick": np.arange(100) % 2}
COSTS = {"id": np.arange(50, 150), "cost": np.linspace(-1, 1, 100)}
WAIT_S = 60.0


def connect(nodes, member):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


@pytest.fixture(scope="module")
def tables(nodes):
    """A table whose owner signs every plan, and one that one analyst may use as she likes."""
    with connect(nodes, "hospital") as lake:
        lake.upload(PATIENTS, name="patients", key="id", owner="hospital")
    with connect(nodes, "insurer") as lake:
        free = Allow(readers=("ann",), plans="any")
        lake.upload(COSTS, name="costs", key="id", owner="insurer", allow=free)
    return nodes


def wait_for_plan(nodes):
    deadline = time.monotonic() + WAIT_S
    with connect(nodes, "hospital") as lake:
        while not (waiting := lake.plans()):
            assert time.monotonic() < deadline, "no plan came to wait"
            time.sleep(0.05)
        return waiting[0]


@contextlib.contextmanager
def signing(nodes, owner):
    """An owner who signs everything, meanwhile."""
    done = threading.Event()

    def sign():
        with connect(nodes, owner) as lake:
            while not done.is_set():
                for waiting in lake.plans():
                    with contextlib.suppress(ConsentError):  # signed a moment ago
                        lake.approve(waiting.number)
                done.wait(0.1)

    thread = threading.Thread(target=sign)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def refusals(nodes):
    """What each node has refused so far."""
    logs = [(nodes.root / f"n{index}" / "audit.log").read_text().splitlines() for index in range(3)]
    lines = [[json.loads(line.partition("\t")[0]) for line in log] for log in logs]
    return [[line["why"] for line in log if line["event"] == "refused"] for log in lines]


@contextlib.contextmanager
def refused(nodes, why):
    """Every node refuses what happens inside, and writes it down."""
    before = [len(log) for log in refusals(nodes)]
    with pytest.raises(TercetError, match=why):
        yield
    for log, start in zip(refusals(nodes), before, strict=True):
        assert any(why in line for line in log[start:]), log[start:]


# -- what is allowed -----------------------------------------------------------------------------------------


def test_approve_join_reveal_and_send(tables):
    with connect(tables, "ann") as lake, signing(tables, "hospital"):
        joined = lake.table("patients").join(lake.table("costs"), on="id")
        assert joined.rows == 50
        model = tercet.ml.LogisticRegression(max_iter=2).fit(joined, target="sick", features=["cost"])
        intercept = model.reveal().intercept_
        sent = model.reveal(to="insurer")
        assert sent == Sent(("insurer",), ("coefficients of 'sick'", "intercept of 'sick'"))
        with refused(tables, "does not let single rows"):
            joined.reveal("age")
    with connect(tables, "hospital") as lake:
        assert lake.received() == []
    with connect(tables, "insurer") as lake:
        first, second = lake.received()
        assert (first.sender, first.name) == ("ann", "coefficients of 'sick'")
        np.testing.assert_allclose(second.values, [intercept], atol=1e-6)
        assert lake.received() == []


def test_an_owner_refuses(tables):
    found = []

    def ask():
        with connect(tables, "ann") as lake:
            try:
                lake.table("patients").join(lake.table("costs"), on="id")
            except ConsentError as error:
                found.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    waiting = wait_for_plan(tables)
    with connect(tables, "hospital") as lake:
        assert (waiting.caller, waiting.name, waiting.missing) == (
            "ann",
            "join patients+costs",
            ("hospital",),
        )
        _, plan = lake.show(waiting.number)
        assert "the number of rows that match" in str(plan.disclosures())
        lake.refuse(waiting.number, "ask our board first")
    thread.join()
    assert found == ["hospital has refused plan 'join patients+costs': ask our board first"]


def test_owners_use_their_own_tables_freely(tables):
    with connect(tables, "hospital") as lake:
        np.testing.assert_allclose(lake.table("patients").reveal("age")["age"], PATIENTS["age"], atol=1e-3)


def test_a_repeated_upload_is_recognised(tables):
    with connect(tables, "hospital") as lake:
        before = {one.name: one.handles for one in lake.tables()}
        lake.upload(PATIENTS, name="patients", key="id", owner="hospital")
        assert {one.name: one.handles for one in lake.tables()} == before


def test_tables_survive_restarts(tables):
    tables.restart()
    with connect(tables, "hospital") as lake:
        np.testing.assert_allclose(lake.table("patients").reveal("age")["age"], PATIENTS["age"], atol=1e-3)
        assert [(one.name, one.owner) for one in lake.tables()] == [
            ("costs", "insurer"),
            ("patients", "hospital"),
        ]


def test_audit(tables, command):
    told = command("audit", "--verify", "--identity", "aud.key", cwd=tables.root)
    assert told.count("lines, whole; head ") == 3
    assert "'event'" not in told
    assert " kept " in command("audit", tables.root / "n1" / "node.toml")


def test_expiry_and_dropping(tables):
    data = [tables.root / f"n{index}" / "data" for index in range(3)]
    before = [sorted(one.iterdir()) for one in data]
    with connect(tables, "insurer") as lake:
        lake.upload(COSTS, name="short", key="id", owner="insurer", allow=Allow(days=-1.0))
        lake.drop("short")
        with pytest.raises(SchemaError, match="no table 'short'"):
            lake.table("short")
        with pytest.raises(StorageError, match="there is no table 'short'"):
            lake.drop("short")
    assert [sorted(one.iterdir()) for one in data] == before


# -- what is not ---------------------------------------------------------------------------------------------


def test_those_without_the_role(tables):
    with connect(tables, "aud") as lake, refused(tables, "aud may not upload"):
        lake.upload(COSTS, name="x", key="id", owner="aud")
    with connect(tables, "olga") as lake, refused(tables, "olga may not run plans"):
        lake.table("costs").reveal("cost")
    with connect(tables, "ann") as lake, refused(tables, "ann may not read the audit log"):
        lake.audit()
    with connect(tables, "ann") as lake, refused(tables, "ann may not trace"), lake.trace():
        pass


def test_those_who_are_no_readers(tables):
    with (
        connect(tables, "hospital") as lake,
        refused(tables, "insurer does not let hospital use table 'costs'"),
    ):
        lake.table("costs").reveal("cost")


def test_tables_of_others_cannot_be_replaced_or_dropped(tables):
    with connect(tables, "insurer") as lake:
        with refused(tables, "is hospital's, not insurer's"):
            lake.drop("patients")
        with pytest.raises(ConsentError, match="is hospital's; take another name"):
            lake.upload(COSTS, name="patients", key="id", owner="insurer")


def test_a_receiver_that_does_not_exist(tables):
    with connect(tables, "hospital") as lake, refused(tables, "there is no member 'mallory'"):
        lake.table("patients").reveal("age", to="mallory")


def test_values_of_others_cannot_be_read_shadowed_or_kept(tables):
    kind = Type(Form.RING, (10,), 0, 2.0**20)
    words = np.arange(10, dtype=np.uint64)

    async def main():
        async with open_lake(tables.cluster, identity=tables.key("insurer")) as owner:
            await owner.cluster.client.put("insurer's", kind, words)
            kept = (await owner.desk.find("table", "patients")).handles[0]
            async with open_lake(tables.cluster, identity=tables.key("ann")) as ann:
                builder = ann.builder("peek")
                builder.input("insurer's", kind).reveal("it", to="analyst")
                with refused(tables, 'nothing of ann is stored under "insurer\'s"'):
                    await ann.run(builder.plan())
                for handle in ("insurer's", kept):
                    with refused(tables, "stored under"):
                        await ann.cluster.client.put(handle, kind, words)
                    builder = ann.builder("shadow")
                    builder.random_words(2, 5).store(handle)
                    with refused(tables, "stored under"):
                        await ann.run(builder.plan())
                with refused(tables, "is a value of insurer"):
                    await ann.cluster.client.drop(["insurer's"])
                fields = {"kind": "model", "name": "m", "body": b"", "rules": b"", "fingerprint": b""}
                with refused(tables, "malformed"):
                    await ann.cluster.client.ask(
                        "keep", [fields | {"handles": ["insurer's"], "expires": None}]
                    )

    trio.run(main)


def test_forged_replayed_and_foreign_approvals(tables):
    used = []

    async def join(lake):
        costs, patients = await lake.table("costs"), await lake.table("patients")
        return await patients.join(costs, on="id")

    async def main():
        async with (
            open_lake(tables.cluster, identity=tables.key("ann")) as ann,
            open_lake(tables.cluster, identity=tables.key("hospital")) as hospital,
            open_lake(tables.cluster, identity=tables.key("insurer")) as insurer,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(join, ann)
                waiting = await trio.to_thread.run_sync(wait_for_plan, tables)
                lake = hospital.desk.cluster.digest()

                async def give(desk, session, digest, keys, **changes):
                    signed = Approval.make(lake, session, digest, keys)
                    await desk.client.ask("approve", [attrs.asdict(attrs.evolve(signed, **changes))])

                session, digest, keys = waiting.session, waiting.digest, hospital.desk.keys
                with refused(tables, "insurer is not asked to approve"):
                    await give(insurer.desk, session, digest, insurer.desk.keys)
                with refused(tables, "insurer is not asked to approve"):
                    await give(insurer.desk, session, digest, keys)
                with refused(tables, "not signed with the key of hospital"):
                    await give(hospital.desk, session, digest, insurer.desk.keys, approver="hospital")
                with refused(tables, "another plan"):
                    await give(hospital.desk, session, bytes(32), keys)
                with refused(tables, "not signed"):
                    await give(hospital.desk, session, digest, keys, expires=time.time() + 5)
                with refused(tables, "no plan"):
                    await give(hospital.desk, bytes(16), digest, keys)
                assert (await hospital.desk.plans()) == [waiting]
                await give(hospital.desk, session, digest, keys)
                used.append(session)
            # The same name for a run again: refused, though its approval is at hand.
            client = ann.cluster.client
            builder = ann.builder("again")
            (await ann.table("patients")).features(builder, ["age"]).sum().reveal("sum", to="analyst")
            with pytest.raises((ConsentError, PlanError), match=r"used once|let through before"):
                await client.ask("run", [session, builder.plan().to_bytes()])

    trio.run(main)
    assert used


def test_too_few_rows_after_a_join_are_held_back(tables):
    few = {"id": np.arange(95, 195), "cost": np.linspace(-1, 1, 100)}
    with connect(tables, "insurer") as lake:
        for name, least in (("few", 5), ("fewer", 6)):
            free = Allow(readers=("ann",), plans="any")
            lake.upload(few, name=name, key="id", owner="insurer", min_count=least, allow=free)
    with connect(tables, "ann") as lake:
        mine = lake.upload(PATIENTS, name="mine", key="id", owner="ann")
        assert mine.join(lake.table("few"), on="id").rows == 5
        # One node that holds its part back ends the run for the others, who may not have come so far.
        before = sum(map(len, refusals(tables)))
        with pytest.raises(ConsentError, match="rest on no fewer than 6 rows, and a join has less"):
            mine.join(lake.table("fewer"), on="id")
        assert sum(map(len, refusals(tables))) > before
