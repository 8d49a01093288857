"""The lake's files: what is written is read again, and what is wrong is named."""

from __future__ import annotations

import datetime as dt

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import ConfigError
from tercet.members.config import ClusterFile, Member, NodeEntry
from tercet.members.keys import MemberKeys
from tercet.members.node_file import NodeFile
from tercet.nodes.setup import make_cluster, make_member, make_node
from tercet.transports import make_identity

pytestmark = pytest.mark.smoke
IDENTITIES = [make_identity(f"n{number}") for number in range(5)]


def cluster(**changes):
    nodes = tuple(NodeEntry(f"n{i}", f"127.0.0.1:70{i}", IDENTITIES[i].certificate_pem) for i in range(3))
    members = tuple(
        Member(name, ("owner",), IDENTITIES[i].certificate_pem, MemberKeys(IDENTITIES[i]).sealing_key)
        for i, name in ((3, "ann"), (4, "bob"))
    )
    return attrs.evolve(ClusterFile("replicated", nodes, members), **changes)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "cluster.toml"
    cluster().write(path)
    assert ClusterFile.read(path) == cluster()
    assert ClusterFile.read(path).digest() == cluster().digest()


def node(index, **changes):
    nodes = list(cluster().nodes)
    nodes[index] = attrs.evolve(nodes[index], **changes)
    return cluster(nodes=tuple(nodes))


def member(**changes):
    first, *rest = cluster().members
    return cluster(members=(attrs.evolve(first, **changes), *rest))


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (cluster(nodes=cluster().nodes[:2]), "has 2 nodes, protocol 'replicated' runs with 3"),
        (node(1, name="n0"), "two entries of the name 'n0'"),
        (node(1, name="party 2"), "means something else"),
        (member(name="analyst"), "means something else"),
        (member(name="a\x1b[31m"), "is no name"),
        (member(name=""), "is no name"),
        (node(2, address="here"), "is no address"),
        (node(2, certificate=IDENTITIES[0].certificate_pem), "same certificate is pinned"),
        (node(2, certificate="nonsense"), "no certificate in PEM form"),
        (member(roles=("boss",)), "has the roles"),
        (member(roles=()), "has the roles"),
        (member(sealing_key="abc"), "not 64 hexadecimal digits"),
        (cluster(number=0), "has the number 0"),
        (cluster(number=10**30, takes_effect=dt.datetime.now(dt.UTC)), "numbers of up to 999,999"),
    ],
)
def test_what_does_not_fit_is_named(file, why):
    with pytest.raises(ConfigError, match=why):
        file.check("the file")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not say 'format'"),
        ("format = 2", "has format 2"),
        ('format = "one"', "not of kind int"),
        ("format = true", "not of kind int"),
        ("format = 1\nprotocl = 'replicated'", "did you mean 'protocol'"),
        ("format = 1\n[node]\nname = 'a'", "not of kind list"),
        ("format = 1\nnode = [1]", "write node as tables"),
        ("format = 1\n[[node]]\nname = 'a'", "node 1 does not say 'address'"),
        ("format = 1\n[[member]]\nname = 'a'\nroles = [1]", "not a list of strings"),
        ("format =", "is no TOML file"),
        ("\x00", "is no TOML file"),
        ("format = " + "1" * 9999, "is no TOML file"),
        ("format = 1\ntakes_effect = 9999-12-31T23:59:59-12:00", "takes_effect = .* is beyond the calendar"),
        ("format = 1\ntakes_effect = 0001-01-01T00:00:00+12:00", "takes_effect = .* is beyond the calendar"),
    ],
)
def test_a_file_with_an_error(text, why, tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why):
        ClusterFile.read(path)


@given(st.binary(max_size=400))
def test_any_bytes_give_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "cluster.toml"
    path.write_bytes(data)
    for read in (ClusterFile.read, NodeFile.read):
        with pytest.raises(ConfigError):
            read(path)


def test_digests_tell_who_is_who_and_not_where():
    assert node(0, address="10.0.0.1:7000").digest() == cluster().digest()
    others = [node(0, name="x"), member(roles=("analyst",)), cluster(nodes=cluster().nodes[::-1])]
    assert len({one.digest() for one in (*others, cluster())}) == 4


def test_a_node_is_set_up_once(tmp_path):
    public = make_node("n0", "127.0.0.1:7000", tmp_path / "n0", metrics="127.0.0.1:9000")
    file = NodeFile.read(tmp_path / "n0" / "node.toml")
    assert (file.listen, file.metrics, file.threads) == ("0.0.0.0:7000", "127.0.0.1:9000", 1)
    assert (file.key.stat().st_mode | file.storage_key.stat().st_mode) & 0o077 == 0
    assert ClusterFile.read_part(public).nodes[0].name == "n0"
    before = file.key.read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        make_node("n0", "127.0.0.1:7000", tmp_path / "n0")
    assert file.key.read_bytes() == before


@pytest.mark.parametrize("value", ["1" + "0" * 400, "nan", "-inf"])
def test_numbers_without_bounds(tmp_path, value):
    make_node("n0", "127.0.0.1:7000", tmp_path / "n0")
    path = tmp_path / "n0" / "node.toml"
    path.write_text(path.read_text().replace("timeout_s = 6.0", f"timeout_s = {value}"))
    with pytest.raises(ConfigError, match="timeout_s = "):
        NodeFile.read(path)


def test_merging(tmp_path):
    parts = [make_node(f"n{i}", f"127.0.0.1:70{i}", tmp_path / f"n{i}") for i in range(3)]
    parts.append(make_member("ann", ["analyst", "owner"], tmp_path))
    merged = make_cluster(parts, tmp_path / "cluster.toml", protocol="replicated")
    assert merged == ClusterFile.read(tmp_path / "cluster.toml")
    assert [entry.name for entry in merged.entries] == ["n0", "n1", "n2", "ann"]
    with pytest.raises(ConfigError, match="has 2 nodes"):
        make_cluster(parts[:2], tmp_path / "other.toml", protocol="replicated")
    assert not (tmp_path / "other.toml").exists()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("threads = 0", "too small"),
        ('listen = "nowhere"', "no address"),
        ("timeout_s = false", "not of kind float"),
        ("grace = 3", "did you mean 'grace_s'"),
    ],
)
def test_a_node_file_with_an_error(line, why, tmp_path):
    path = tmp_path / "node.toml"
    name = line.partition(" ")[0]
    path.write_text(f"{line}\n" if name == "listen" else f'listen = "127.0.0.1:7000"\n{line}\n')
    with pytest.raises(ConfigError, match=why):
        NodeFile.read(path)
