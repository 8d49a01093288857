"""What is said while a protocol is checked, and the command that checks one."""

from __future__ import annotations

import io
import sys

import pytest

from tercet.errors import ProtocolError
from tercet.protocols.plain import Plain
from tercet.testing import protocols
from tercet.testing.__main__ import main


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def steps(monkeypatch):
    """Two steps, the second of which may fail."""
    failing = []

    def made(cls, count):
        yield "one thing", lambda: None
        yield "another", lambda: failing and (_ for _ in ()).throw(ProtocolError(failing[0]))

    monkeypatch.setattr(protocols, "_steps", made)
    return failing


def test_a_terminal_is_told_what_is_under_way(monkeypatch, steps):
    told = Terminal()
    monkeypatch.setattr(sys, "stderr", told)
    protocols.check_protocol(Plain)
    said = told.getvalue().split("\r\x1b[2K")
    assert said == ["", "plain: one thing (1 of 2)", "plain: another (2 of 2)", ""]


def test_nobody_else_is_told(monkeypatch, steps):
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    protocols.check_protocol(Plain)
    assert not told.getvalue()


def test_the_command(capsys, steps):
    assert main(["plain"]) == 0
    assert capsys.readouterr().out == "plain keeps the promises that were checked\n"
    steps.append("plain breaks one")
    assert main(["plain", "1"]) == 1
    assert capsys.readouterr().err == "plain breaks one\n"
    assert main([]) == main(["plain", "x"]) == 2
    assert main(["nobody's"]) == 1
    assert "nobody's" in capsys.readouterr().err


def test_every_operation_is_a_step():
    names = [name for name, _ in protocols._steps(Plain, 1)]
    assert {one.name for one in protocols.OPERATIONS} <= set(names)
    assert len(set(names)) == len(names)
