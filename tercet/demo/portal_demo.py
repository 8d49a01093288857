"""`tercet portal --demo`: a lake of made-up owners on this machine, and a portal for each of its members.

Three lasting nodes with all that real ones have, as tasks of this process, in a folder that goes when it
ends. A hospital and an insurer have put a table in; ann has asked for a study, which waits for both.
"""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import trio

from tercet.actors.line import plain_errors
from tercet.client.allow import Allow
from tercet.client.lake import AsyncLake, open_lake
from tercet.client.loop import Opening
from tercet.nodes import program
from tercet.nodes.setup import make_cluster, make_member, make_node
from tercet.portal.app import serve
from tercet.portal.guided import Guided, Terms
from tercet.portal.study_work import StudyWork

NODES = 3
MEMBERS = {
    "hospital": ("owner",),
    "insurer": ("owner",),
    "ann": ("analyst",),
    "olga": ("operator", "auditor"),
}
ROWS, SEED = 600, 7
SHARED = 0.9
"""Of the patients of one owner, so many are the other's too."""
TIMEOUT_S = 60.0
"""Nodes of one process share its cores, and are not given up for being slow."""


def made_up() -> tuple[dict[str, object], dict[str, object]]:
    """What the hospital and the insurer know of patients, most of whom are the same."""
    rng = np.random.default_rng(SEED)
    age, bmi = rng.normal(55, 14, ROWS).round(), rng.normal(27, 4.5, ROWS).round(1)
    visits, cost = rng.poisson(3, ROWS), rng.gamma(2.0, 400.0, ROWS).round(2)
    logits = 0.06 * (age - 55) + 0.12 * (bmi - 27) + 0.25 * (visits - 3) - 0.4
    readmitted = (logits + rng.logistic(size=ROWS) > 0).astype(int)
    policy = np.array([f"P-{number:05d}" for number in rng.permutation(10 * ROWS)[:ROWS]])
    left_out = round(ROWS * (1 - SHARED) / 2)
    one, other = rng.permutation(ROWS)[left_out:], rng.permutation(ROWS)[left_out:]
    hospital = {"policy": policy, "age": age, "bmi": bmi, "readmitted": readmitted}
    insurer = {"policy": policy, "visits": visits, "cost": cost}
    return (
        {name: column[one] for name, column in hospital.items()},
        {name: column[other] for name, column in insurer.items()},
    )


async def run(say: Callable[[str], None]) -> None:
    """Start everything, say where the portals are, and serve until this is interrupted."""
    with tempfile.TemporaryDirectory(prefix="tercet-demo-") as folder:
        root = Path(folder)
        cluster = set_up(root)
        async with plain_errors(), trio.open_nursery() as nursery:
            say("Three nodes start, and two owners put their tables in ...")
            for index in range(NODES):
                settings = program.Settings.read(root / f"n{index}" / "node.toml")
                await nursery.start(partial(program.serve, settings, signals=False))
            await fill(root, cluster)
            say("The lake is there until you stop it with Ctrl-C. Open it as each of its members:")
            for name, roles in MEMBERS.items():

                def tell(link: str, who: str = f"{name} ({', '.join(roles)})") -> None:
                    say(f"  as {who}:\n    {link}")

                key = root / f"{name}.key"
                await nursery.start(partial(serve, cluster, key, timeout_s=TIMEOUT_S, on_link=tell))
            say(
                "The hospital and the insurer are asked about a study; once both have signed, ann can run it."
            )


def set_up(root: Path) -> Path:
    """Keys and files of three nodes on free ports of this machine, and of all members; the lake's file."""
    parts = []
    for index, port in enumerate(_free_ports()):
        where = f"127.0.0.1:{port}"
        home = root / f"n{index}"
        parts.append(make_node(f"n{index}", where, home, listen=where, metrics=""))
        file = home / "node.toml"
        file.write_text(re.sub(r"(?m)^timeout_s = \S+", f"timeout_s = {TIMEOUT_S}", file.read_text()))
    parts += [make_member(name, roles, root) for name, roles in MEMBERS.items()]
    make_cluster(parts, root / "cluster.toml", protocol="replicated")
    for index in range(NODES):
        (root / f"n{index}" / "cluster.toml").write_bytes((root / "cluster.toml").read_bytes())
    return root / "cluster.toml"


def _free_ports() -> list[int]:
    """A port for each node that nobody listens at."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(NODES)]
        return [one.getsockname()[1] for one in sockets]


def _lake(cluster: Path, key: Path) -> Opening[AsyncLake]:
    return open_lake(cluster, identity=key, timeout_s=TIMEOUT_S, progress=False)


async def fill(root: Path, cluster: Path) -> None:
    """What owners and the analyst have done before the portals open."""
    hospital, insurer = made_up()
    for name, columns in (("hospital", hospital), ("insurer", insurer)):
        async with _lake(cluster, root / f"{name}.key") as lake:
            await lake.upload(
                columns, name=f"{name}_patients", key="policy", owner=name, min_count=10, allow=Allow()
            )
    guided = Guided(
        tables=("hospital_patients", "insurer_patients"),
        keys=("policy",),
        target="readmitted",
        features=("age", "bmi", "visits", "cost"),
    )
    ann = root / "ann.key"
    async with _lake(cluster, ann) as lake, trio.open_nursery() as own:

        async def this_lake() -> AsyncLake:
            return lake

        work = StudyWork(ann, this_lake, own)
        await work.propose(guided, Terms(rows=600, purpose="Who comes back to hospital within 30 days?"))
