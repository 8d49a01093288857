"""Nodes whose workers read and write stored values by themselves, and what a storage may do to them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter

import attrs
import numpy as np
import pytest
import trio

import tercet
from tercet import Allow
from tercet.actors.line import Line
from tercet.actors.node import Node
from tercet.actors.parts import Parcel
from tercet.actors.values import FiledTiles
from tercet.client.lake import open_lake
from tercet.errors import StorageError
from tercet.ml import LogisticRegression
from tercet.nodes import program, requests
from tercet.storage import share_files
from tercet.storage.sealed import SealedReader, SealedWriter
from tercet.testing.engines import Tasks
from tests.attacks.lake import TIMEOUT_S
from tests.nodes import on_disk

TILE_ROWS, ROWS = 64, 300
RNG = np.random.default_rng(4)
AGE, DOSE = RNG.normal(50, 10, ROWS), RNG.normal(size=ROWS)
SICK = 0.1 * (AGE - 50) + RNG.logistic(size=ROWS) > 0
AGES = {"id": np.arange(ROWS), "age": AGE, "sick": SICK}
STEPS = {"solver": "gd", "max_iter": 3}
DOSES = {"id": np.arange(ROWS)[::-1], "dose": DOSE[::-1]}

pytestmark = pytest.mark.filterwarnings("ignore::tercet.errors.ConvergenceWarning")


class Lasting:
    """Three lasting nodes in this process, whose storage is a directory that their workers reach too."""

    def __init__(self, made, root):
        self.made, self.root = made, root
        self.nodes: list[Node] = []
        self.engines: list[Tasks] = []

    def place(self, index):
        return self.root / f"stored{index}"

    def files(self, index):
        """The sealed files of a node, largest first."""
        return sorted(self.place(index).iterdir(), key=lambda path: -path.stat().st_size)

    @contextlib.asynccontextmanager
    async def run(self, workers):
        """Lakes of the hospital and of ann, while nodes run with so many workers."""
        for index in range(3):
            self.made.configure(index, workers=workers)
        self.engines.clear()
        async with trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:
            self.nodes = [
                await nursery.start(
                    program.serve, program.Settings.read(self.made.root / f"n{index}" / "node.toml")
                )
                for index in range(3)
            ]
            lakes = []
            for name in ("hospital", "ann"):
                opened = open_lake(self.made.cluster, identity=self.made.key(name), timeout_s=TIMEOUT_S)
                lakes.append(await stack.enter_async_context(opened))
                lakes[-1].cluster.client.tile_rows = TILE_ROWS
            with trio.fail_after(60):
                while not all(node.party.is_complete for node in self.nodes):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            yield lakes
            nursery.cancel_scope.cancel()


@pytest.fixture
def lasting(tmp_path, monkeypatch):
    """Three nodes at rest, tiles of few rows, and workers that are tasks of their nodes' loop."""

    async def for_ever(*_):
        await trio.sleep_forever()

    def engine_of(file):
        found.engines.append(Tasks(file.workers))
        return found.engines[-1]

    monkeypatch.setattr(program, "_until_told", for_ever)
    monkeypatch.setattr(program, "engine_of", engine_of)
    monkeypatch.setattr(requests, "TILE_ROWS", TILE_ROWS)
    made = on_disk.set_up(tmp_path / "nodes")
    found = Lasting(made, tmp_path)
    for index in range(3):
        storage = found.place(index).as_uri()
        made.configure(index, timeout_s=TIMEOUT_S, metrics="", engine="tasks", workers=1, storage=storage)
    yield found
    made.close()


@pytest.fixture
def handed(monkeypatch):
    """What nodes hand to workers of stored values: how often where they lie, and how often their tiles."""
    found, send = Counter(), Line.send

    async def noted(line, message, buffers=()):
        found[message[0]] += message[0] in ("stored", "written")
        await send(line, message, buffers)

    def to_wire(parcel):
        found["input"] += isinstance(parcel.data, FiledTiles)
        return made(parcel)

    made = Parcel.to_wire
    monkeypatch.setattr(Line, "send", noted)
    monkeypatch.setattr(Parcel, "to_wire", to_wire)
    return found


async def upload(lake):
    allow = Allow(plans="any")
    await lake.upload(AGES, name="ages", key="id", owner="hospital", allow=allow)
    await lake.upload(DOSES, name="doses", key="id", owner="hospital", allow=allow)


async def coefficient(lake):
    """That of the age, of a fit whose tiles workers read in each step."""
    fitted = await LogisticRegression(**STEPS).fit(await lake.table("ages"), target="sick")
    return (await fitted.reveal()).coef_[0, 0]


async def joined(lake):
    """Means of columns of both tables, over the rows of their join."""
    both = await (await lake.table("ages")).join(await lake.table("doses"), on="id")
    told = await both.describe(["age", "dose"], statistics=["mean"])
    return told["age"]["mean"], told["dose"]["mean"]


async def test_workers_read_what_they_need_by_themselves(lasting, handed):
    """Also after a restart with more of them, who read other tiles of the same files; then all is deleted."""
    async with tercet.open_local(protocol="plain") as lake:
        table = await lake.upload(AGES, name="ages", key="id", owner="hospital")
        alone = await (await LogisticRegression(**STEPS).fit(table, target="sick")).reveal()
    async with lasting.run(workers=2) as (hospital, ann):
        await upload(hospital)
        uploaded = {path for index in range(3) for path in lasting.files(index)}
        np.testing.assert_allclose(await coefficient(ann), alone.coef_[0, 0], atol=5e-4)
        assert handed["stored"]
        assert not handed["input"]
    async with lasting.run(workers=3) as (hospital, ann):
        np.testing.assert_allclose(await joined(ann), (AGE.mean(), DOSE.mean()), atol=1e-3)
        assert not handed["input"]
        for name in ("ages", "doses"):
            await hospital.drop(name)
        assert uploaded
        assert not [path for path in uploaded if path.exists()]


