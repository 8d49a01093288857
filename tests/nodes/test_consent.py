"""Consent, from end to end: three node processes, owners, an analyst, an auditor; and those who may not."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import secrets
import socket
import ssl
import threading
import time

import attrs
import numpy as np
import pytest
import trio

import tercet
from tercet import Allow
from tercet.client.connection import Request
from tercet.client.lake import Sent, open_lake
from tercet.client.reach import dial
from tercet.errors import ConsentError, SchemaError, StorageError, TercetError, TransportError
from tercet.members.approvals import Approval
from tercet.members.config import ClusterFile, Member
from tercet.members.keys import MemberKeys
from tercet.ml.describe import describe
from tercet.plans import Form, Type
from tercet.transports import Identity, TlsTransport, make_identity
from tests.nodes.on_disk import set_up

pytestmark = pytest.mark.early
PATIENTS = {"id": np.arange(100), "age": np.linspace(20, 80, 100), "sick": np.arange(100) % 2}
COSTS = {"id": np.arange(50, 150), "cost": np.linspace(-1, 1, 100)}
WAIT_S = 60.0


def connect(nodes, member):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Running nodes of a lake that also lists a member whose certificate has expired."""
    root = tmp_path_factory.mktemp("lake")
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=400)
    late = make_identity("late", valid_from=long_ago)
    late.save(root / "late.key")
    member = Member("late", ("analyst",), late.certificate_pem, MemberKeys(late).sealing_key)
    ClusterFile("replicated", (), (member,)).write(root / "late.public.toml")
    made = set_up(root, more=[root / "late.public.toml"])
    made.start(0, 1, 2)
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def tables(nodes):
    """A table whose owner signs every plan, and one that one analyst may use as she likes."""
    with connect(nodes, "hospital") as lake:
        lake.upload(PATIENTS, name="patients", key="id", owner="hospital")
    with connect(nodes, "insurer") as lake:
        free = Allow(readers=("ann",), plans="any", receivers=("ann", "hospital"))
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
def refused(nodes, why, *, by=(0, 1, 2)):
    """Every node, or those that are named, refuses what happens inside, and writes it down."""
    before = [len(log) for log in refusals(nodes)]
    with pytest.raises(TercetError, match=why):
        yield
    for index, (log, start) in enumerate(zip(refusals(nodes), before, strict=True)):
        assert any(why in line for line in log[start:]) == (index in by), (index, log[start:])


# -- what is allowed -----------------------------------------------------------------------------------------


def test_approve_join_reveal_and_send(tables):
    with connect(tables, "ann") as lake, signing(tables, "hospital"):
        joined = lake.table("patients").join(lake.table("costs"), on="id")
        assert joined.rows == 50
        model = tercet.ml.LogisticRegression(max_iter=2).fit(joined, target="sick", features=["cost"])
        intercept = model.reveal().intercept_[0]
        sent = model.reveal(to="insurer")
        assert sent == Sent(("insurer",), ("coefficients of 'sick' by cost", "intercept of 'sick'"))
        with pytest.raises(SchemaError, match="not single rows"):
            joined.reveal("age")
        with refused(tables, "does not let single rows"):
            lake.run(single_ages(lake, joined))
    with connect(tables, "hospital") as lake:
        assert lake.received() == []
    with connect(tables, "insurer") as lake:
        first, second = lake.received()
        assert (first.sender, first.name) == ("ann", "coefficients of 'sick' by cost")
        np.testing.assert_allclose(second.values, [intercept], atol=1e-6)
        assert lake.received() == []


def single_ages(lake, table):
    """A plan that reveals what is nobody's to see."""
    builder = lake.builder("single ages")
    table.features(builder, ["age"]).reveal("ages", to="analyst")
    return builder.plan()


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
    assert " kept " in command("audit", tables.root / "n1" / "node.toml", cwd=tables.root)
    again = command("audit", tables.root / "n1" / "node.toml", cwd=tables.root)
    assert " kept " not in again  # what is new only
    assert again.count("lines, whole; head ") == 1
    assert " kept " in command("audit", "--all", tables.root / "n1" / "node.toml", cwd=tables.root)
    new = command("audit", "--identity", "aud.key", cwd=tables.root)
    assert " kept " not in new
    assert new.count("lines, whole; head ") == 3
    assert " kept " in command("audit", "--identity", "aud.key", "--all", cwd=tables.root)


