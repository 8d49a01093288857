"""Setting up: keys and public parts of nodes and members, and the file of a lake made of public parts."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from pathlib import Path

import attrs

from tercet.errors import ConfigError
from tercet.members.config import ClusterFile, Former, Member, NodeEntry, check_name, check_roles
from tercet.members.keys import MemberKeys
from tercet.members.node_file import NODE_TOML
from tercet.storage.data_key import make_storage_key
from tercet.transports import Identity, make_identity
from tercet.transports.identity import replace_identities
from tercet.transports.tcp import join_address, split_address

MOST_DAYS = 36_500
"""How long a certificate may be valid."""


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


def renew_key(path: Path, cluster: ClusterFile, *, days: float = 365.0) -> Path:
    """Make a new key for the node or member whose key a file has, and a public part, whose path is returned.

    The new key is the first one in the file, and those before it stay: the lake goes by the one before until
    its nodes go by a cluster.toml that lists the new one, and results that were sealed to it still open. A
    second time, before that, writes the public part again. Raises ConfigError, TransportError or OSError.
    """
    if not 0 < days <= MOST_DAYS:
        raise ConfigError(f"a certificate cannot be valid for {days:g} days; say 1 to {MOST_DAYS:,}")
    identities = Identity.read_all(path)
    found = cluster.of_mine(identities)
    if found is None:
        raise ConfigError(
            f"cluster.toml lists nobody with a certificate that is in {path}; give the present one"
        )
    own = found[1]
    entry = next(one for one in cluster.entries if one.certificate.strip() == own.certificate_pem.strip())
    if own is identities[0]:
        new = make_identity(entry.name, valid_for=dt.timedelta(days=days))
        identities = (new, *identities)
        replace_identities(path, identities)
    former = list(entry.former)
    for one, after in itertools.pairwise(reversed(identities[: identities.index(own) + 1])):
        sealed = [MemberKeys(each).sealing_key if isinstance(entry, Member) else "" for each in (one, after)]
        vouches = MemberKeys(one).vouch(after.certificate_pem, sealed[1])
        former.append(Former(one.certificate_pem, vouches, sealing_key=sealed[0]))
    certificate = identities[0].certificate_pem
    if isinstance(entry, Member):
        sealing_key = MemberKeys(identities[0]).sealing_key
        member = attrs.evolve(entry, certificate=certificate, sealing_key=sealing_key, former=tuple(former))
        public, part = path.with_name(f"{path.stem}.public.toml"), ClusterFile("replicated", (), (member,))
    else:
        node = attrs.evolve(entry, certificate=certificate, former=tuple(former))
        public, part = path.with_name("public.toml"), ClusterFile("replicated", (node,), ())
    part.write(public)
    return public


def keys_of_node(path: Path, cluster: ClusterFile) -> MemberKeys:
    """Those of a file that a cluster.toml lists, the latest if none. Raises TransportError."""
    identities = Identity.read_all(path)
    found = cluster.of_mine(identities)
    return MemberKeys(identities[0] if found is None else found[1])


def _refuse_slash(name: str) -> None:
    if "/" in name:
        raise ConfigError(f"the name {name!r} has a slash in it, and so cannot be that of a file")


def _refuse_to_replace(directory: Path, names: Sequence[str]) -> None:
    for name in names:
        if (directory / name).exists():
            raise ConfigError(f"{directory / name} is there already; remove it, or take another --directory")