def flip(path, other):
    sealed = bytearray(path.read_bytes())
    sealed[len(sealed) // 2] ^= 1
    path.write_bytes(sealed)


def swap(path, other):
    path.write_bytes(other)


def cut_off(path, other):
    path.write_bytes(path.read_bytes()[:-100])


def lose(path, other):
    path.unlink()


async def older(lake):
    """A table with a column that workers make and write."""
    table = await lake.table("ages")
    return await table.assign(older=table["age"] + 7.5)


async def mean(table):
    return (await table.describe(["older"], statistics=["mean"]))["older"]["mean"]


async def test_workers_write_what_they_have_made(lasting, handed):
    """Each its tiles, and others read them after a restart; what was changed is found."""
    expected = pytest.approx(AGE.mean() + 7.5, abs=1e-3)
    async with lasting.run(workers=3) as (hospital, ann):
        await upload(hospital)
        made = await older(ann)
        assert handed["written"] == 9  # by three workers of each party
        assert await mean(made) == expected
    async with lasting.run(workers=2) as (_, ann):
        made = attrs.evolve(made, lake=ann)
        assert await mean(made) == expected
        assert not handed["input"]
        first, *_ = parts = [path for path in lasting.files(2) if "-" in path.name]
        assert len(parts) == 3
        flip(first, b"")
        with trio.fail_after(60), pytest.raises(StorageError, match=f"party 2: .*{first.name} is damaged"):
            await mean(made)


@pytest.mark.parametrize("when", ["write", "commit"])
async def test_a_storage_that_is_full_leaves_nothing_of_a_run(lasting, monkeypatch, when):
    """Neither with the party whose storage it is, nor with others, whose workers have written theirs."""
    method = {"write": "_write", "commit": "commit"}[when]
    act = getattr(SealedWriter, method)

    def fail(writer, *args):
        if "stored1" in writer._temporary and "-" in writer._name:
            raise StorageError("no space is left in the storage")
        return act(writer, *args)

    async with lasting.run(workers=2) as (hospital, ann):
        await upload(hospital)
        before = [set(lasting.files(index)) for index in range(3)]
        monkeypatch.setattr(SealedWriter, method, fail)
        with trio.fail_after(60), pytest.raises(StorageError, match=r"party 1: .*no space is left"):
            await older(ann)
        with trio.fail_after(60):
            while [set(lasting.files(index)) for index in range(3)] != before:  # noqa: ASYNC110
                await trio.sleep(0.02)
        monkeypatch.undo()
        assert all(node.party.is_complete for node in lasting.nodes)


async def test_a_lost_worker_leaves_nothing_of_a_run(lasting, monkeypatch):
    """What it, and those who were at work with it, had written is removed: one head and two parts are new."""
    written, lost = trio.Event(), threading.Event()
    token, commit = trio.lowlevel.current_trio_token(), SealedWriter.commit

    def held(writer):
        if "-" in writer._name and not writer._name.endswith("0000"):
            lost.wait(20)
            return commit(writer)
        size = commit(writer)
        if "stored1" in writer._temporary and "-" in writer._name:
            token.run_sync_soon(written.set)
        return size

    async with lasting.run(workers=2) as (hospital, ann):
        await upload(hospital)
        before = [len(lasting.files(index)) for index in range(3)]
        monkeypatch.setattr(SealedWriter, "commit", held)

        async def lose():
            await written.wait()
            lasting.engines[1].scopes[0].cancel()
            await trio.sleep(0.1)
            lost.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            with trio.fail_after(60):
                made = await older(ann)  # a job, which goes on with the next crew
        assert lost.is_set()
        assert await mean(made) == pytest.approx(AGE.mean() + 7.5, abs=1e-3)

        with trio.fail_after(60):
            while [len(lasting.files(index)) - before[index] for index in range(3)] != [3, 3, 3]:  # noqa: ASYNC110
                await trio.sleep(0.02)


async def test_files_that_are_not_as_they_were_written_end_the_run(lasting):
    """With a sentence that says which table, at which node; once they are put back, the next run is right."""
    async with lasting.run(workers=2) as (hospital, ann):
        await upload(hospital)
        right = await coefficient(ann)
        files = lasting.files(1)
        before = {path: path.read_bytes() for path in files}
        for spoil, says in ((flip, "damaged"), (swap, "damaged"), (cut_off, "damaged"), (lose, "missing")):
            for path, other in zip(files, [*files[1:], files[0]], strict=True):
                spoil(path, before[other])
            with (
                trio.fail_after(60),
                pytest.raises(StorageError, match=f"party 1: .*table 'ages': .* is {says}"),
            ):
                await coefficient(ann)
            for path, sealed in before.items():
                path.write_bytes(sealed)
        assert await coefficient(ann) == pytest.approx(right, abs=5e-4)


async def test_a_storage_that_hangs_ends_the_run(lasting, monkeypatch):
    monkeypatch.setattr(share_files, "PATIENCE_S", 0.5)
    fill, hangs, goes_on = SealedReader.fill, threading.Event(), threading.Event()

    def slow(reader, into, start):
        if hangs.is_set():
            goes_on.wait(60)
        fill(reader, into, start)

    monkeypatch.setattr(SealedReader, "fill", slow)
    async with lasting.run(workers=2) as (hospital, ann):
        await upload(hospital)
        hangs.set()
        try:
            with trio.fail_after(60), pytest.raises(StorageError, match=r"table 'ages': .*has not answered"):
                await coefficient(ann)
        finally:
            hangs.clear()
            goes_on.set()
        await coefficient(ann)