def test_an_auditor_misses_what_a_log_has_lost(tables, command):
    """Also where the node itself was made to forget it."""
    command("audit", "--verify", "--identity", "aud.key", cwd=tables.root)
    tables.stop(2)
    path = tables.root / "n2" / "audit.log"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-3]))
    tables.programs[2] = ["-m", "tercet", "node", "node.toml", "--log-lost"]
    tables.start(2)
    tables.wait_until_ready()
    del tables.programs[2]
    for option in ([], ["--verify"], ["--all"]):
        told = command("audit", *option, "--identity", "aud.key", cwd=tables.root, code=1)
        assert "the audit log of n2 had " in told
        assert "lines were lost or changed since" in told
    (tables.root / "aud.audited.json").unlink()
    assert command("audit", "--verify", "--identity", "aud.key", cwd=tables.root).count("whole") == 3


def test_expiry_and_dropping(tables):
    data = [tables.root / f"n{index}" / "data" for index in range(3)]
    before = [sorted(one.iterdir()) for one in data]
    with connect(tables, "insurer") as lake:
        lake.upload(COSTS, name="short", key="id", owner="insurer", allow=Allow(days=1e-6))
        lake.drop("short")
        with pytest.raises(SchemaError, match=r"no table 'short' in the lake.*The tables are: "):
            lake.table("short")
        with pytest.raises(StorageError, match="there is no table 'short'"):
            lake.drop("short")
    assert [sorted(one.iterdir()) for one in data] == before


# -- what is not ---------------------------------------------------------------------------------------------


def test_those_without_the_role(tables):
    with connect(tables, "aud") as lake, refused(tables, "aud may not upload"):
        lake.upload(COSTS, name="x", key="id", owner="aud")
    with connect(tables, "olga") as lake, refused(tables, "olga may not run plans"):
        lake.table("costs").describe(["cost"], statistics=["mean"])
    with connect(tables, "ann") as lake, refused(tables, "ann may not read the audit log"):
        lake.audit()
    with connect(tables, "ann") as lake, refused(tables, "ann may not trace"), lake.trace():
        pass


def test_those_who_are_no_readers(tables):
    with (
        connect(tables, "hospital") as lake,
        refused(tables, "insurer does not let hospital use table 'costs'"),
    ):
        lake.table("costs").describe(["cost"], statistics=["mean"])


def test_tables_of_others_cannot_be_replaced_or_dropped(tables):
    with connect(tables, "insurer") as lake:
        with refused(tables, "is hospital's, not insurer's"):
            lake.drop("patients")
        with pytest.raises(ConsentError, match="is hospital's; take another name"):
            lake.upload(COSTS, name="patients", key="id", owner="insurer")


@pytest.mark.parametrize(
    ("rules", "why"),
    [({"readers": ("mallory",)}, "no member 'mallory' to read it"), ({"days": -3.0}, "after -3 days")],
)
def test_rules_that_make_no_sense(tables, rules, why):
    with connect(tables, "insurer") as lake, pytest.raises(ConsentError, match=why):
        lake.upload(COSTS, name="other", key="id", owner="insurer", allow=Allow(**rules))


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


def total_age(lake, table):
    """A plan that takes an approval: packed, as clients send it."""
    builder = lake.builder("total age")
    table.features(builder, ["age"]).sum().reveal("sum", to="analyst")
    return builder.plan()


async def the_one_waiting(lake, session):
    """The plan of a session, once it waits at all nodes."""
    with trio.fail_after(WAIT_S):
        while True:
            for one in await lake.desk.plans():
                if one.session == session:
                    return one


def approval(owner, waiting, **changes):
    """A signed approval as it travels, with changes that were made after it was signed."""
    desk = owner.desk
    signed = Approval.make(desk.cluster.digest(), waiting.session, waiting.digest, desk.keys)
    return [attrs.asdict(attrs.evolve(signed, **changes))]


def test_approvals_that_are_forged_foreign_or_altered(tables):
    async def main():
        async with (
            open_lake(tables.cluster, identity=tables.key("ann")) as ann,
            open_lake(tables.cluster, identity=tables.key("hospital")) as hospital,
            open_lake(tables.cluster, identity=tables.key("insurer")) as insurer,
        ):
            job = await ann.submit(total_age(ann, await ann.table("patients")))
            waiting = await the_one_waiting(hospital, job.session)
            other_plan = attrs.evolve(waiting, digest=bytes(32))
            forged = approval(insurer, waiting, approver="hospital")
            for why, who, what in (
                ("ann is not asked to approve", ann, approval(ann, waiting)),
                ("insurer is not asked to approve", insurer, approval(insurer, waiting)),
                ("insurer is not asked to approve", insurer, approval(hospital, waiting)),
                ("not signed with the key of hospital", hospital, forged),
                ("another plan", hospital, approval(hospital, other_plan)),
                ("not signed", hospital, approval(hospital, waiting, expires=time.time() + 5)),
                ("not signed", hospital, approval(hospital, waiting, digest=bytes(32))),
                ("no plan", hospital, approval(hospital, waiting, session=bytes(16))),
            ):
                with refused(tables, why):
                    await who.cluster.client.ask("approve", what)
            assert (await hospital.desk.plans()) == [waiting]
            await job.cancel()

    trio.run(main)


