"""Lakes of three node processes with directories of their own, set up with the command line as people do."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import attrs
import pytest

from tercet.nodes.setup import make_cluster, make_member, make_node

START_S = 60.0
MEMBERS = {"hospital": "owner", "insurer": "owner", "ann": "analyst", "aud": "auditor", "olga": "operator"}


def tercet(*args: object, cwd: Path | None = None, code: int = 0) -> str:
    """Run the command; what it printed, with errors."""
    command = [sys.executable, "-m", "tercet", *map(str, args)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@attrs.define(eq=False)
class NodesOnDisk:
    """Three nodes: their directories, and their processes while they run."""

    root: Path
    metrics: list[int]
    processes: dict[int, subprocess.Popen] = attrs.field(factory=dict)

    @property
    def cluster(self) -> Path:
        return self.root / "cluster.toml"

    def key(self, member: str) -> Path:
        return self.root / f"{member}.key"

    def start(self, *indices: int) -> None:
        for index in indices:
            log = (self.root / f"n{index}" / "log").open("ab")
            command = [sys.executable, "-m", "tercet", "node", "node.toml"]
            self.processes[index] = subprocess.Popen(command, cwd=self.root / f"n{index}", stderr=log)
            log.close()

    def health(self, index: int) -> dict | None:
        try:
            url = f"http://127.0.0.1:{self.metrics[index]}/health"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return json.loads(error.read())
        except OSError:
            return None

    def wait_until_ready(self) -> None:
        self.wait_for(lambda: all((self.health(index) or {}).get("ready") for index in range(3)), "ready")

    def wait_for(self, condition, what: str) -> None:
        deadline = time.monotonic() + START_S
        while not condition():
            assert time.monotonic() < deadline, f"not {what} in time:\n{self.logs()}"
            time.sleep(0.05)

    def stop(self, index: int, number: int = signal.SIGTERM) -> int:
        process = self.processes.pop(index)
        process.send_signal(number)
        return process.wait(timeout=60)

    def restart(self) -> None:
        for index in list(self.processes):
            self.stop(index)
        self.start(0, 1, 2)
        self.wait_until_ready()

    def log(self, index: int) -> list[dict]:
        return [json.loads(line) for line in (self.root / f"n{index}" / "log").read_text().splitlines()]

    def logs(self) -> str:
        return "\n".join((self.root / f"n{index}" / "log").read_text()[-2000:] for index in range(3))

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def set_up(root: Path) -> NodesOnDisk:
    """Keys, public parts and files of three nodes and all members, merged."""
    ports = free_ports(6)
    parts = []
    for index in range(3):
        where, metrics = (f"127.0.0.1:{ports[index + more]}" for more in (0, 3))
        parts.append(make_node(f"n{index}", where, root / f"n{index}", listen=where, metrics=metrics))
    parts += [make_member(name, [role], root) for name, role in MEMBERS.items()]
    make_cluster(parts, root / "cluster.toml", protocol="replicated")
    for index in range(3):
        (root / f"n{index}" / "cluster.toml").write_bytes((root / "cluster.toml").read_bytes())
    return NodesOnDisk(root, ports[3:])


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Running nodes, shared by the tests of a module; who stops one starts it again."""
    made = set_up(tmp_path_factory.mktemp("lake"))
    made.start(0, 1, 2)
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def nodes_at_rest(tmp_path):
    """Nodes that are set up and not started."""
    made = set_up(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def command():
    return tercet
