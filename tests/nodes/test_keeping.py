"""What nodes keep and what they let go: interrupted uploads, damaged and lost files, tables that differ."""

from __future__ import annotations

import re
import shutil
import signal
import urllib.request

import numpy as np
import pytest
import trio

import tercet
from tercet.client.lake import open_lake
from tercet.errors import ConsentError, SchemaError, StorageError
from tercet.members.audit_lines import parse
from tercet.ml import LogisticRegression
from tercet.plans import Form, Type

pytestmark = pytest.mark.early
TABLE = {"id": np.arange(100), "age": np.linspace(20, 80, 100)}


def connect(nodes, member="hospital"):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


def values_in_memory(nodes, index):
    url = f"http://{nodes.network.metrics[index]}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    return float(re.search(r"^tercet_values_in_memory (\S+)$", text, re.MULTILINE)[1])


def files(nodes, index):
    return sorted((nodes.root / f"n{index}" / "data").iterdir())


def test_an_interrupted_upload_leaves_nothing(nodes):
    async def main():
        async with open_lake(nodes.cluster, identity=nodes.key("hospital")) as lake:
            kind = Type(Form.RING, (1000,), 0, 2.0**20)
            await lake.cluster.client.put("half", kind, np.arange(1000, dtype=np.uint64))
            assert values_in_memory(nodes, 0) == 1

    trio.run(main)
    for index in range(3):
        nodes.wait_for(lambda index=index: values_in_memory(nodes, index) == 0, "forgotten")
        assert files(nodes, index) == []


def test_damage_on_one_disk_is_named_and_an_upload_mends_it(nodes):
    with connect(nodes) as lake:
        lake.upload(TABLE, name="ages", key="id", owner="hospital")
    nodes.stop(1)
    damaged = files(nodes, 1)
    for path in damaged:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        shutil.copy(path, path.with_name(f"{path.name}.01234567.part"))
    nodes.start(1)
    nodes.wait_until_ready()
    assert files(nodes, 1) == damaged  # what an upload had left is gone
    names = "|".join(path.name for path in damaged)
    with connect(nodes) as lake:
        with pytest.raises(StorageError, match=rf"^party 1: .*n1/data/({names}) is damaged in chunk 0"):
            lake.table("ages").reveal("age")
        other = TABLE | {"age": TABLE["age"] + 1}
        lake.upload(other, name="ages", key="id", owner="hospital")
        np.testing.assert_allclose(lake.table("ages").reveal("age")["age"], other["age"], atol=1e-3)


def test_a_model_is_kept_once_however_often_it_is_saved(nodes):
    ill = {"id": np.arange(100), "age": TABLE["age"], "sick": np.arange(100) % 3 == 0}
    with connect(nodes) as lake:
        table = lake.upload(ill, name="ill", key="id", owner="hospital")
        model = LogisticRegression(max_iter=4, check=False).fit(table, target="sick")
        model.save("risk")
        coefficients = lake.model("risk").reveal().coef_[0]
        model.save("risk")
        with pytest.raises(ConsentError, match="model 'other' is kept as 'risk' already, and only once"):
            model.save("other")
        np.testing.assert_array_equal(lake.model("risk").reveal().coef_[0], coefficients)
        assert [one.name for one in lake.entries() if one.kind == "model"] == ["risk"]


@pytest.mark.parametrize(("number", "share"), [(signal.SIGTERM, 0.5), (signal.SIGKILL, 0.0)])
def test_a_node_that_lost_lines_of_its_audit_log(nodes, number, share, command):
    path = nodes.root / "n1" / "audit.log"
    nodes.stop(1, number)
    lines = path.read_text().splitlines(keepends=True)
    left = int(share * len(lines))
    path.write_text("".join(lines[:left]))
    nodes.start(1)
    assert nodes.processes.pop(1).wait(timeout=60) == 1
    assert "audit.log has lost lines: it had" in (nodes.root / "n1" / "log").read_text()
    nodes.programs[1] = ["-m", "tercet", "node", "node.toml", "--log-lost"]
    nodes.start(1)
    nodes.wait_until_ready()
    del nodes.programs[1]
    told = [parse(line)["event"] for line in path.read_text().splitlines()[left:]]
    assert told[:2] == ["lost", "started"]
    nodes.stop(1)
    nodes.start(1)
    nodes.wait_until_ready()
    noted = nodes.root / "n1" / "node.audited.json"
    noted.unlink(missing_ok=True)  # which would miss what was lost
    assert "lines, whole; head" in command("audit", "--verify", "node.toml", cwd=nodes.root / "n1")
    assert noted.exists()


def test_a_node_that_lost_its_catalog_is_named(nodes):
    nodes.stop(2)
    (nodes.root / "n2" / "catalog.sqlite").unlink()
    kept = files(nodes, 2)
    nodes.start(2)
    assert nodes.processes.pop(2).wait(timeout=60) == 1
    assert "is empty, but there are files of shares: restore it" in nodes.logs()
    assert kept == files(nodes, 2)
    for path in kept:
        path.unlink()
    nodes.start(2)
    nodes.wait_until_ready()
    with connect(nodes) as lake:
        with pytest.raises(StorageError, match=r"not the same at all nodes \(party 2 differ"):
            lake.table("ages")
        assert lake.tables() == []
        lake.upload(TABLE, name="ages", key="id", owner="hospital")
        np.testing.assert_allclose(lake.table("ages").reveal("age")["age"], TABLE["age"], atol=1e-3)
        with pytest.raises(SchemaError, match="no table 'agse'"):
            lake.table("agse")
