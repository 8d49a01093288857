"""Years of a lake in two minutes: keys, members, an address and a disk change, while plans run.

Nodes are programs with directories and, where the machine allows it, networks of their own; what is done is
done with the command, as operators do it. No node is started again but the one concerned, no result is wrong,
nothing is lost, and all audit logs stay whole. How lakes of earlier releases are taken over is in
`test_earlier_releases`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time

import attrs
import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.nodes.program import SWEEP_S
from tests.nodes import on_disk
from tests.nodes.test_whole_lake import apart

pytestmark = pytest.mark.scale

AGES = {"id": np.arange(300), "age": np.linspace(20, 80, 300)}
KEPT = ("catalog.sqlite", "audit.log", "data")


@attrs.define
class Lake:
    """Nodes with members at work: means that they were told, and errors."""

    nodes: on_disk.NodesOnDisk
    told: list[float] = attrs.field(factory=list)
    errors: list[Exception] = attrs.field(factory=list)
    number: int = 1

    def work(self, member, stop):
        """Ask for a mean again and again, over links that last as long as they do."""
        while not stop.is_set():
            try:
                with tercet.connect(self.nodes.cluster, identity=self.nodes.key(member)) as lake:
                    while not stop.is_set():
                        self.told.append(lake.table("ages").describe(statistics=["mean"])["age"]["mean"])
            except tercet.TercetError as error:
                self.errors.append(error)
                stop.wait(0.2)

    def goes_on(self):
        """Plans run now, to their end."""
        start = len(self.told)
        self.nodes.wait_for(lambda: len(self.told) >= start + 6, "at work")

    def pids(self, *without):
        return {index: one.pid for index, one in self.nodes.processes.items() if index not in without}

    def command(self, *words, code=0):
        return on_disk.tercet(*words, cwd=self.nodes.root, code=code)

    def at(self, index, *words):
        """Run the command on a node's machine."""
        where = [*self.nodes.network.within(index), sys.executable, "-m", "tercet", *words]
        done = subprocess.run(where, cwd=self.nodes.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def amend(self, *words):
        """Make the list that follows, have the operators of two nodes sign it, and pass it on."""
        self.number += 1
        file = f"number-{self.number}.toml"
        self.command("amend", file, *words, "--at", "now")
        for signer in ("n0", "n1"):
            self.command("amend", file, "--sign", f"{signer}/node.key", "--yes")
        return self.command("adopt", file, "--identity", "olga.key")

    def adopted(self):
        """All nodes go by the latest list."""
        text = f"number {self.number} of cluster.toml"
        nodes = self.nodes
        nodes.wait_for(
            lambda: all(any(text in line["message"] for line in nodes.log(index)) for index in range(3)),
            "gone over",
        )


@pytest.fixture
def lake(tmp_path):
    with apart(tmp_path, on_disk.set_up) as nodes:
        nodes.start(0, 1, 2)
        nodes.wait_until_ready()
        for owner in ("hospital", "insurer"):
            with tercet.connect(nodes.cluster, identity=nodes.key(owner)) as lake:
                name = "ages" if owner == "hospital" else "costs"
                lake.upload(AGES, name=name, key="id", owner=owner, allow=Allow(plans="any"))
        yield Lake(nodes)


@contextlib.contextmanager
def at_work(lake, *members):
    stop = threading.Event()
    threads = [threading.Thread(target=lake.work, args=(member, stop)) for member in members]
    for thread in threads:
        thread.start()
    try:
        lake.goes_on()
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(90)
    assert not any(thread.is_alive() for thread in threads)


def test_a_lake_is_kept_for_years(lake):
    nodes, root = lake.nodes, lake.nodes.root
    with at_work(lake, "ann", "hospital"):
        before = lake.pids()

        # A node's key and a member's are renewed.
        lake.command("renew", "n2/node.toml")
        lake.command("renew", "ann.key")
        lake.amend("n2/public.toml", "ann.public.toml")
        lake.adopted()
        nodes.wait_until_ready()
        lake.goes_on()

        # One member comes, another one goes.
        lake.command("init", "--name", "zoe", "--role", "analyst")
        lake.amend("zoe.public.toml", "--remove", "insurer")
        lake.adopted()
        lake.goes_on()
        with tercet.connect(nodes.cluster, identity=nodes.key("zoe")) as newcomer:
            assert newcomer.table("ages").describe(statistics=["mean"])["age"]["mean"] == lake.told[0]
        with pytest.raises(tercet.TercetError):
            tercet.connect(nodes.cluster, identity=nodes.key("insurer")).tables()
        assert lake.pids() == before, "no node was started again"

        # A node moves.
        host, port = nodes.network.addresses[1].split(":")
        moved = f"{host}:{int(port) + 1}"
        lake.amend("--move", f"n1={moved}")
        nodes.configure(1, listen=moved)
        nodes.stop(1)
        nodes.start(1)
        lake.adopted()
        nodes.wait_until_ready()
        lake.goes_on()
        assert lake.pids(1) == {index: before[index] for index in (0, 2)}

        # A node's disk is lost, and what was saved of it is put back.
        lake.at(0, "backup", "n0/node.toml", "saved")
        assert "n0" in lake.at(0, "backup", "--check", "saved")
        others = lake.pids(0)
        time.sleep(SWEEP_S + 5)  # until n0 has told its peers that its audit log has gone on
        nodes.stop(0)
        for name in KEPT:
            there = root / "n0" / name
            shutil.rmtree(there) if there.is_dir() else there.unlink()
        lake.at(0, "restore", "saved", "n0/node.toml")
        nodes.start(0)
        nodes.wait_until_ready()
        lake.goes_on()
        assert lake.pids(0) == others
        nodes.wait_for(
            lambda: any("of its audit log" in line["message"] for line in nodes.log(1)),
            "noticed by peers",
        )
        assert "n0 came back" in (told := lake.command("check", "--identity", "olga.key", code=1)), told
    assert len(set(lake.told)) == 1
    assert lake.told[0] == pytest.approx(AGES["age"].mean(), abs=1e-3)
    with tercet.connect(nodes.cluster, identity=nodes.key("ann")) as analyst:
        assert {one.name for one in analyst.tables()} == {"ages", "costs"}
    told = lake.command("audit", "--verify", "--identity", "aud.key")
    assert told.count("whole; head") == 3
