"""A lake of three node processes with directories of their own, set up as `tercet init` does it.

Nodes and commands are forked from a process that has imported Tercet (see `forks`), since starting Python
takes longer than most of what they do. Where it matters that nodes are programs, they are.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tercet.nodes.setup import make_cluster, make_member, make_node
from tests.nodes import forks
from tests.nodes.network import Loopback, Network

START_S = 240.0
COMMAND = ["-m", "tercet", "node", "node.toml"]
MEMBERS = {"hospital": "owner", "insurer": "owner", "ann": "analyst", "aud": "auditor", "olga": "operator"}


def tercet(*args: object, cwd: Path, code: int = 0) -> str:
    """Run the command; what it printed, with errors."""
    with tempfile.TemporaryDirectory() as where:
        out, err = Path(where) / "out", Path(where) / "err"
        process = forks.server().run([*map(str, args)], cwd=cwd, out=out, err=err)
        try:
            found = process.wait(timeout=120)
        finally:
            process.kill()
        told = out.read_text() + err.read_text()
    assert found == code, told
    return told


@attrs.define(eq=False)
class NodesOnDisk:
    """Three nodes, or more: their directories, and their processes while they run."""

    root: Path
    network: Network
    count: int = 3
    processes: dict[int, subprocess.Popen[bytes] | forks.Forked] = attrs.field(factory=dict)
    programs: dict[int, Sequence[str]] = attrs.field(factory=dict)
    """Arguments of Python for nodes that are to run something else than `COMMAND`."""
    forked: bool = True
    """Whether nodes that run Tercet as it is are forked; not where they live in a network of their own."""

    @property
    def cluster(self) -> Path:
        return self.root / "cluster.toml"

    def key(self, member: str) -> Path:
        return self.root / f"{member}.key"

    def configure(self, index: int, **values: object) -> None:
        """Change values in a node's file; it reads them when it starts."""
        file = self.root / f"n{index}" / "node.toml"
        text = file.read_text()
        for name, value in values.items():
            text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {json.dumps(value)}", text)
            assert count == 1, f"{file} does not say {name}"
        file.write_text(text)

    def start(self, *indices: int) -> None:
        for index in indices:
            home = self.root / f"n{index}"
            program = self.programs.get(index, COMMAND)
            if self.forked and program[:2] == COMMAND[:2]:
                self.processes[index] = forks.server().run(program[2:], cwd=home, err=home / "log")
                continue
            command = [*self.network.within(index), sys.executable, *program]
            with (home / "log").open("ab") as log:
                self.processes[index] = subprocess.Popen(command, cwd=home, stderr=log)

    def health(self, index: int) -> dict | None:
        try:
            url = f"http://{self.network.metrics[index]}/health"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return json.loads(error.read())
        except OSError:
            return None

    def wait_until_ready(self) -> None:
        self.wait_for(
            lambda: all((self.health(index) or {}).get("ready") for index in range(self.count)), "ready"
        )

    def wait_for(self, condition, what: str) -> None:
        deadline = time.monotonic() + START_S
        while not condition():
            assert all(one.poll() is None for one in self.processes.values()), f"ended:\n{self.logs()}"
            assert time.monotonic() < deadline, f"not {what} in time:\n{self.logs()}"
            time.sleep(0.05)

    def stop(self, index: int, number: int = signal.SIGTERM) -> int:
        process = self.processes.pop(index)
        process.send_signal(number)
        return process.wait(timeout=60)

    def restart(self) -> None:
        for index in list(self.processes):
            self.stop(index)
        self.start(*range(self.count))
        self.wait_until_ready()

    def log(self, index: int) -> list[dict]:
        return [json.loads(line) for line in (self.root / f"n{index}" / "log").read_text().splitlines()]

    def logs(self) -> str:
        return "\n".join((self.root / f"n{index}" / "log").read_text()[-2000:] for index in range(self.count))

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def set_up(
    root: Path,
    network: Network | None = None,
    *,
    members: Mapping[str, str] = MEMBERS,
    more: Sequence[Path] = (),
    protocol: str = "replicated",
    count: int = 3,
) -> NodesOnDisk:
    """Keys, public parts and files of all nodes and members, merged; on loopback, unless told where.

    `more` are public parts that were made elsewhere.
    """
    forked = network is None
    network = network or Loopback.make(count)
    parts = []
    for index in range(count):
        where = network.addresses[index]
        public = make_node(
            f"n{index}", where, root / f"n{index}", listen=where, metrics=network.metrics[index]
        )
        parts.append(public)
    parts += [*(make_member(name, [role], root) for name, role in members.items()), *more]
    make_cluster(parts, root / "cluster.toml", protocol=protocol)
    for index in range(count):
        (root / f"n{index}" / "cluster.toml").write_bytes((root / "cluster.toml").read_bytes())
    return NodesOnDisk(root, network, count, forked=forked)
