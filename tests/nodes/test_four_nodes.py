"""Four nodes, for a protocol that wants as many: all that three do, and what a malicious one must not."""

from __future__ import annotations

import secrets
import signal
from pathlib import Path

import numpy as np
import pytest
import trio

import tercet
from tercet import Allow
from tercet.actors import course
from tercet.actors.rounds import Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.errors import ConfigError, PlanError, ProtocolError, TercetError
from tercet.ml import LogisticRegression
from tercet.nodes import program
from tercet.nodes.ledger import Ledger
from tercet.nodes.setup import make_cluster, make_node
from tercet.plans import Form, Type
from tercet.protocols import registry
from tercet.transports.names import party_name
from tests.attacks.lake import apart, attacked_lake
from tests.nodes import on_disk
from tests.protocols.quad import Quad

ROWS = 300
RNG = np.random.default_rng(7)
AGE = RNG.normal(50, 10, ROWS)
SICK = (0.1 * (AGE - 50) + RNG.logistic(size=ROWS) > 0).astype(int)
KIND = Type(Form.RING, (ROWS,), 0, 2.0**20)


@pytest.fixture(autouse=True)
def quad(monkeypatch):
    """The test's protocol, by its name."""
    monkeypatch.setitem(registry.BUILT_IN, Quad.name, f"{Quad.__module__}:{Quad.__name__}")
    return Quad.name


async def _for_ever(*_):
    await trio.sleep_forever()


@pytest.fixture
async def four(tmp_path, monkeypatch, quad):
    """Four lasting nodes in this process, with the hospital, the insurer and ann connected."""
    monkeypatch.setattr(program, "_until_told", _for_ever)
    async with attacked_lake(tmp_path, protocol=quad, nodes=4) as made:
        yield made


def uploads():
    keys = np.arange(ROWS)
    return {"id": keys, "age": AGE}, {"id": keys[::-1], "sick": SICK[::-1]}


# -- on one machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [None, 4])
def test_a_lake_on_this_machine(quad, parties):
    ages, outcomes = uploads()
    with tercet.local(protocol=quad, parties=parties) as lake:
        assert "4 nodes on this machine" in repr(lake)
        left = lake.upload(ages, name="ages", key="id", owner="hospital")
        right = lake.upload(outcomes, name="outcomes", key="id", owner="insurer")
        joined = left.join(right, on="id")
        assert joined.rows == ROWS
        model = LogisticRegression().fit(joined, "sick", features=["age"]).reveal()
        assert 0.05 < model.coef_[0, 0] < 0.2
        groups = joined.groupby("id").to_table({"age": "max"}, sizes="noisy")
        told = groups.describe("age_max", statistics=["mean"])["age_max"]
        assert told["count"] == ROWS < groups.rows
        assert told["mean"] == pytest.approx(AGE.mean(), abs=0.01)


def test_as_many_nodes_as_the_protocol_wants(quad):
    with pytest.raises(PlanError, match="runs with 4 parties, not 3"):
        tercet.local(protocol=quad, parties=3)


@pytest.fixture
def offered(tmp_path_factory, monkeypatch):
    """Processes that are started find the protocol as that of an installed package."""
    where = tmp_path_factory.mktemp("installed")
    package = where / "quad-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: quad\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[tercet.protocols]\nquad = {Quad.__module__}:Quad\n")
    monkeypatch.setenv("PYTHONPATH", f"{where}:{Path(tercet.__file__).parents[1]}")


@pytest.mark.usefixtures("offered")
def test_nodes_that_are_processes(quad):
    ages, _ = uploads()
    with tercet.local(protocol=quad, processes=True) as lake:
        table = lake.upload(ages, name="ages", key="id", owner="hospital")
        found = table.describe(["age"], statistics=["mean"])
        assert f"{AGE.mean():.2f}" in str(found)


# -- nodes that last -----------------------------------------------------------------------------------------


def test_the_file_of_a_lake_wants_four_nodes(quad, tmp_path):
    parts = [make_node(f"n{i}", f"127.0.0.1:{7300 + i}", tmp_path / f"n{i}") for i in range(4)]
    with pytest.raises(ConfigError, match="3 nodes, protocol 'quad' runs with 4"):
        make_cluster(parts[:3], tmp_path / "cluster.toml", protocol=quad)
    found = make_cluster(parts, tmp_path / "cluster.toml", protocol=quad)
    assert list(found.pins(nodes_only=True)) == [party_name(index) for index in range(4)]


@pytest.mark.scale
@pytest.mark.usefixtures("offered")
def test_processes_that_last_and_are_lost(quad, tmp_path):
    made = on_disk.set_up(tmp_path, protocol=quad, count=4)
    made.forked = False  # what forks them has looked for protocols already
    try:
        made.start(0, 1, 2, 3)
        made.wait_until_ready()
        with tercet.connect(made.cluster, identity=made.key("hospital")) as lake:
            lake.upload(uploads()[0], name="ages", key="id", owner="hospital", allow=Allow(plans="any"))
        with tercet.connect(made.cluster, identity=made.key("ann")) as lake:
            assert f"{AGE.mean():.2f}" in str(lake.table("ages").describe(["age"], statistics=["mean"]))
        made.stop(3, signal.SIGKILL)
        made.start(3)
        made.wait_until_ready()
        with tercet.connect(made.cluster, identity=made.key("ann")) as lake:
            assert f"{AGE.mean():.2f}" in str(lake.table("ages").describe(["age"], statistics=["mean"]))
    finally:
        made.close()


