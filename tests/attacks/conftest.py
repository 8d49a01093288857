"""A lake for every attack: real nodes in this process, and a member whose client checks nothing."""

from __future__ import annotations

import pytest
import trio

from tercet.client import client
from tercet.nodes import program
from tercet.plans.passes import optimise
from tests.attacks.lake import BY_HAND, attacked_lake


async def _for_ever(*_):
    await trio.sleep_forever()


@pytest.fixture
async def attacked(tmp_path, monkeypatch):
    """Three lasting nodes, with the hospital and ann connected."""
    monkeypatch.setattr(program, "_until_told", _for_ever)
    monkeypatch.setattr(client, "optimise", lambda plan: plan if plan in BY_HAND else optimise(plan))
    async with attacked_lake(tmp_path) as made:
        yield made
