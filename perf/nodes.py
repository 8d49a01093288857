"""`nodes`: the same fit on a local lake and on nodes as programs, in turn: what storage and consent cost.

Both have three processes that talk TLS on loopback. The local ones hold shares in memory and ask nobody; the
others keep the table encrypted on disk, read it for the first fit, review every plan and write audit logs.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import tercet
from perf import tables
from perf.report import Measured, median
from tercet import Allow
from tercet.ml import LogisticRegression
from tercet.nodes.setup import make_cluster, make_member, make_node

START_S = 120.0
PATIENCE_S = 60.0


@contextlib.contextmanager
def running_nodes() -> Iterator[Path]:
    """Three nodes as programs in directories of a temporary one, which is given."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
        where = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
        for one in sockets:
            one.close()
        parts = [
            make_node(f"n{i}", where[i], root / f"n{i}", listen=where[i], metrics=where[i + 3])
            for i in range(3)
        ]
        parts += [make_member("owner", ["owner"], root), make_member("ann", ["analyst"], root)]
        make_cluster(parts, root / "cluster.toml", protocol="replicated")
        for index in range(3):
            home = root / f"n{index}"
            (home / "cluster.toml").write_bytes((root / "cluster.toml").read_bytes())
            config = home / "node.toml"
            config.write_text(config.read_text().replace("timeout_s = 6.0", f"timeout_s = {PATIENCE_S}"))
            command = [sys.executable, "-m", "tercet", "node", "node.toml", "--log-level", "error"]
            process = subprocess.Popen(command, cwd=home, start_new_session=True)
            stack.callback(_end, process)
        wait_until_ready(where[3:])
        yield root


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a node as its operator would; one that does not end in time is killed, and that is an error."""
    process.terminate()
    try:
        process.wait(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def wait_until_ready(addresses: list[str]) -> None:
    """Wait until every node is linked up with its peers."""
    deadline = time.monotonic() + START_S
    for address in addresses:
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/health", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def run(rows: int, features: int, times: int) -> Measured:
    """Fit by Newton's method on `rows` rows, `times` times on either lake."""
    table = tables.learnable(rows, features)
    found: dict[str, list[float]] = {"local": [], "nodes": []}
    uploads: dict[str, float] = {}
    with running_nodes() as root, contextlib.ExitStack() as stack:
        local = stack.enter_context(tercet.local(processes=True, timeout_s=PATIENCE_S))
        owner = stack.enter_context(tercet.connect(root / "cluster.toml", identity=root / "owner.key"))
        began = time.perf_counter()
        ours = local.upload(table, name="t", key=tables.KEY, owner="owner")
        uploads["local"] = time.perf_counter() - began
        began = time.perf_counter()
        owner.upload(table, name="t", key=tables.KEY, owner="owner", allow=Allow(plans="any"))
        uploads["nodes"] = time.perf_counter() - began
        ann = stack.enter_context(
            tercet.connect(root / "cluster.toml", identity=root / "ann.key", timeout_s=PATIENCE_S)
        )
        theirs = ann.table("t")
        for _ in range(times):
            for name, one in (("local", ours), ("nodes", theirs)):
                began = time.perf_counter()
                LogisticRegression().fit(one, target=tables.TARGET)
                found[name].append(time.perf_counter() - began)
    local_s, nodes_s = median(found["local"]), median(found["nodes"])
    return Measured(
        name="nodes",
        seconds=nodes_s,
        more={
            "rows": rows,
            "features": features,
            "local_seconds": local_s,
            "overhead": nodes_s / local_s - 1,
            "best_overhead": min(found["nodes"]) / min(found["local"]) - 1,
            "upload_seconds": uploads["nodes"],
            "local_upload_seconds": uploads["local"],
        },
    )
