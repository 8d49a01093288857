"""Lakes of three node processes with directories of their own, set up with the command line as people do."""

from __future__ import annotations

import pytest

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
