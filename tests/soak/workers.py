"""Workers that are lost: `python -m tests.soak.workers`. TERCET_LOSSES (30) of them, at random moments.

Three nodes that last have two workers each on Dask clusters of their own. Nodes, schedulers and workers live
in network namespaces, so that a worker can be cut off from its node, from workers of another party, or from
Dask's scheduler alone. While an analyst joins, fits and evaluates, a worker is killed, stopped or cut off.
What she gets is right, or a sentence that names a worker, or whose workers are missing, in bounded time. Then
all comes together again. At the end nothing is left with Dask, no process holds more than before, and no
stream was drawn twice. What was counted is printed as JSON; code 1 if anything was wrong.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import trio

from tercet import Allow
from tercet.client.client import Client
from tercet.client.lake import AsyncLake, open_lake, open_local
from tercet.errors import ConvergenceWarning, TercetError
from tercet.ml import LogisticRegression
from tercet.transports import make_identity
from tests.nodes.network import Namespaces
from tests.nodes.on_disk import NodesOnDisk, set_up
from tests.soak import streams
from tests.soak.record import Record, WrongResultError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
PARTIES, WORKERS = 3, 2
PORT = 8786
TIMEOUT_S, PATIENCE_S = 4.0, 60.0
BOUND_S = 240.0
"""How long an attempt may take with a fault in it, and how long until all workers are there again."""
MOST_NEW_FILES, MOST_NEW_THREADS = 10, 6
NAMED = re.compile(r"worker \d of party \d|the workers of party \d|party \d is without its workers")
ROWS = 1500
RNG = np.random.default_rng(6)
AGE = RNG.normal(50, 10, ROWS)
PEOPLE = {"id": np.arange(ROWS), "age": AGE, "sick": 0.1 * (AGE - 50) + RNG.logistic(size=ROWS) > 0}
COSTS = {"id": np.arange(ROWS)[::-1] + 100, "cost": RNG.normal(1, 0.5, ROWS)}
OPTIONS = {"solver": "gd", "tol": 1e-6, "max_iter": 12, "learning_rate": 0.1}
FEATURES = ["age", "cost"]


async def study(lake: AsyncLake) -> list[float]:
    """A join, a fit and an evaluation."""
    both = await (await lake.table("people")).join(await lake.table("costs"), on="id")
    model = await LogisticRegression(**OPTIONS).fit(both, target="sick", features=FEATURES)
    revealed, scores = await model.reveal(), await (await model.evaluate(both)).reveal()
    return [*revealed.coef_[0], *revealed.intercept_, scores.accuracy, scores.roc_auc]


async def upload(lake: AsyncLake, name: str, columns: dict[str, Any], owner: str) -> None:
    await lake.upload(columns, name=name, key="id", owner=owner, allow=Allow(plans="any"))


@attrs.define(eq=False)
class Clusters:
    """A Dask scheduler for each party, and its workers, each in a namespace of its own."""

    nodes: NodesOnDisk
    network: Namespaces
    processes: dict[int, subprocess.Popen[bytes]] = attrs.field(factory=dict)
    """Schedulers, and what starts workers anew, by namespace."""

    @staticmethod
    def scheduler(party: int) -> int:
        """The namespace of a party's scheduler."""
        return PARTIES + party

    @staticmethod
    def worker(party: int, place: int) -> int:
        """The namespace of one of its workers."""
        return 2 * PARTIES + WORKERS * party + place

    def address(self, party: int) -> str:
        """Where its scheduler listens."""
        return f"tls://{self.network.host(self.scheduler(party))}:{PORT}"

    def start(self) -> None:
        """Start all, and tell the nodes."""
        for party in range(PARTIES):
            home = self.nodes.root / f"n{party}"
            identity = make_identity(f"dask of {party}")
            (home / "dask.pem").write_text(identity.certificate_pem)
            (home / "dask.key").write_text(identity.key_pem)
            files = 'ca = "dask.pem"\ncertificate = "dask.pem"\nkey = "dask.key"'
            self.nodes.configure(party, engine="dask", workers=WORKERS, timeout_s=TIMEOUT_S, grace_s=5.0)
            with (home / "node.toml").open("a") as file:
                file.write(f'\n[dask]\nscheduler = "{self.address(party)}"\n{files}\n')
            self._run(self.scheduler(party), home, "scheduler", "--port", PORT)
            for place in range(WORKERS):
                mine = ["--nthreads", 1, "--memory-limit", 0, "--local-directory", home / f"dask-{place}"]
                preload = ["--preload", "tests.soak.streams", "--name", f"place-{place}"]
                self._run(self.worker(party, place), home, "worker", self.address(party), *mine, *preload)

    def _run(self, space: int, home: Path, what: str, *args: object) -> None:
        command = [*self.network.within(space), sys.executable, "-m", f"distributed.cli.dask_{what}"]
        files = [
            f"--tls-ca-file={home}/dask.pem",
            f"--tls-cert={home}/dask.pem",
            f"--tls-key={home}/dask.key",
        ]
        command += [*map(str, args), "--host", self.network.host(space), "--no-dashboard", *files]
        with (home / "dask.log").open("ab") as log:
            self.processes[space] = subprocess.Popen(command, stderr=log, stdout=log, cwd=ROOT)

    def pid(self, party: int, place: int) -> int | None:
        """The process that a worker is a thread of, if it is there."""
        parent = self.processes[self.worker(party, place)].pid
        found = [pid for pid in children(parent) if b"spawn_main" in read(f"/proc/{pid}/cmdline")]
        return found[0] if len(found) == 1 else None

    def held(self) -> Iterator[str]:
        """What schedulers know of tasks."""
        import distributed

        dask: Any = distributed
        for party in range(PARTIES):
            pem, key = (self.nodes.root / f"n{party}" / f"dask.{kind}" for kind in ("pem", "key"))
            files = {"tls_ca_file": str(pem), "tls_client_cert": str(pem), "tls_client_key": str(key)}
            security = dask.Security(**files, require_encryption=True)
            with dask.Client(self.address(party), security=security, set_as_default=False) as client:
                for task in client.run_on_scheduler(tasks):
                    yield f"Dask of party {party} still has the task {task}"

    def close(self) -> None:
        """End all of them."""
        for process in self.processes.values():
            for pid in [*children(process.pid), process.pid]:
                with_signal(pid, signal.SIGKILL)
            process.wait()