def test_an_approval_that_has_not_come_to_all_nodes_is_given_again(tables):
    async def main():
        async with (
            open_lake(tables.cluster, identity=tables.key("ann")) as ann,
            open_lake(tables.cluster, identity=tables.key("hospital")) as hospital,
        ):
            job = await ann.submit(total_age(ann, await ann.table("patients")))
            waiting = await the_one_waiting(hospital, job.session)
            given = Request("approve", approval(hospital, waiting))
            await hospital.cluster.client._ask_all([given, given, Request("plans", [])])
            assert await hospital.desk.plans() == [waiting]
            _, plan = await hospital.desk.show(waiting.number)
            assert plan.digest() == waiting.digest
            for days in (0.0, -1.0, float("nan"), 1e300):
                with pytest.raises(ConsentError, match="nothing was signed: a plan is approved for up to"):
                    await hospital.desk.approve(waiting.number, days=days)
            await hospital.desk.approve(waiting.number)
            assert (await job.result()).revealed["sum"].shape == (1,)
            assert await hospital.desk.plans() == []

    trio.run(main)


def test_an_approval_that_is_replayed_and_a_plan_that_was_altered_after_it(tables):
    async def main(again):
        async with (
            open_lake(tables.cluster, identity=tables.key("ann")) as ann,
            open_lake(tables.cluster, identity=tables.key("hospital")) as hospital,
        ):
            ask, table = ann.cluster.client.ask, await ann.table("patients")
            plan = total_age(ann, table)
            if again is not None:
                # The nodes have been restarted, and remember what they have let run all the same.
                session, recorded = again
                for more in ([], [0.0, False], [60.0, True]):
                    with refused(tables, "names are used once"):
                        await ask("submit", [session, plan.to_bytes(), *more])
                with refused(tables, "no plan"):
                    await hospital.cluster.client.ask("approve", recorded)
                return None
            job = await ann.submit(plan)
            waiting = await the_one_waiting(hospital, job.session)
            recorded = approval(hospital, waiting)
            await hospital.cluster.client.ask("approve", recorded)
            assert (await job.result()).revealed["sum"].shape == (1,)
            # The same plan for another run, and a plan that was altered, each with the approval at hand.
            other = ann.builder("rows")
            table.features(other, ["age"]).sum().reveal("another sum", to="analyst")
            altered = other.plan()
            with refused(tables, "names are used once"):
                await ask("submit", [job.session, altered.to_bytes(), 60.0, True])
            for one in (plan, altered):
                second = await ann.submit(one)
                await the_one_waiting(hospital, second.session)
                for why, what in (
                    ("no plan", recorded),
                    ("not signed", [recorded[0] | {"session": second.session}]),
                ):
                    with refused(tables, why):
                        await hospital.cluster.client.ask("approve", what)
                await second.cancel()
            return job.session, recorded

    used = trio.run(main, None)
    tables.restart()
    trio.run(main, used)


def test_plans_that_differ_from_node_to_node(tables):
    """What an owner signs holds only at nodes that have just this plan; and no node runs it with another."""

    async def main():
        async with (
            open_lake(tables.cluster, identity=tables.key("ann")) as ann,
            open_lake(tables.cluster, identity=tables.key("hospital")) as hospital,
        ):
            client, table, session = ann.cluster.client, await ann.table("patients"), secrets.token_bytes(16)
            shown = total_age(ann, table)
            builder = ann.builder("total age")
            (table.features(builder, ["age"]) * 2).sum().reveal("sum", to="analyst")
            other = builder.plan()
            packed = [one.to_bytes() for one in (shown, shown, other)]
            await client._ask_all([Request("submit", [session, one]) for one in packed])
            waiting = await the_one_waiting(hospital, session)
            with pytest.raises(ConsentError, match="the nodes show different plans"):
                await hospital.desk.approve(waiting.number)
            give = hospital.cluster.client.ask
            with refused(tables, "another plan", by=[2]):
                await give("approve", approval(hospital, waiting))
            signed = Request("approve", approval(hospital, attrs.evolve(waiting, digest=other.digest())))
            look = Request("plans", [])
            await hospital.cluster.client._ask_all([look, look, signed])
            with pytest.raises(TercetError, match="different plans under one session"):
                await client.ask("fetch", [session])

    trio.run(main)


