"""Lakes of three node processes with directories of their own, set up with the command line as people do."""

from __future__ import annotations

import pytest
import trio

from tercet.nodes import program
from tests.attacks.lake import attacked_lake
from tests.nodes import on_disk


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Running nodes, shared by the tests of a module; who stops one starts it again."""
    made = on_disk.set_up(tmp_path_factory.mktemp("lake"))
    made.start(0, 1, 2)
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def nodes_at_rest(tmp_path):
    """Nodes that are set up and not started."""
    made = on_disk.set_up(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def command():
    return on_disk.tercet


async def _for_ever(*_):
    await trio.sleep_forever()


@pytest.fixture
async def in_process(tmp_path, monkeypatch):
    """Three lasting nodes in this process, with the hospital, the insurer and ann connected."""
    monkeypatch.setattr(program, "_until_told", _for_ever)
    async with attacked_lake(tmp_path) as made:
        yield made