def tasks(dask_scheduler: Any) -> list[str]:
    """All tasks that a scheduler knows of."""
    return [str(key) for key in dask_scheduler.tasks]


def read(path: Path | str) -> bytes:
    """What a file of /proc has in it; nothing if the process has gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have."""
    listed = [read(file).split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    found = [int(child) for some in listed for child in some]
    return [*found, *(more for one in found for more in children(one))]


def with_signal(pid: int, number: int) -> bool:
    """Send a signal, if the process is there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


@attrs.define(eq=False)
class Losses:
    """Losses of workers, one in each attempt at the study."""

    nodes: NodesOnDisk
    clusters: Clusters
    seed: int
    record: Record = attrs.field(factory=Record)
    expected: Sequence[float] = ()

    async def run(self, losses: int) -> None:
        """Lose so many workers, one after the other; then look at what is left."""
        async with open_local(protocol="plain") as lake:
            await upload(lake, "people", PEOPLE, "hospital")
            await upload(lake, "costs", COSTS, "insurer")
            self.expected = await study(lake)
        await self._ready()
        for name, columns, owner in (("people", PEOPLE, "hospital"), ("costs", COSTS, "insurer")):
            async with open_lake(self.nodes.cluster, identity=self.nodes.key(owner)) as lake:
                await upload(lake, name, columns, owner)
        await self._attempt("undisturbed")  # which takes longer, as all is new
        began = time.monotonic()
        await self._attempt("undisturbed")
        seconds = time.monotonic() - began
        before = self._held()
        for number in range(losses):
            await self._lose(number, seconds)
        await self._attempt("undisturbed")
        self._require_nothing_left(before)

    async def _lose(self, number: int, seconds: float) -> None:
        rng = random.Random(f"{self.seed} loss {number}")
        kind = rng.choice(list(FAULTS))
        party, place, after = rng.randrange(PARTIES), rng.randrange(WORKERS), rng.uniform(0, seconds)
        logger.info("%d: %s, of party %d at %d, after %.2f s", number, kind, party, place, after)
        done = trio.Event()

        async def fault() -> None:
            await trio.sleep(after)
            await FAULTS[kind](self, party, place, rng, done)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fault)
            await self._attempt(kind)
            done.set()
        await self._ready()

    async def _attempt(self, kind: str) -> None:
        """The study, once: right, or a sentence that names workers."""
        began, ended = time.monotonic(), "hung"
        with trio.move_on_after(BOUND_S):
            try:
                async with open_lake(
                    self.nodes.cluster, identity=self.nodes.key("ann"), patience_s=PATIENCE_S
                ) as lake:
                    found = await study(lake)
                if not np.allclose(found, self.expected, atol=2e-3):
                    raise WrongResultError(f"{found} where {self.expected} is right")
                ended = "right"
            except TercetError as error:
                ended = type(error).__name__
                self.record.reasons[str(error)] += 1
                if kind == "undisturbed" or not NAMED.search(str(error)):
                    self.record.complain(f"{kind}: {ended}: {error}")
            except WrongResultError as error:
                ended = "wrong"
                self.record.complain(f"{kind}: {error}")
        if ended == "hung":
            self.record.complain(f"{kind}: an attempt took more than {BOUND_S:g} s")
        self.record.outcomes[kind][ended] += 1
        self.record.seconds[kind].append(time.monotonic() - began)
        logger.info("%s: %s after %.1f s", kind, ended, time.monotonic() - began)

    async def _ready(self) -> None:
        """Wait until all nodes have all their workers again."""
        with trio.move_on_after(BOUND_S) as scope:
            while True:
                told = [await trio.to_thread.run_sync(self.nodes.health, one) for one in range(PARTIES)]
                if all(one and one["ready"] and one["workers"] == WORKERS for one in told):
                    break
                await trio.sleep(0.2)
        if scope.cancelled_caught:
            self.record.complain(f"workers were not there again after {BOUND_S:g} s: {told}")

    # -- faults ----------------------------------------------------------------------------------------------

    async def kill(self, party: int, place: int, *_: object) -> None:
        """As when it runs out of memory; Dask starts it anew."""
        self._signal(party, place, signal.SIGKILL)
        await trio.lowlevel.checkpoint()

    async def stop(self, party: int, place: int, _: random.Random, done: trio.Event) -> None:
        """It stands still until somebody looks after it."""
        pid = self._signal(party, place, signal.SIGSTOP)
        await done.wait()
        if pid:
            with_signal(pid, signal.SIGKILL)

    async def stop_for_a_while(self, party: int, place: int, rng: random.Random, _: trio.Event) -> None:
        """It stands still for less or more than others wait, and goes on."""
        pid = self._signal(party, place, signal.SIGSTOP)
        await trio.sleep(rng.uniform(0.1, 3) * TIMEOUT_S)
        if pid:
            with_signal(pid, signal.SIGCONT)

    async def cut_from_node(self, party: int, place: int, rng: random.Random, _: trio.Event) -> None:
        """Nothing comes or goes between it and its node."""
        await self._cut(self.clusters.worker(party, place), [party], rng)

    async def cut_from_worker(self, party: int, place: int, rng: random.Random, _: trio.Event) -> None:
        """Nothing comes or goes between it and the workers of another party."""
        other = (party + rng.randrange(1, PARTIES)) % PARTIES
        theirs = [self.clusters.worker(other, one) for one in range(WORKERS)]  # one of them has its number
        await self._cut(self.clusters.worker(party, place), theirs, rng)

    async def cut_from_scheduler(self, party: int, place: int, rng: random.Random, _: trio.Event) -> None:
        """Nothing comes or goes between it and Dask's scheduler."""
        await self._cut(self.clusters.worker(party, place), [self.clusters.scheduler(party)], rng)

    async def _cut(self, one: int, others: Sequence[int], rng: random.Random) -> None:
        for other in others:
            self.clusters.network.part(one, other)
        self.record.faults["cut off"] += 1
        await trio.sleep(rng.uniform(0.3, 3) * TIMEOUT_S)
        for other in others:
            self.clusters.network.rejoin(one, other)

    def _signal(self, party: int, place: int, number: int) -> int | None:
        """Send a worker a signal; the process, unless it is being started anew."""
        pid = self.clusters.pid(party, place)
        if pid is None or not with_signal(pid, number):
            return None
        self.record.faults[signal.Signals(number).name] += 1
        return pid

    # -- the verdict -----------------------------------------------------------------------------------------

    def _held(self) -> dict[int, tuple[int, int]]:
        """Files and threads of all processes, by number."""
        started = [*self.clusters.processes.values(), *self.nodes.processes.values()]
        pids = {pid for process in started for pid in [process.pid, *children(process.pid)]}
        return {pid: (count(pid, "fd"), count(pid, "task")) for pid in pids}

    def _require_nothing_left(self, before: dict[int, tuple[int, int]]) -> None:
        after = self._held()
        if len(after) != len(before):
            self.record.complain(f"there were {len(before)} processes, and are {len(after)}")
        for pid in before.keys() & after.keys():
            (files, threads), (more_files, more_threads) = before[pid], after[pid]
            if more_files > files + MOST_NEW_FILES or more_threads > threads + MOST_NEW_THREADS:
                what = read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode()
                self.record.complain(f"{what} had {before[pid]} files and threads, and has {after[pid]}")
        self.record.complaints += self.clusters.held()
        twice = [name for name, times in streams.drawn(self.nodes.root / "streams").items() if times > 1]
        if twice:
            self.record.complain(f"{len(twice)} streams were drawn twice, as {twice[0]}")
        for index in range(PARTIES):
            for line in (self.nodes.root / f"n{index}" / "log").read_text().splitlines():
                if '"traceback"' in line:
                    self.record.complain(f"n{index} logged {line[-2000:]}")


def count(pid: int, what: str) -> int:
    """How many files or tasks a process has."""
    return len(list(Path(f"/proc/{pid}/{what}").glob("*")))


FAULTS: dict[str, Callable[[Losses, int, int, random.Random, trio.Event], Awaitable[None]]] = {
    "killed": Losses.kill,
    "stopped": Losses.stop,
    "stopped for a while": Losses.stop_for_a_while,
    "cut off from its node": Losses.cut_from_node,
    "cut off from a worker": Losses.cut_from_worker,
    "cut off from the scheduler": Losses.cut_from_scheduler,
}


def main() -> int:
    """Lose workers; the exit code."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    losses = int(os.environ.get("TERCET_LOSSES", "30"))
    seed = int(os.environ.get("TERCET_SOAK_SEED", str(time.time_ns() % 10**6)))
    logger.info("seed %d", seed)
    warnings.simplefilter("ignore", ConvergenceWarning)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    faulthandler.dump_traceback_later(2 * BOUND_S * (losses + 4), exit=True)
    root = Path(tempfile.mkdtemp(prefix="tercet-losses-"))
    (root / "streams").mkdir()
    os.environ |= {streams.DIRECTORY: str(root / "streams"), "PYTHONPATH": str(ROOT)}
    try:
        network = Namespaces.make(2 * PARTIES + WORKERS * PARTIES)
    except OSError as error:
        sys.stdout.write(
            f"no worker was lost: they live in network namespaces, which cannot be had ({error})\n"
        )
        return 0
    try:
        nodes = set_up(root, network)
        program = ("-m", "tests.soak.streams", "node", "node.toml")
        nodes.programs = dict.fromkeys(range(PARTIES), program)
        for function in (Client.__init__, Client.connect.__func__):
            function.__kwdefaults__["tile_rows"] = streams.TILE_ROWS  # as the nodes have
        clusters = Clusters(nodes, network)
        soak = Losses(nodes, clusters, seed)
        try:
            clusters.start()
            nodes.start(*range(PARTIES))
            trio.run(soak.run, losses)
            for index in range(PARTIES):
                if code := nodes.stop(index):
                    soak.record.complain(f"n{index} ended with code {code} when it was told to stop")
        finally:
            nodes.close()
            clusters.close()
    finally:
        network.close()
    sys.stdout.write(json.dumps({"seed": seed, **soak.record.summary()}, indent=2) + "\n")
    if soak.record.complaints:
        logger.error("workers were lost badly; %s has the nodes' files and logs", root)
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
