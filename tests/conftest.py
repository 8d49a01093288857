"""What tests of several parts need: a real PostgreSQL server, and a choice among cases much alike."""

from __future__ import annotations

import gc
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import settings

from tercet.client import lake
from tercet.client.cluster import open_cluster
from tercet.ml import computations
from tercet.ml.declarations import DECLARED
from tercet.testing.engines import Tasks

# How long an example takes says how busy the machine is.
settings.register_profile("default", deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile("default")
BUILT_IN = frozenset(DECLARED)


def pytest_addoption(parser):
    parser.addoption(
        "--workers",
        type=int,
        default=0,
        help="run lakes in one process with so many workers a party, and in tiles of 128 rows",
    )
    parser.addoption(
        "--protocol",
        default="replicated",
        help="with --workers: what lakes run that would run under the default protocol",
    )


def pytest_configure(config):
    if workers := config.getoption("workers"):
        protocol = config.getoption("protocol")
        lake.open_cluster = lambda options: open_cluster(with_workers(options, workers, protocol))


def with_workers(options, workers, protocol):
    """The same cluster with workers, if it is one in memory; its large tables have several tiles."""
    if options.processes or options.transport not in (None, "memory") or options.workers:
        return options
    if options.protocol == "replicated" and options.parties is None:
        options = attrs.evolve(options, protocol=protocol)
    return attrs.evolve(options, workers=workers, engine=Tasks, tile_rows=min(options.tile_rows, 128))


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items):
    """Put files that are marked `early` first, and mark as `thorough` what `make test` leaves out.

    That is cases of tests that bear the mark `cases`. It names the cases that stay; if it names none, each
    stays under the first protocol of the fixture `lake`, and the first of them under each protocol. A test of
    one case is left out under `plain`: what holds of shares, to within their error, holds in the clear.
    """
    items.sort(key=lambda item: item.get_closest_marker("early") is None)
    chosen: dict[str, dict[object, list[pytest.Item]]] = {}
    for item in items:
        mark = item.get_closest_marker("cases")
        if mark is None or not hasattr(item, "callspec"):
            continue
        if mark.args:
            if item.callspec.id not in mark.args:
                item.add_marker("thorough")
            continue
        by_protocol = chosen.setdefault(item.nodeid.partition("[")[0], {})
        by_protocol.setdefault(item.callspec.params.get("lake"), []).append(item)
    for by_protocol in chosen.values():
        first, *others = by_protocol.values()
        left_out = [one for rest in others for one in rest[1:]]
        if others and len(first) == 1:
            left_out += by_protocol.get("plain", [])
        for item in left_out:
            item.add_marker("thorough")


def pytest_collection_finish():
    """Let the garbage collector look no more at what imports and the collection have made: it stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_declared():
    """No test leaves a computation behind, which others would find among those of Tercet."""
    yield
    left = (computations.COMPUTATIONS.keys() | DECLARED.keys()) - BUILT_IN
    assert not left, f"declared, and not forgotten, as `declaring` does: {sorted(left)}"


@pytest.fixture
def declaring():
    """What a test declares is forgotten after it."""
    computations.find("join")
    before = [(known, dict(known)) for known in (computations.COMPUTATIONS, DECLARED)]
    yield
    for known, was in before:
        known.clear()
        known.update(was)


@pytest.fixture(scope="session")
def postgres():
    """The URL of an empty database on a PostgreSQL server of this session's own.

    It listens at a socket in a directory, which nodes reach from any network namespace.
    """
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("no PostgreSQL server is installed here")
    root = Path(tempfile.mkdtemp(prefix="tercet-pg-"))
    options = {"cwd": root, "check": True, "capture_output": True, "timeout": 60}
    if os.getuid() == 0:  # the server refuses to run as root
        options["user"] = pwd.getpwnam("nobody").pw_uid
        os.chown(root, options["user"], -1)
    data = str(root / "data")
    subprocess.run(["initdb", "-D", data, "-U", "tercet", "-A", "trust"], **options)
    serve = f"-c listen_addresses='' -k {root} -c fsync=off"
    subprocess.run(["pg_ctl", "-D", data, "-w", "-l", str(root / "log"), "-o", serve, "start"], **options)
    try:
        yield f"postgresql+psycopg://tercet@/postgres?host={root}"
    finally:
        subprocess.run(["pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], **options)
        shutil.rmtree(root, ignore_errors=True)
