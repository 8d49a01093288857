"""Setting up: keys and public parts of nodes and members, and the file of a lake made of public parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tercet.errors import ConfigError
from tercet.members.config import NODE_TOML, ClusterFile, Member, NodeEntry, check_name, check_roles
from tercet.members.keys import MemberKeys
from tercet.storage.data_key import make_storage_key
from tercet.transports import make_identity
from tercet.transports.tcp import join_address, split_address


def make_node(
    name: str, address: str, directory: Path, *, listen: str = "", metrics: str = "", threads: int = 1
) -> Path:
    """Make a node's keys, its `node.toml` and its public part, whose path is returned.

    `address` is where others find it; by default it listens there on all interfaces. Raises ConfigError or
    TransportError, before anything is replaced.
    """
    check_name(name, "this node")
    _refuse_slash(name)
    _, port = split_address(address)
    _refuse_to_replace(directory, ["node.toml", "node.key", "storage.key", "public.toml"])
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    identity = make_identity(name)
    identity.save(directory / "node.key")
    make_storage_key(directory / "storage.key")
    text = NODE_TOML.format(
        listen=f'"{listen or join_address("0.0.0.0", port)}"',  # noqa: S104 - a node is there to be reached
        metrics=f'"{metrics}"',
        threads=threads,
    )
    (directory / "node.toml").write_text(text)
    public = directory / "public.toml"
    ClusterFile("replicated", (NodeEntry(name, address, identity.certificate_pem),), ()).write(public)
    return public


def make_member(name: str, roles: Sequence[str], directory: Path) -> Path:
    """Make a member's key, `NAME.key`, and its public part, `NAME.public.toml`, whose path is returned."""
    check_name(name, "this member")
    _refuse_slash(name)
    check_roles(name, roles, "this member")
    _refuse_to_replace(directory, [f"{name}.key", f"{name}.public.toml"])
    directory.mkdir(parents=True, exist_ok=True)
    identity = make_identity(name)
    identity.save(directory / f"{name}.key")
    member = Member(name, tuple(roles), identity.certificate_pem, MemberKeys(identity).sealing_key)
    public = directory / f"{name}.public.toml"
    ClusterFile("replicated", (), (member,)).write(public)
    return public


def make_cluster(parts: Sequence[Path], to: Path, *, protocol: str) -> ClusterFile:
    """Merge public parts into the file of a lake, in this order. Raises ConfigError if it is not whole."""
    merged = ClusterFile.merge([ClusterFile.read_part(part) for part in parts], protocol=protocol)
    merged.check("the merged file")
    merged.write(to)
    return merged


def _refuse_slash(name: str) -> None:
    if "/" in name:
        raise ConfigError(f"the name {name!r} has a slash in it, and so cannot be that of a file")


def _refuse_to_replace(directory: Path, names: Sequence[str]) -> None:
    for name in names:
        if (directory / name).exists():
            raise ConfigError(f"{directory / name} is there already; remove it, or take another --directory")
