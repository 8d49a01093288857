"""Makes the lakes of earlier releases that `test_earlier_releases.py` starts: `lake-COMMIT.tar.xz`, here.

    git worktree add /tmp/earlier COMMIT
    cd /tmp/earlier && PYTHONPATH=$PWD python PATH/TO/make.py     # with all that this commit needs

It runs as that commit does, so it uses only what all commits since 2951afe have. The nodes have tables
with rules, a model that was kept, studies (signed and used once, and waiting for one of two owners), a result
that its receiver has not fetched, jobs (ended, waiting for its owner, and interrupted after checkpoints), and
audit logs. What is to be found later is in `expected.json`. Certificates and studies are valid for so long
that the lakes do not have to be made again.
"""

from __future__ import annotations

import io
import json
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import attrs
import numpy as np

import tercet
from tercet import Allow
from tercet.members import studies
from tercet.ml import LogisticRegression
from tercet.transports import identity
from tests.nodes import on_disk

ROWS = 48
MANY_YEARS = 80 * 365
NODE = f"""
from pathlib import Path
from tercet.nodes import program, study_runs
study_runs.LONGEST_S = {MANY_YEARS + 1} * 86400
program.main(Path("node.toml"))
"""
"""A node that lets studies be valid for so long."""
LONG = {"solver": "gd", "max_iter": 300, "learning_rate": 0.01}


def connect(nodes, member):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


def upload(nodes):
    rng = np.random.default_rng(7)
    ids, age, cost = np.arange(ROWS), rng.normal(50, 10, ROWS), rng.gamma(2.0, 100.0, ROWS)
    sick = (0.1 * (age - 50) + rng.logistic(size=ROWS) > 0).astype(int)
    ages = {"id": ids, "age": age, "sick": sick}
    with connect(nodes, "hospital") as lake:
        free = Allow(plans="any", readers=("ann",), columns=("age", "sick"), uses=50)
        lake.upload(ages, name="ages", key="id", owner="hospital", allow=free, min_count=5)
        lake.upload(ages, name="asking", key="id", owner="hospital")
    with connect(nodes, "insurer") as lake:
        lake.upload({"id": ids[8:], "cost": cost[8:]}, name="costs", key="id", owner="insurer")
    return {"mean age": float(np.mean(age)), "rows": ROWS, "joined": ROWS - 8}


def notebook(lake):
    """What the studies ask for."""
    return lake.table("asking").join(lake.table("costs"), on="id").describe()


def study(nodes, purpose, owners):
    """A study that these owners have signed."""
    file = nodes.root / f"{purpose}.json"
    with connect(nodes, "ann") as lake:
        with lake.rehearse(rows=100) as made_up:
            recorded = made_up.record(file, purpose=purpose, uses=3, days=30)
            notebook(made_up)
            recorded.save()
        long = attrs.evolve(
            studies.Study.from_bytes(file.read_bytes()), until=int(time.time()) + MANY_YEARS * 86400
        )
        file.write_text(long.to_text())
        lake.propose(file)
    for owner in owners:
        with connect(nodes, owner) as lake:
            lake.approve_study(lake.show_study(long.number))
    return long.number


def sum_of_ages(lake, table):
    builder = lake.builder(f"sum of {table}")
    lake.table(table).features(builder, ["age"]).sum().reveal("sum", to="analyst")
    return builder.plan()


def fill(nodes):
    expected = upload(nodes)
    with connect(nodes, "ann") as lake:
        model = LogisticRegression().fit(lake.table("ages"), target="sick", features=["age"])
        expected["coefficient"] = float(model.reveal().coef_[0][0])
        model.save("risk")
        lake.table("ages").describe(["age"], to="hospital")
    expected["study"] = study(nodes, "signed", ["hospital", "insurer"])
    expected["half"] = study(nodes, "half", ["insurer"])
    with connect(nodes, "ann") as lake:
        with lake.study(nodes.root / "signed.json"):
            notebook(lake)
        ended = lake.submit(sum_of_ages(lake, "asking"))
        with connect(nodes, "hospital") as owner:
            nodes.wait_for(owner.plans, "waiting for the hospital")
            owner.approve(ended.number)
        nodes.wait_for(lambda: [one.state for one in lake.jobs()] == ["done"], "the job ended")
        asking = lake.submit(sum_of_ages(lake, "asking"))
        lake.checkpoint_every = 5
        long = LogisticRegression(**LONG).submit(lake.table("ages"), target="sick")
    expected |= {"ended": ended.number, "asking": asking.number, "long": long.number}
    with connect(nodes, "hospital") as lake:
        nodes.wait_for(lake.plans, "waiting for the hospital")
    nodes.wait_for(lambda: min(checkpoints(nodes, index) for index in range(3)) > 1, "checkpoints written")
    for index in range(3):
        nodes.stop(index, signal.SIGKILL if index else signal.SIGTERM)
    return expected


def checkpoints(nodes, index):
    catalog = sqlite3.connect(nodes.root / f"n{index}" / "catalog.sqlite")
    try:
        return catalog.execute("SELECT count(*) FROM checkpoints").fetchone()[0]
    finally:
        catalog.close()


def pack(root, expected, to):
    """A small archive of files and directories alone."""

    def plain(member):
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        left_out = member.name.endswith(("/log", ".public.toml", "public.toml"))
        return None if left_out or not (member.isfile() or member.isdir()) else member

    with tarfile.open(to, "w:xz", preset=9) as archive:
        archive.add(root, ".", filter=plain)
        text = json.dumps(expected, indent=1).encode()
        member = tarfile.TarInfo("./expected.json")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))


def main():
    identity.make_identity.__kwdefaults__["valid_for"] *= MANY_YEARS // 365
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, check=True, text=True
    )
    with tempfile.TemporaryDirectory() as where:
        nodes = on_disk.set_up(Path(where))
        try:
            for index in range(3):
                nodes.configure(index, grace_s=1.0)
                nodes.programs[index] = ["-c", NODE]
            nodes.start(0, 1, 2)
            nodes.wait_until_ready()
            expected = fill(nodes)
        finally:
            nodes.close()
        to = Path(__file__).parent / f"lake-{commit.stdout.strip()}.tar.xz"
        pack(Path(where), expected, to)
        sys.stderr.write(f"{to}: {to.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