async def test_tables_consent_results_and_jobs(four):
    ages, outcomes = uploads()
    await four.hospital.upload(ages, name="ages", key="id", owner="hospital", min_count=20)
    await four.insurer.upload(outcomes, name="outcomes", key="id", owner="insurer", allow=Allow(plans="any"))
    assert {one.name for one in await four.ann.tables()} == {"ages", "outcomes"}
    async with four.signing() as signed:
        joined = await (await four.ann.table("ages")).join(await four.ann.table("outcomes"), on="id")
        assert joined.rows == ROWS
        model = await LogisticRegression().fit(joined, "sick", features=["age"])
        revealed = await model.reveal()
        assert 0.05 < revealed.coef_[0, 0] < 0.2
        job = await LogisticRegression().submit(joined, "sick", features=["age"])
        model = await LogisticRegression().collect(job, joined, "sick", features=["age"])
        alone = await model.reveal()
        np.testing.assert_allclose(alone.coef_, revealed.coef_, atol=0.01)
    assert signed
    heads = await four.hospital.audit(keep=False)
    assert len(heads) == 4


async def test_a_run_that_was_interrupted_begins_again_from_its_beginning(four, monkeypatch):
    await four.hospital.upload(
        uploads()[0], name="ages", key="id", owner="hospital", allow=Allow(plans="any")
    )
    table = await four.ann.table("ages")
    begun, reached = [], []

    async def noting(self, *args):
        reached.append(args)

    monkeypatch.setattr(Ledger, "reach", noting)
    for driver in (Scheduler, Lockstep):

        async def run(self, driver=driver):
            begun.append(self.protocol.party)
            outcome = await driver.run(self)
            if len(begun) <= 4:
                await trio.sleep_forever()
            return outcome

        monkeypatch.setattr(course, driver.__name__, type("Endless", (driver,), {"run": run}))
    b = four.builder("sum of ages")
    total = table.features(b, ["age"]).sum()
    total.checkpoint(0, "total")
    total.reveal("sum", to="analyst")
    found = []

    async def ask():
        found.append(await four.run(b.plan()))

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while len(begun) < 4:  # noqa: ASYNC110
                await trio.sleep(0.02)
            with apart(four):
                await trio.sleep(0.2)
    assert found[0].interrupted == 1
    assert sorted(begun) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert reached == []


async def test_a_node_that_finds_a_lie_ends_the_run_at_all_and_nothing_is_kept(four, monkeypatch):
    await four.hospital.upload(
        uploads()[0], name="ages", key="id", owner="hospital", allow=Allow(plans="any")
    )
    table = await four.ann.table("ages")
    for driver in (Scheduler, Lockstep):

        async def run(self, driver=driver):
            outcome = await driver.run(self)
            if self.protocol.party == 3:
                await trio.sleep(0.3)
                raise ProtocolError("the last check failed")
            return outcome

        monkeypatch.setattr(course, driver.__name__, type("Late", (driver,), {"run": run}))
    b = four.builder("sum of ages")
    total = table.features(b, ["age"]).sum()
    total.store("sum of ages")
    total.reveal("sum", to="hospital")
    client, failed = four.ann.cluster.client, []
    async with four.signing():
        try:
            await four.ask(b.plan())
        except TercetError as error:
            failed.append(error)
        session = secrets.token_bytes(16)
        await client.ask("submit", [session, b.plan().to_bytes()])
        try:
            await client.fetch(session)
        except TercetError as error:
            failed.append(error)
    assert [type(error) for error in failed] == [ProtocolError] * 2, failed
    assert all("the last check failed" in str(error) for error in failed)
    assert await four.hospital.received() == []
    for node in four.nodes:
        assert node.gate.ledger.find("sum of ages") is None
        assert node.party.store.keys() & {"sum of ages"} == set()


# -- uploads that nodes have got differently -----------------------------------------------------------------


def dealing_wrongly(lake, party):
    client = lake.cluster.client
    deal = client.protocol.deal

    def wrong(values, *, domain, parties):
        dealt = deal(values, domain=domain, parties=parties)
        dealt[party][1] = dealt[party][1].copy()
        dealt[party][1].reshape(-1)[0] ^= np.uint64(1)
        return dealt

    client.protocol = type("Wrong", (client.protocol,), {"deal": staticmethod(wrong)})


async def test_a_kept_table_that_nodes_have_got_differently_is_read_by_no_plan(four):
    ages, outcomes = uploads()
    await four.insurer.upload(outcomes, name="outcomes", key="id", owner="insurer", allow=Allow(plans="any"))
    dealing_wrongly(four.hospital, 2)
    await four.hospital.upload(ages, name="ages", key="id", owner="hospital", allow=Allow(plans="any"))
    good, bad = await four.ann.table("outcomes"), await four.ann.table("ages")
    for node in four.nodes:  # as after a restart: from files, and what is known of them from the catalog
        node.gate.vault._opened.clear()
    await good.describe(["sick"])
    with pytest.raises(ProtocolError, match=r"hold different words of what was uploaded as '.*ages"):
        await bad.describe(["age"])
