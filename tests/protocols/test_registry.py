"""Protocols by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from tercet import plugins
from tercet.errors import ProtocolError
from tercet.protocols import registry
from tercet.protocols.plain import Plain
from tercet.protocols.replicated import Replicated


def offer(monkeypatch, **values):
    offered = [EntryPoint(name, value, registry.GROUP) for name, value in values.items()]
    monkeypatch.setattr(plugins, "entry_points", lambda group: offered if group == registry.GROUP else [])


def test_built_in_names_need_no_metadata(monkeypatch):
    offer(monkeypatch)
    assert registry.names() == ["replicated", "plain", "shamir", "rep4"]
    assert registry.get("replicated") is Replicated
    assert registry.get("plain") is Plain


def test_an_unknown_name_is_answered_with_a_hint():
    with pytest.raises(
        ProtocolError, match=r"no protocol 'replicate'; did you mean 'replicated'\? Known.*plain"
    ):
        registry.get("replicate")
    with pytest.raises(ProtocolError, match="no protocol 'zzz'; Known protocols: replicated, plain"):
        registry.get("zzz")


def test_a_package_adds_a_protocol_but_does_not_take_over_a_name(monkeypatch):
    offer(monkeypatch, mine="tercet.protocols.plain:Plain", replicated="tercet.protocols.plain:Plain")
    assert registry.names() == [*registry.BUILT_IN, "mine"]
    assert registry.get("mine") is Plain
    assert registry.get("replicated") is Replicated


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("no_such_module:Mine", "does not load"),
        ("tercet.protocols.plain:NoSuchClass", "does not load"),
        ("tercet.protocols.plain:decode", "no subclass of Protocol"),
    ],
)
def test_what_is_no_protocol_is_refused(monkeypatch, value, complaint):
    offer(monkeypatch, mine=value)
    with pytest.raises(ProtocolError, match=complaint):
        registry.get("mine")
