"""Transports by name, and a plan that runs over one from a package."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

import tercet
from tercet import plugins
from tercet.comparison import find
from tercet.errors import TransportError
from tercet.transports import TcpTransport, TlsTransport, make_identity, registry


class Counting(TcpTransport):
    """TCP that counts its links."""

    name = "counting"
    made = 0

    async def connect(self, address, *, peer):
        type(self).made += 1
        return await super().connect(address, peer=peer)


@pytest.fixture
def offered(monkeypatch):
    entry = SimpleNamespace(name="counting", value="here:Counting", load=lambda: Counting)
    broken = EntryPoint("broken", "no_such_module:Mine", registry.GROUP)
    taken = EntryPoint("tls", "tercet.transports.tcp:TcpTransport", registry.GROUP)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [entry, broken, taken] if group == registry.GROUP else []
    )


def test_names(offered):
    assert registry.names() == ["memory", "tcp", "tls", "broken", "counting"]
    assert registry.get("tls") is TlsTransport
    assert registry.get("counting") is Counting
    with pytest.raises(
        TransportError, match="'broken' is offered as no_such_module:Mine, which does not load"
    ):
        registry.get("broken")
    with pytest.raises(TransportError, match="no transport 'tcpp'; did you mean 'tcp'"):
        registry.get("tcpp")


def test_identities_go_to_those_that_use_them():
    identities = {name: make_identity(name) for name in ("party 0", "party 1")}
    assert isinstance(registry.make("tls", identities, "party 0"), TlsTransport)
    assert isinstance(registry.make("tcp", {}, "party 0"), TcpTransport)
    with pytest.raises(TransportError, match="TLS needs an identity"):
        registry.make("tls", {}, "party 0")


def test_a_lake_runs_over_a_transport_from_a_package(offered):
    with tercet.local(transport="counting") as lake:
        assert find("join")(lake, 20) == {"rows": 18.0}
    assert Counting.made == 6  # three pairs of parties, and the client to each
    refused = pytest.raises(TransportError, match="not usable here; choose one of tcp, tls, broken, counting")
    with refused, tercet.local(transport="memory", processes=True):
        pass
