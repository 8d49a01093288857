"""What a service manager hears of a node."""

from __future__ import annotations

import socket

import pytest
import trio

from tercet.actors.node import Node
from tercet.actors.party import Party
from tercet.nodes.supervised import Supervisor
from tercet.protocols.plain import Plain
from tercet.transports import Shaping
from tercet.transports.memory import MemoryTransport


@pytest.fixture(params=["a file", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """Where a manager listens, and how it is named."""
    name = str(tmp_path / "notify") if request.param == "a file" else f"@tercet-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name if request.param == "a file" else "\0" + name[1:])
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield listening


def heard(manager):
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode().split("\n"))
        except BlockingIOError:
            return found


@pytest.fixture
def node():
    return Node(Party(0, parties=1, protocol=Plain), MemoryTransport(), shaping=Shaping(), trusted_names=True)


async def test_a_manager_hears(manager, node, monkeypatch, autojump_clock):
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    supervisor = Supervisor.of_environment()
    with trio.move_on_after(4.5):
        await supervisor.keep_told(node)
    first, *beats = heard(manager)
    assert first == ["READY=1", "STATUS=party 0, linked with 0 of 0 peers"]
    assert beats == [["WATCHDOG=1"]] * 2
    supervisor.tell("STOPPING=1")
    assert heard(manager) == [["STOPPING=1"]]


async def test_without_a_watchdog(manager, node, monkeypatch, autojump_clock):
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with trio.move_on_after(60):
        await Supervisor.of_environment().keep_told(node)
    assert len(heard(manager)) == 1


async def test_without_a_manager(node, monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    await Supervisor.of_environment().keep_told(node)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    Supervisor.of_environment().tell("READY=1")
    assert "does not hear" in caplog.text
