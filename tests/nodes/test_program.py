"""Nodes as programs: reached over TLS, stopped by signals, found again after a loss."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import trio
from typer.testing import CliRunner

import tercet
from tercet.actors.node import Node
from tercet.actors.party import Party
from tercet.actors.scratch import KEEP_MEMORY
from tercet.cli import app
from tercet.errors import ConfigError, PeerLost, StorageError, TransportError
from tercet.members.node_file import NodeFile
from tercet.nodes import program
from tercet.nodes.metrics import serve_metrics
from tercet.nodes.program import Settings
from tercet.nodes.setup import make_member
from tercet.nodes.vault import Vault
from tercet.protocols.plain import Plain
from tercet.transports import Shaping
from tercet.transports.memory import MemoryTransport

LEFT = {"id": np.arange(100), "age": np.linspace(20, 80, 100)}
RIGHT = {"id": np.arange(50, 150), "cost": np.linspace(-1, 1, 100)}


def join_and_reveal(nodes, member="ann"):
    with tercet.connect(nodes.cluster, identity=nodes.key(member)) as lake:
        left = lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = lake.upload(RIGHT, name="right", key="id", owner="insurer")
        joined = left.join(right, on="id")
        np.testing.assert_allclose(np.sort(joined.reveal("age")["age"]), LEFT["age"][50:], atol=1e-3)


@pytest.mark.smoke
def test_the_same_lake_as_a_local_one(nodes):
    join_and_reveal(nodes)


@pytest.mark.smoke
def test_check_finds_nothing(nodes, command):
    told = command("check", "--identity", "ann.key", cwd=nodes.root)
    assert told.count("ok ") == 4
    assert "BAD" not in told


@pytest.mark.parametrize("usual", ["error", "info"])
async def test_the_log_says_more_when_its_operator_wants_it(usual, caplog):
    root = logging.getLogger()
    before = root.level

    async def until(level):
        with trio.fail_after(60):
            while root.level != level:
                await trio.lowlevel.checkpoint()

    root.setLevel(usual.upper())
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(program._follow_levels)
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGUSR1)
                await until(logging.DEBUG)
                os.kill(os.getpid(), signal.SIGUSR2)
                await until(getattr(logging, usual.upper()))
            nursery.cancel_scope.cancel()
    finally:
        root.setLevel(before)
    on, off = (
        "SIGUSR1: the log says all from now on, until SIGUSR2",
        f"SIGUSR2: the log is at level {usual} again",
    )
    assert [one.message for one in caplog.records] == [on, off] * 2


def test_a_node_takes_the_signals_for_its_log(nodes):
    for name in ("SIGUSR1", "SIGUSR2"):
        nodes.processes[2].send_signal(getattr(signal, name))
        nodes.wait_for(lambda name=name: any(name in line["message"] for line in nodes.log(2)), "told")
    join_and_reveal(nodes)


@pytest.mark.smoke
def test_metrics(nodes):
    join_and_reveal(nodes)
    with urllib.request.urlopen(f"http://{nodes.network.metrics[1]}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    numbers = dict(re.findall(r"^(tercet_\w+) (\S+)$", text, re.MULTILINE))
    assert numbers["tercet_peers_linked"] == "2.0"
    assert float(numbers["tercet_runs_total"]) >= 2
    assert numbers["tercet_runs_failed_total"] == "0.0"
    assert float(numbers["tercet_bytes_in_memory"]) > 100 * 2 * 8
    assert float(numbers["tercet_certificate_expires_seconds"]) > time.time()
    free = dict(re.findall(r'^tercet_disk_free_bytes{place="([a-z ]+)"} (\S+)$', text, re.MULTILINE))
    assert free.keys() == {"audit log", "storage", "catalog"}
    assert min(map(float, free.values())) > 0
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://{nodes.network.metrics[1]}/secrets", timeout=5)


def test_a_port_for_metrics_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = pytest.raises(ConfigError, match=f"at {address} .*in use.*another port")
        party = Party(0, parties=1, protocol=Plain)
        node = Node(party, MemoryTransport(), shaping=Shaping(), trusted_names=True)
        with refused, serve_metrics(node, address):
            pass


@pytest.mark.parametrize(
    ("index", "number"), [(0, signal.SIGKILL), pytest.param(2, signal.SIGTERM, marks=pytest.mark.scale)]
)
def test_a_node_that_was_lost_is_found_again(nodes, index, number, command):
    code = nodes.stop(index, number)
    assert code == (0 if number == signal.SIGTERM else -number)
    assert any("SIGTERM" in line["message"] for line in nodes.log(index)) == (number == signal.SIGTERM)
    left = (index + 1) % 3
    nodes.wait_for(lambda: nodes.health(left)["missing_parties"] == [index], "noticed")
    told = command("check", "--identity", "ann.key", cwd=nodes.root, code=1)
    assert re.search(rf"BAD +n{index} .*cannot be reached", told)
    assert re.search(rf"BAD +n{left} .*no link to n{index}", told)
    with pytest.raises(PeerLost, match=f"party {index} cannot be reached"):
        join_and_reveal(nodes)
    nodes.start(index)
    nodes.wait_until_ready()
    join_and_reveal(nodes)


def test_a_key_that_nobody_knows(nodes, tmp_path):
    make_member("mallory", ["analyst"], tmp_path)
    with (
        pytest.raises(ConfigError, match="lists no member with the certificate of mallory"),
        tercet.connect(nodes.cluster, identity=tmp_path / "mallory.key"),
    ):
        pass
    # One who writes herself into her own copy is known to no node.
    text = nodes.cluster.read_text() + (tmp_path / "mallory.public.toml").read_text().partition("\n\n")[2]
    forged = tmp_path / "cluster.toml"
    forged.write_text(text)
    with (
        pytest.raises(TransportError, match=r"not pinned|refused"),
        tercet.connect(forged, identity=tmp_path / "mallory.key"),
    ):
        pass
    nodes.wait_for(lambda: "not pinned" in nodes.logs(), "in the log")


def test_another_list_of_members(nodes, tmp_path):
    other = tmp_path / "cluster.toml"
    other.write_text(nodes.cluster.read_text().replace('roles = ["auditor"]', 'roles = ["owner"]'))
    with (
        pytest.raises(TransportError, match="another list of the lake's members"),
        tercet.connect(other, identity=nodes.key("ann")),
    ):
        pass


def test_a_node_cannot_pass_for_a_client(nodes):
    with (
        pytest.raises(ConfigError, match="lists no member"),
        tercet.connect(nodes.cluster, identity=nodes.root / "n0" / "node.key"),
    ):
        pass


def test_a_node_without_its_files(nodes_at_rest):
    path = nodes_at_rest.root / "n0"
    Settings.read(path / "node.toml")
    (path / "node.key").chmod(0o644)
    with pytest.raises(TransportError, match="can be read by others"):
        Settings.read(path / "node.toml")
    (path / "node.key").unlink()
    with pytest.raises(TransportError, match=r"node.key cannot be read"):
        Settings.read(path / "node.toml")
    (path / "storage.key").chmod(0o640)
    with pytest.raises(StorageError, match=r"can be read by others; run `chmod 600"):
        Vault(NodeFile.read(path / "node.toml"))
    nodes_at_rest.key("ann").rename(path / "node.key")
    with pytest.raises(ConfigError, match="lists no node with the certificate"):
        Settings.read(path / "node.toml")
    (path / "cluster.toml").unlink()
    with pytest.raises(ConfigError, match=r"cluster.toml cannot be read"):
        Settings.read(path / "node.toml")


def test_a_node_runs_once(nodes, command):
    """A second process would take what is being uploaded to the first one for what a crash has left."""
    uploading = nodes.root / "n0" / "data" / f"{'a' * 40}.01234567.part"
    uploading.write_bytes(b"half")
    file = nodes.root / "n0" / "node.toml"
    before = file.read_text()
    nodes.configure(0, listen="127.0.0.1:1")  # as if it had been moved, which the one that runs does not know
    for arguments in (("node",), ("prune", "--yes")):
        told = command(arguments[0], "n0/node.toml", *arguments[1:], cwd=nodes.root, code=1)
        assert "runs already, or is being pruned or restored: stop that first" in told
    assert uploading.exists()
    uploading.unlink()
    file.write_text(before)


def test_an_address_that_is_not_there(nodes_at_rest, command):
    nodes_at_rest.configure(0, listen="203.0.113.9:7301")
    told = command("node", "n0/node.toml", cwd=nodes_at_rest.root, code=1)
    assert "error: This end cannot listen at 203.0.113.9:7301" in told
    assert "Traceback" not in told


def test_a_node_is_started_as_a_program(nodes_at_rest):
    """As a service manager does it; it starts itself again, with what its C library is to know of memory."""
    nodes = nodes_at_rest
    nodes.forked = False
    nodes.start(0)
    nodes.wait_for(lambda: nodes.health(0) is not None, "listening")
    assert nodes.health(0)["missing_parties"] == [1, 2]
    environment = Path(f"/proc/{nodes.processes[0].pid}/environ").read_bytes().split(b"\0")
    assert {f"{name}={value}".encode() for name, value in KEEP_MEMORY.items()} <= set(environment)
    nodes.wait_for(lambda: catches(nodes.processes[0].pid, signal.SIGTERM), "minding signals")
    assert nodes.stop(0) == 0


def catches(pid, number):
    """Whether a process has a handler of a signal."""
    told = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in told.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_setting_up_with_the_command(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)

    def run(*args, code=0):
        done = CliRunner().invoke(app, args)
        assert done.exit_code == code, done.output
        return done.output

    for index in range(3):
        told = run("init", "--name", f"n{index}", "--address", f"127.0.0.1:700{index}")
        assert f"tercet node n{index}/node.toml" in told
    assert "ann.key: keep it" in run("init", "--name", "ann", "--role", "analyst", "--role", "owner")
    assert "is there already" in run("init", "--name", "ann", "--role", "analyst", code=1)
    assert "has the roles ['boss']; a member has" in run("init", "--name", "bob", "--role", "boss", code=1)
    assert "has a slash in it" in run("init", "--name", "n/3", "--address", "127.0.0.1:7003", code=1)
    assert not list(tmp_path.glob("bob*"))
    parts = [f"n{index}/public.toml" for index in range(3)]
    assert "has 2 nodes" in run("init", "--cluster", "cluster.toml", *parts[:2], code=1)
    assert "3 nodes and 1 members" in run("init", "--cluster", "cluster.toml", *parts, "ann.public.toml")
    lost = run("init", "--cluster", "no/cluster.toml", *parts, code=1)
    assert "error: no/cluster.toml cannot be read or written (No such file" in lost
    assert "give --name" in run("init", code=1)
    assert "merged with --cluster" in run("init", *parts, code=1)
    assert "cluster.toml cannot be read" in command("node", "n0/node.toml", cwd=tmp_path, code=1)
