"""Workers in earnest: their crews come together, compute what a node alone does, and are missed when lost."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trio
from prometheus_client import generate_latest

import tercet
from tercet.actors import crew, muster, presence, worker
from tercet.actors.engine import WorkerConfig, engine
from tercet.actors.gate import Gate
from tercet.actors.party import Party
from tercet.actors.peer import Peer
from tercet.actors.presence import Presence
from tercet.engines.dask import Dask, DaskTls
from tercet.errors import ConfigError, PeerLost, TercetError, TransportError, from_wire
from tercet.ml import LogisticRegression
from tercet.nodes.metrics import health, registry_of
from tercet.protocols import registry
from tercet.testing.engines import Tasks
from tercet.transports import make_identity
from tercet.transports.names import worker_name

ROWS = 256
RNG = np.random.default_rng(8)
X = RNG.normal(size=(ROWS, 3))
Y = RNG.random(ROWS) < 1 / (1 + np.exp(-X @ [1.0, -1.0, 0.5]))
LEFT = {"id": np.arange(ROWS), **{f"x{i}": X[:, i] for i in range(3)}}
RIGHT = {"id": np.arange(ROWS)[::-1], "y": Y[::-1], "site": np.arange(ROWS) % 3}
FEATURES = ["x0", "x1", "x2"]

pytestmark = pytest.mark.filterwarnings("ignore::tercet.errors.ConvergenceWarning")


class Engines(list):
    """Makes engines whose workers are tasks, one a party, and keeps them."""

    def __call__(self, workers, make_link):
        self.append(Tasks(workers, make_link))
        return self[-1]


async def study(lake):
    """A join, two fits, figures and metrics: numbers by name."""
    left = await lake.upload(LEFT, name="left", key="id", owner="clinic")
    right = await lake.upload(RIGHT, name="right", key="id", owner="insurer")
    both = await left.join(right, on="id")
    model = await LogisticRegression().fit(both, target="y", features=FEATURES)
    revealed = await model.reveal()
    scores = await (await model.evaluate(both)).reveal()
    told = await both.describe(["x0", "site"], statistics=["mean", "std", "50%"])
    slow = await LogisticRegression(solver="gd", max_iter=3).fit(both, target="y", features=["x0"])
    return {
        "coefficients": [*revealed.coef_[0], *revealed.intercept_],
        "metrics": [scores.accuracy, scores.roc_auc, scores.log_loss],
        "described": [told["x0"]["mean"], told["x0"]["std"], told["x0"]["50%"], told["site"]["mean"]],
        "steps": (await slow.reveal()).coef_[0],
    }


@pytest.mark.parametrize(
    ("protocol", "workers"), [("replicated", 1), ("replicated", 3), ("shamir", 2), ("rep4", 2)]
)
async def test_results_are_those_of_a_node_alone(protocol, workers):
    async with tercet.open_local(protocol=protocol, tile_rows=64) as lake:
        alone = await study(lake)
    async with tercet.open_local(protocol=protocol, tile_rows=64, workers=workers, engine=Engines()) as lake:
        shared = await study(lake)
    for name, numbers in alone.items():
        np.testing.assert_allclose(shared[name], numbers, atol=5e-4, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
async def test_a_lost_worker_is_named_and_there_is_another(seed):
    """At a random moment of a join and a fit; what comes after that is right."""
    moment = random.Random(seed)
    party, number, after = moment.randrange(3), moment.randrange(2), moment.uniform(0, 0.5)
    engines = Engines()
    async with tercet.open_local(tile_rows=64, workers=2, engine=engines, timeout_s=3) as lake:
        left = await lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = await lake.upload(RIGHT, name="right", key="id", owner="insurer")

        async def lose():
            await trio.sleep(after)
            engines[party].scopes[number].cancel()

        async def work():
            both = await left.join(right, on="id")
            return await LogisticRegression().fit(both, target="y", features=FEATURES)

        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            with pytest.raises(PeerLost, match=rf"worker {number} of party \d"):
                while True:  # until it is lost
                    await work()
        assert time.monotonic() - began < 30
        model = None
        with trio.fail_after(60):
            while model is None:
                with contextlib.suppress(PeerLost):
                    model = await work()
                await trio.sleep(0.1)
        found = (await model.reveal()).coef_[0]
    async with tercet.open_local(protocol="plain") as lake:
        table = await lake.upload(LEFT | {"y": Y}, name="all", key="id", owner="clinic")
        model = await LogisticRegression().fit(table, target="y", features=FEATURES)
        np.testing.assert_allclose(found, (await model.reveal()).coef_[0], atol=5e-4)


MOMENTS = [
    (0, 0, "link", 1),
    (1, 1, "run", 1),
    (2, 0, "value", 1),
    (0, 1, "value", 4),
    (1, 0, "data", 1),
    (2, 1, "data", 7),
    (0, 0, "end", 1),
]
"""Which worker of which party is lost as it hears a word of its node for the n-th time, or data of a peer."""


async def test_workers_that_are_lost_at_each_step_of_a_run(monkeypatch):
    """Each time one is named, the result comes out right with others, and no mask comes twice."""
    engines, drawn, due, protocol = Engines(), [], [], registry.get("replicated")
    stream = protocol.stream

    def losing(take):
        def taking(self, message, payload):
            take(self, message, payload)
            party = self.party
            if due and (worker_name(*due[0][:2]), due[0][2]) == (party.called(party.index), message[0]):
                index, number, word, times = due.pop()
                if times > 1:
                    due.append((index, number, word, times - 1))
                else:
                    engines[index].scopes[number].cancel()

        return taking

    def drawing(self, *names):
        drawn.append((self.party, *names))
        return stream(self, *names)

    monkeypatch.setattr(worker.Worker, "take", losing(worker.Worker.take))
    monkeypatch.setattr(Peer, "take", losing(Peer.take))
    monkeypatch.setattr(protocol, "stream", drawing)
    monkeypatch.setattr(muster, "RETRY_S", 0.05)
    async with tercet.open_local(tile_rows=64, workers=2, engine=engines, timeout_s=3) as lake:
        table = await lake.upload(LEFT | {"y": Y}, name="all", key="id", owner="clinic")

        async def fit():
            short = LogisticRegression(solver="gd", max_iter=2)
            return (await (await short.fit(table, target="y", features=["x0"])).reveal()).coef_[0]

        expected = await fit()
        for moment in MOMENTS:
            due.append(moment)
            if moment[2] == "link":
                engines[1].scopes[0].cancel()  # crews come together anew, and one is lost meanwhile
            found, said = None, []
            with trio.fail_after(60):
                while found is None or due:
                    try:
                        found = await fit()
                    except PeerLost as error:
                        found = None
                        said.append(str(error))
                        await trio.sleep(0.05)
            assert re.search(r"worker \d of party \d|(the|its) workers", said[0]), said
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(drawn) == len(set(drawn)) > 1000


async def test_parties_with_other_numbers_of_workers_say_so():
    """None of them waits for ever, and tables of one tile need no workers."""
    numbers = iter([2, 1, 2])
    engines = [Tasks(next(numbers)) for _ in range(3)]

    def make(_, make_link):
        made = engines.pop(0)
        made.make_link = make_link
        return made

    with trio.move_on_after(4) as scope:
        async with tercet.open_local(protocol="replicated", tile_rows=64, workers=2, engine=make):
            pass
    assert scope.cancelled_caught  # a lake on one machine opens with its workers


@pytest.mark.parametrize("what", ["link", "news"])
async def test_what_runs_ends_when_crews_come_together_anew(what, monkeypatch):
    """Because two workers have lost each other, or since a node has made its workers anew."""
    musters, parties, gone = [], [], {}

    def leaving(presence, lost, why):
        gone.setdefault(id(presence), (lost, why))

    monkeypatch.setattr(Presence, "leave", leaving)
    monkeypatch.setattr(muster.Muster, "_renew", noted(muster.Muster._renew, musters))
    monkeypatch.setattr(worker.Worker, "run", noted(worker.Worker.run, parties))
    async with tercet.open_local(tile_rows=64, workers=1, engine=Engines(), timeout_s=3) as lake:
        table = await lake.upload(LEFT | {"y": Y}, name="all", key="id", owner="clinic")

        async def disturb():
            await trio.sleep(0.2)
            if what == "news":
                musters[0].hear(1, ["certificates", bytes(16), 1, []])
            else:
                first = next(one.party for one in parties if one.party.index == 0)
                await first._peers[1].line.link.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(disturb)
            with trio.fail_after(60), pytest.raises(PeerLost, match="worker"):
                while True:
                    await LogisticRegression().fit(table, target="y", features=FEATURES)
        # A node may hear that a crew is made anew before its worker has lost its colleague, or after; and a
        # run may have ended before either.
        with trio.fail_after(60):
            while {"link": 0, "news": None}[what] not in {left for left, _ in gone.values()}:  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert {left for left, _ in gone.values()} <= {0, None}
        if what == "link":
            model = None
            with trio.fail_after(60):
                while model is None:
                    with contextlib.suppress(PeerLost):
                        model = await LogisticRegression().fit(table, target="y", features=FEATURES)
                    await trio.sleep(0.1)


async def test_no_value_comes_before_a_run_has_begun(monkeypatch):
    """A node sends nothing to a worker that still reads the plan, where no budget would count it."""
    waits, admitted, in_thread = trio.Event(), [], worker.in_thread
    send_to, admit = crew.Task._send_to, worker.Worker.admit

    async def read_late(what, *args):
        if what is worker.read_plan:
            await waits.wait()
        return await in_thread(what, *args)

    async def sending(task, number, parcels):
        waits.set()
        await send_to(task, number, parcels)

    def admitting(self, message, size):
        admitted.append(admit(self, message, size))
        return admitted[-1]

    monkeypatch.setattr(worker, "in_thread", read_late)
    monkeypatch.setattr(crew.Task, "_send_to", sending)
    monkeypatch.setattr(worker.Worker, "admit", admitting)
    async with tercet.open_local(tile_rows=64, workers=1, engine=Engines()) as lake:
        table = await lake.upload(LEFT | {"y": Y}, name="all", key="id", owner="clinic")
        with trio.fail_after(60):
            await LogisticRegression().fit(table, target="y", features=FEATURES)
    assert waits.is_set()
    assert admitted
    assert all(admitted)


async def test_a_worker_that_finds_no_colleague_says_so(monkeypatch):
    """To its node, whose operator need not look for the logs of workers."""
    serve = worker._Colleagues.serve

    async def lonely(node, addresses, **options):
        if node.party.index == 1:
            addresses = ["nowhere", *addresses[1:]]
        await serve(node, addresses, **options)

    take, said = crew.Crew.take, {}

    def taking(self, number, message, payload):
        if message[0] == "lost":
            said[self.index] = from_wire(message[1])
        take(self, number, message, payload)

    monkeypatch.setattr(worker._Colleagues, "serve", lonely)
    monkeypatch.setattr(crew.Crew, "take", taking)
    with pytest.raises(PeerLost, match=r"it (cannot link up|has lost)"):
        async with tercet.open_local(tile_rows=64, workers=1, engine=Engines(), timeout_s=3):
            pass
    assert re.match("it cannot link up: .*nowhere", str(said[1]))


def noted(function, found):
    """The same, which notes for whom it was called."""

    def called(self, *args, **options):
        if self not in found:
            found.append(self)
        return function(self, *args, **options)

    return called


@pytest.mark.parametrize(
    "word",
    [
        [],
        ["certificates"],
        ["certificates", b"short", 1, ["x"]],
        ["certificates", bytes(16), 2, ["x"]],
        ["certificates", bytes(16), 1, ["x"]],
        ["certificates", bytes(16), 1, ["\u00e9" + make_identity("a").certificate_pem]],
        ["certificates", bytes(16), 1, 2 * [make_identity("a").certificate_pem]],
        ["certificates", bytes(16), 1, [make_identity("a").certificate_pem + "-----BEGIN CERTIFICATE-----"]],
        ["certificates", bytes(16), 1, ["x" * (1 << 15)]],
        ["addresses", bytes(16), 3],
        ["addresses", bytes(16), ["x"] * 5000],
        ["addresses", bytes(16), ["10.0.0.1:1\nall is well"]],
        ["addresses", bytes(16), ["\x1b[2J"]],
        ["addresses", bytes(16), ["x" * 400]],
    ],
)
def test_what_no_node_says_of_its_workers_is_refused(word):
    party = Party(0, parties=3, protocol=registry.get("replicated"))
    mine = muster.Muster(party, Tasks(1), "tls")
    with pytest.raises(TercetError):
        mine.hear(1, word)
    assert mine._view() is None


def test_the_states_of_workers(monkeypatch):
    """Each says since when; one that is missing goes on to be so from then on, whatever the reason is now."""
    now = 1000.0
    monkeypatch.setattr(presence.time, "time", lambda: now)
    party = Party(0, parties=3, protocol=registry.get("replicated"))
    node = SimpleNamespace(party=party, clients=Counter(), gate=Gate())
    assert b"tercet_worker" not in generate_latest(registry_of(node)).replace(b"tercet_workers", b"")
    party.presence = workers = Presence(2)
    assert (workers.missing, health(node)["missing_workers"]) == ([0, 1], [0, 1])
    now += 10
    workers.come()
    assert (workers.missing, workers.to_wire()) == ([], [[True, 1010.0, ""]] * 2)
    now += 10
    workers.leave(1, "silent")
    now += 10
    workers.leave(None, "no place")
    assert workers.to_wire() == [[False, 1020.0, "no place"]] * 2
    now += 10
    workers.come()
    workers.leave(1, "silent")
    assert workers.to_wire() == [[False, 1040.0, presence.STARTED_ANEW], [False, 1040.0, "silent"]]
    told = generate_latest(registry_of(node)).decode()
    assert 'tercet_worker_here{worker="1"} 0.0\n' in told
    assert 'tercet_worker_since_seconds{worker="1"} 1040.0\n' in told


async def test_a_node_that_lasts_outlives_its_engine(caplog):
    """Whatever that raises; and it says why there are no workers."""

    class Broken(Tasks):
        async def run(self, configs):
            await trio.lowlevel.checkpoint()
            raise RuntimeError("the cluster has burnt down")

    party = Party(0, parties=1, protocol=registry.get("plain"))
    mine = muster.Muster(party, Broken(1), "tls", lasting=True)
    with trio.move_on_after(1.5):
        await mine.run()
    with pytest.raises(PeerLost, match="without its workers: the cluster has burnt down"):
        party.workers()
    with pytest.raises(RuntimeError, match="burnt down"):
        await muster.Muster(party, Broken(1), "tls").run()


def test_a_party_on_dask():
    """The least there can be: one party, one process; `make scale` has three nodes that last."""
    table = LEFT | {"y": Y}
    with tercet.local(protocol="plain", tile_rows=64, workers=1) as lake:
        whole = lake.upload(table, name="all", key="id", owner="clinic")
        found = LogisticRegression().fit(whole, target="y", features=FEATURES).reveal()
        assert lake.cluster.transport == "tls"
    with tercet.local(protocol="plain") as lake:
        whole = lake.upload(table, name="all", key="id", owner="clinic")
        expected = LogisticRegression().fit(whole, target="y", features=FEATURES).reveal()
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=5e-5)


class Standstill:
    """A client of Dask in whose process at the first place nothing that is submitted ever comes back."""

    def __init__(self, *, ends=False):
        self.ends, self.places = ends, {f"tls://10.0.0.{host}:1": 1 for host in (2, 3, 4)}
        self.tried, self.cancelled, self.scheduler = [], 0, SimpleNamespace(address="tls://10.0.0.1:1")

    def wait_for_workers(self, *_, **__):
        pass

    def ncores(self):
        return self.places

    def submit(self, *_, workers, **__):
        self.tried += workers
        return self

    def result(self, **_):
        if self.tried[-2] == "tls://10.0.0.2:1":
            if self.ends:
                del self.places["tls://10.0.0.2:1"]
            raise TimeoutError

    def cancel(self, *_, **__):
        self.cancelled += 1


@pytest.fixture
def configs():
    """Of two workers."""
    given = {"index": 1, "parties": 3, "protocol": "replicated", "workers": 2, "node": "", "transport": "tls"}
    return [WorkerConfig(number=number, **given) for number in range(2)]


def test_a_process_that_ends_as_a_worker_starts_is_not_waited_for(configs):
    made, client = Dask(2, "tls://10.0.0.1:1", DaskTls("", "", "")), Standstill(ends=True)
    made._client = client
    with pytest.raises(TransportError, match=r"worker 0 of party 1 did not start: .* has ended"):
        made._start(configs)
    made._start(configs)


def test_a_place_that_stands_still_is_named_and_left_out(configs):
    """Where there are others: else nothing but a restart of that process helps."""
    made, client = Dask(2, "tls://10.0.0.1:1", DaskTls("", "", "")), Standstill()
    made._client = client
    with pytest.raises(TransportError, match=r"worker 0 of party 1 .* at tls://10\.0\.0\.2:1; it stands"):
        made._start(configs)
    assert client.cancelled == 1
    made._start(configs)
    assert client.tried[2:] == ["tls://10.0.0.3:1", "tls://10.0.0.4:1"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scheduler": "tcp://10.0.0.5:8786"}, "has to be encrypted"),
        ({"scheduler": "tls://10.0.0.5:8786"}, "has to be encrypted"),
        ({"ca": "ca.pem"}, "all of ca, certificate and key"),
        ({"shceduler": "tls://10.0.0.5:8786"}, "which means nothing"),
        ({"scheduler": 8786}, "is text"),
    ],
)
def test_dask_is_configured_safely_or_not_at_all(options, says):
    with pytest.raises(ConfigError, match=says):
        engine("dask").make(2, options, Path())


def test_schedulers_here_and_over_tls(tmp_path):
    """Files are relative to node.toml, as all in it are."""
    files = {"ca": "a", "certificate": "b", "key": "c"}
    with pytest.raises(ConfigError, match=r"names .*/a, which is no file"):
        Dask.make(3, files, tmp_path)
    for name in "abc":
        (tmp_path / name).touch()
    made = Dask.make(3, {"scheduler": "tls://10.0.0.5:8786", **files}, tmp_path)
    assert (made.workers, made.tls) == (3, DaskTls(*(str(tmp_path / name) for name in "abc")))
    assert Dask.make(1, {"scheduler": "tcp://127.0.0.1:8786"}, tmp_path).tls is None
    with pytest.raises(ConfigError, match="there is no engine 'dusk'; did you mean 'dask'"):
        engine("dusk")