def test_results_of_others(tables):
    async def main():
        async with (
            open_lake(tables.cluster, identity=tables.key("ann")) as ann,
            open_lake(tables.cluster, identity=tables.key("insurer")) as insurer,
        ):
            costs = await ann.table("costs")
            job = await ann.submit(describe(costs, ["cost"], ["mean"], "analyst"))
            await job.result()
            for verb in ("job", "fetch", "end"):
                with refused(tables, "insurer has no job"):
                    await insurer.cluster.client.ask(verb, [job.session])
            sent = await costs.describe(["cost"], statistics=["mean"], to="hospital")
            assert isinstance(sent, Sent)
            assert await insurer.desk.received() == []
        async with open_lake(tables.cluster, identity=tables.key("hospital")) as hospital:
            received = await hospital.desk.received()
            assert {one.sender for one in received} == {"ann"}
            assert [one.name for one in received] == list(sent.what)

    trio.run(main)


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


# -- who is not let in ---------------------------------------------------------------------------------------


def knock(nodes, index, identity):
    """Connect to one node."""
    cluster = ClusterFile.read(nodes.cluster)
    transport = TlsTransport(identity, cluster.pins(nodes_only=True))

    async def main():
        await (await dial(cluster, transport, index)).aclose()

    trio.run(main)


def without_a_key(nodes, index):
    """Connect to one node over TLS, and show no certificate."""
    host, port = nodes.network.addresses[index].split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as raw, context.wrap_socket(raw) as link:
        if not link.recv(1):
            raise ConnectionResetError("it hung up")


@pytest.mark.parametrize(
    ("who", "why"),
    [("nobody", "showed no certificate"), ("mallory", "is not pinned"), ("late", "has expired")],
)
def test_strangers(nodes, tmp_path, who, why):
    """Every node turns them down by itself, and says so in its audit log."""
    for index in range(3):
        before = len(refusals(nodes)[index])
        if who == "nobody":
            with pytest.raises(OSError, match=r"(?i)certificate.required"):
                without_a_key(nodes, index)
        else:
            identity = make_identity(who) if who == "mallory" else Identity.read(nodes.key(who))
            with pytest.raises(TransportError, match=why):
                knock(nodes, index, identity)
        nodes.wait_for(
            lambda before=before, index=index: any(why in one for one in refusals(nodes)[index][before:]),
            f"in the audit log of n{index}",
        )


# -- nodes that are not honest -------------------------------------------------------------------------------

CORRUPT = """
from tercet.actors.gate import Gate
from tercet.cli import app
from tercet.nodes.gate import LakeGate

for name in ("before_name", "before_run", "before_start", "after_run", "over"):
    setattr(LakeGate, name, getattr(Gate, name))

async def take_any(self, caller, fields):
    pass

LakeGate._approve = take_any
app(["node", "node.toml"])
"""
"""A node that lets every plan pass, and takes every approval."""


def test_two_honest_nodes_suffice(nodes_at_rest):
    nodes = nodes_at_rest
    nodes.programs[0] = ["-c", CORRUPT]
    nodes.start(0, 1, 2)
    nodes.wait_until_ready()
    with connect(nodes, "hospital") as lake:
        lake.upload(PATIENTS, name="patients", key="id", owner="hospital")

    async def main():
        async with (
            open_lake(nodes.cluster, identity=nodes.key("ann")) as ann,
            open_lake(nodes.cluster, identity=nodes.key("insurer")) as insurer,
        ):
            table = await ann.table("patients")
            with refused(nodes, "does not let single rows", by=[1, 2]):
                await ann.run(single_ages(ann, table))
            job = await ann.submit(total_age(ann, table))
            with trio.fail_after(WAIT_S):
                while not all(told["plans"] for told in (await ann.cluster.client.ask("plans"))[1:]):
                    pass
            own = attrs.asdict(Approval.make(b"", job.session, bytes(32), ann.desk.keys))
            for lake, why in ((ann, "ann is not asked"), (insurer, "insurer is not asked")):
                with refused(nodes, why, by=[1, 2]):
                    await lake.cluster.client.ask("approve", [own | {"approver": lake.desk.name}])
            assert [one.state for one in await ann.jobs()] == ["under way"]
            await job.cancel()

    trio.run(main)
