"""Where the nodes of a test live: in network namespaces of their own, or side by side on loopback.

Each namespace hangs on a bridge by a pair of virtual Ethernet devices, and this process is on the bridge
too. So a node has an address and ports of its own, and can be cut off or slowed down as a machine can, while
it and all others go on. That takes root and Linux; elsewhere the nodes share the loopback device, and stay
linked.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence

import attrs

PORT, METRICS_PORT = 7301, 9464
PORTS = range(10_000, 32_000)
"""Below those from which systems choose one for whoever connects, who may take it before a node is up."""


def _ip(*words: str, code: int | None = 0) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    if code is not None and done.returncode != code:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@attrs.frozen
class Loopback:
    """All nodes at 127.0.0.1, on ports that were free, and that no connection is given as its own."""

    addresses: tuple[str, ...]
    metrics: tuple[str, ...]
    can_cut = False

    @classmethod
    def make(cls, nodes: int) -> Loopback:
        found, chance = list[str](), random.SystemRandom()
        with contextlib.ExitStack() as held:
            while len(found) < 2 * nodes:
                port = chance.choice(PORTS)
                with contextlib.suppress(OSError):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
                    found.append(f"127.0.0.1:{port}")
        return cls(tuple(found[:nodes]), tuple(found[nodes:]))

    def within(self, index: int) -> Sequence[str]:
        """What to put before a command that is to run where a node lives."""
        return ()


@attrs.frozen
class Namespaces:
    """A network namespace for each node, and a bridge between them and this process."""

    name: str
    subnet: str
    nodes: int
    can_cut = True

    @classmethod
    def make(cls, nodes: int) -> Namespaces:
        """Make them. Raises OSError where this machine does not allow it."""
        taken = _ip("-4", "-brief", "address")
        # 198.18.0.0/15 is for tests of networks (RFC 2544).
        free = [f"198.18.{(os.getpid() + i) % 256}" for i in range(256)]
        subnet = next(one for one in free if f"{one}." not in taken)
        made = cls(f"t{os.getpid()}", subnet, nodes)
        try:
            made._build()
        except OSError:
            made.close()
            raise
        return made

    def _build(self) -> None:
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("address", "add", f"{self.subnet}.254/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        for index in range(self.nodes):
            space, port = self.space(index), self.port(index)
            _ip("netns", "add", space)
            _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", port, "master", self.bridge, "up")
            _ip("-n", space, "address", "add", f"{self.host(index)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", space, "link", "set", device, "up")

    def close(self) -> None:
        """Remove them, whatever is there of them."""
        for index in range(self.nodes):
            _ip("link", "delete", self.port(index), code=None)
            _ip("netns", "delete", self.space(index), code=None)
        _ip("link", "delete", self.bridge, code=None)

    @property
    def bridge(self) -> str:
        return f"{self.name}-b"

    def space(self, index: int) -> str:
        return f"{self.name}-n{index}"

    def port(self, index: int) -> str:
        """The bridge's end of a node's cable."""
        return f"{self.name}-p{index}"

    def host(self, index: int) -> str:
        return f"{self.subnet}.{index + 1}"

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(f"{self.host(index)}:{PORT}" for index in range(self.nodes))

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(f"{self.host(index)}:{METRICS_PORT}" for index in range(self.nodes))

    def within(self, index: int) -> Sequence[str]:
        """What to put before a command that is to run where a node lives."""
        return ("ip", "netns", "exec", self.space(index))

    def cut(self, index: int) -> None:
        """Pull a node's cable."""
        _ip("link", "set", self.port(index), "down")

    def mend(self, index: int) -> None:
        """Plug it in again, at full speed."""
        _ip("link", "set", self.port(index), "up")
        for where in self._ends(index):
            subprocess.run(["tc", *where, "root"], capture_output=True, timeout=30, check=False)

    def part(self, one: int, other: int) -> None:
        """Let nothing get from one to the other any more, nor back, and both reach all others."""
        for here, there in ((one, other), (other, one)):
            nobody = ["lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent"]
            _ip("-n", self.space(here), "neigh", "replace", self.host(there), *nobody)

    def rejoin(self, one: int, other: int) -> None:
        """Let them reach each other again."""
        for here, there in ((one, other), (other, one)):
            _ip("-n", self.space(here), "neigh", "delete", self.host(there), "dev", "eth0")

    def slow(self, index: int, megabits: float) -> None:
        """Let a node's cable carry no more than this a second, each way."""
        shape = ["root", "tbf", "rate", f"{megabits}mbit", "burst", "64kb", "latency", "1s"]
        for tc in self._ends(index, "replace"):
            subprocess.run(["tc", *tc, *shape], capture_output=True, timeout=30, check=True)

    def _ends(self, index: int, verb: str = "delete") -> list[list[str]]:
        inside = ["-n", self.space(index), "qdisc", verb, "dev", "eth0"]
        return [["qdisc", verb, "dev", self.port(index)], inside]


Network = Loopback | Namespaces


@contextlib.contextmanager
def network(nodes: int = 3) -> Iterator[Network]:
    """Namespaces where the machine allows them, else loopback."""
    made: Network
    try:
        if not (shutil.which("ip") and shutil.which("tc")):
            raise OSError("there is no `ip`, or no `tc`")
        made = Namespaces.make(nodes)
    except OSError:
        yield Loopback.make(nodes)
        return
    try:
        yield made
    finally:
        made.close()
