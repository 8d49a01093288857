"""The files of a lake: `cluster.toml`, the same for everybody, and `node.toml`, one at each node.

`cluster.toml` lists the nodes in the order of their party numbers, and the members (owners, analysts,
operators, auditors), each with a certificate: nothing in it is secret, and its digest is compared whenever
two ends meet. Each node and member makes its own entry, its public part, in the same format; merging them
makes the file. Unknown names and values of a wrong kind are refused with a sentence, since a typing error in
a file like this must not pass as a default.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgpack
import tomlkit
from tomlkit.items import AoT, Item

from tercet.errors import ConfigError, TransportError
from tercet.members.keys import vouched_for
from tercet.members.toml_fields import Fields, in_utc, load, parsed
from tercet.protocols import registry
from tercet.protocols.base import Protocol
from tercet.transports.identity import Identity, Pins, public_key
from tercet.transports.names import CLIENT, is_party, party_name
from tercet.transports.tcp import split_address

FORMAT = 1
ROLES = ("owner", "analyst", "operator", "auditor")
RESERVED = (CLIENT, "analyst", "nodes", "everyone")
"""Names that mean something else than a member."""
LONGEST_NAME = 64
_DIGEST = re.compile(r"[0-9a-f]{64}")
MOST_BYTES = 1 << 20
"""Of a file that travels."""
MOST_NUMBER = 999_999
"""Files of a lake."""
MOST_FORMER = 64
"""Earlier certificates of a node or member."""


@attrs.frozen
class Former:
    """An earlier certificate (PEM) of a node or member, with the sealing key that a member had then.

    `vouches` is its key's signature over those that came after it, in hexadecimal, empty where the key was
    lost. What a `revoked` key has signed does not count any more, but for the lines of an audit log that come
    before the change.
    """

    certificate: str
    vouches: str = ""
    revoked: bool = False
    sealing_key: str = ""


@attrs.frozen
class Listed:
    """What nodes and members have in common: a name for people, a certificate (PEM), and earlier ones."""

    name: str
    certificate: str
    former: tuple[Former, ...] = attrs.field(default=(), kw_only=True)

    @property
    def certificates(self) -> tuple[str, ...]:
        """All certificates, the first one first."""
        return (*(one.certificate for one in self.former), self.certificate)

    @property
    def sealing_keys(self) -> tuple[str, ...]:
        """The sealing keys of a member that belong to these; those of a node are empty."""
        return (*(one.sealing_key for one in self.former), getattr(self, "sealing_key", ""))

    @property
    def trusted(self) -> tuple[str, ...]:
        """Certificates whose signatures from their time count: the present one, and those not revoked."""
        return (self.certificate, *(one.certificate for one in self.former if not one.revoked))


@attrs.frozen
class NodeEntry(Listed):
    """A node as all others know it: a name for people, where it listens, its certificate (PEM)."""

    name: str
    address: str
    certificate: str


@attrs.frozen
class Member(Listed):
    """Someone who uses the lake. `sealing_key` (X25519, hex) is what results for them are encrypted to."""

    name: str
    roles: tuple[str, ...]
    certificate: str
    sealing_key: str


@attrs.frozen
class Signed:
    """A node's signature, in hexadecimal, under the file that follows one in which the node is."""

    node: str
    signature: str


@attrs.frozen
class ClusterFile:
    """Who makes up a lake; or, as a public part, a single entry of it.

    The first file of a lake has the number 1. One that follows it names the lake, by the digest of that first
    file, and the file before it, and says when it takes effect, which names of members are gone, and which
    nodes have signed it (see `succession`).
    """

    protocol: str
    nodes: tuple[NodeEntry, ...]
    members: tuple[Member, ...]
    number: int = attrs.field(default=1, kw_only=True)
    first: str = attrs.field(default="", kw_only=True)
    follows: str = attrs.field(default="", kw_only=True)
    takes_effect: dt.datetime | None = attrs.field(default=None, kw_only=True)
    removed: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    signatures: tuple[Signed, ...] = attrs.field(default=(), kw_only=True)

    @classmethod
    def read(cls, path: Path) -> ClusterFile:
        """Read and check a whole file. Raises ConfigError."""
        found = cls.read_part(path)
        found.check(str(path))
        return found

    @classmethod
    def read_part(cls, path: Path) -> ClusterFile:
        """Read entries, be they whole or not. Raises ConfigError."""
        return cls.of(load(path), str(path))

    @classmethod
    def parse(cls, packed: bytes, where: str) -> ClusterFile:
        """A whole file as it travels, checked. Raises ConfigError."""
        if len(packed) > MOST_BYTES:
            raise ConfigError(f"{where} has {len(packed)} bytes; {MOST_BYTES} are enough for any lake")
        found = cls.of(parsed(packed, where), where)
        found.check(where)
        return found

    @classmethod
    def of(cls, table: Mapping[str, Any], where: str) -> ClusterFile:
        """What a parsed file says. Raises ConfigError."""
        fields = Fields(table, where)
        version = fields.take("format", int)
        if version != FORMAT:
            raise ConfigError(
                f"{where} has format {version}, this release reads {FORMAT}; update the older side"
            )
        protocol = fields.take("protocol", str, "replicated")
        nodes = [_read_node(one) for one in fields.tables("node")]
        members = [_read_member(one) for one in fields.tables("member")]
        takes_effect = fields.take("takes_effect", dt.datetime, None)
        if takes_effect is not None and takes_effect.tzinfo is None:
            raise ConfigError(f"{where}: takes_effect has no time zone; write a Z after it for UTC")
        takes_effect = None if takes_effect is None else in_utc(takes_effect, f"{where}: takes_effect")
        signatures = [_read_signed(one) for one in fields.tables("signature")]
        found = cls(
            protocol,
            tuple(nodes),
            tuple(members),
            number=fields.take("number", int, 1),
            first=fields.take("first", str, ""),
            follows=fields.take("follows", str, ""),
            takes_effect=takes_effect,
            removed=tuple(fields.strings("removed", [])),
            signatures=tuple(signatures),
        )
        fields.done()
        return found

    @classmethod
    def merge(cls, parts: Sequence[ClusterFile], *, protocol: str) -> ClusterFile:
        """The file made of public parts, in their order."""
        return cls(
            protocol,
            tuple(node for part in parts for node in part.nodes),
            tuple(member for part in parts for member in part.members),
        )

    def check(self, where: str) -> None:
        """Raise ConfigError unless this is the description of a whole lake."""
        sizes = self.protocol_class.sizes
        if len(self.nodes) not in sizes:
            raise ConfigError(
                f"{where} has {len(self.nodes)} nodes, protocol {self.protocol!r} runs with "
                f"{' or '.join(map(str, sizes))}; merge the public parts of all nodes"
            )
        names = [entry.name for entry in self.entries]
        for name in names:
            check_name(name, where)
            if names.count(name) > 1:
                raise ConfigError(f"{where} has two entries of the name {name!r}; let one take another name")
        for node in self.nodes:
            _in(where, node.name, split_address, node.address)
        for member in self.members:
            _check_member(member, where)
        _in(where, "its entries", Pins.read, self.pins())
        for entry in self.entries:
            _check_certificates(entry, where)
        ever = {
            f"{entry.name}, key {number}": one
            for entry in self.entries
            for number, one in enumerate(entry.certificates, 1)
        }
        _in(where, "its entries", Pins.read, ever)
        if not 1 <= self.number <= MOST_NUMBER or (self.number > 1) != (self.takes_effect is not None):
            raise ConfigError(
                f"{where} has the number {self.number}; a lake's first file has the number 1 and no time at "
                f"which it takes effect, those that follow have one, and numbers of up to {MOST_NUMBER:,}"
            )
        for name, value in (("first", self.first), ("follows", self.follows)):
            if (value and not _DIGEST.fullmatch(value)) or bool(value) != (self.number > 1):
                raise ConfigError(f"{where}: {name} = {value!r:.80} is not the digest of an earlier file")

    @property
    def entries(self) -> tuple[NodeEntry | Member, ...]:
        """All nodes and members."""
        return (*self.nodes, *self.members)

    @property
    def lake(self) -> bytes:
        """32 bytes that stand for the lake, whoever comes and goes: the digest of its first file."""
        return self.digest() if self.number == 1 else bytes.fromhex(self.first)

    @property
    def protocol_class(self) -> type[Protocol]:
        """The protocol that the nodes run."""
        return registry.get(self.protocol)

    def pins(self, *, nodes_only: bool = False) -> dict[str, str]:
        """Certificates by the name under which links go: party 0, party 1, ..., and members by their own."""
        found = {party_name(index): node.certificate for index, node in enumerate(self.nodes)}
        return found if nodes_only else found | {member.name: member.certificate for member in self.members}

    def member(self, name: str) -> Member | None:
        """A member by name."""
        return next((member for member in self.members if member.name == name), None)

    def name_of(self, certificate: str) -> str | None:
        """Under which name links go that are authenticated by a certificate."""
        return next((name for name, pem in self.pins().items() if pem.strip() == certificate.strip()), None)

    def of_mine(self, identities: Sequence[Identity]) -> tuple[str, Identity] | None:
        """Which of one's own identities the file lists, and under which name links go."""
        named = ((self.name_of(one.certificate_pem), one) for one in identities)
        return next(((name, one) for name, one in named if name is not None), None)

    def digest(self) -> bytes:
        """32 bytes that stand for who is who. Addresses may differ from network to network."""
        body: list[Any] = [
            FORMAT,
            self.protocol,
            [[node.name, node.certificate.strip()] for node in self.nodes],
            [[one.name, sorted(one.roles), one.certificate.strip(), one.sealing_key] for one in self.members],
        ]
        former = [
            [one.name, [list(attrs.astuple(f)) for f in one.former]] for one in self.entries if one.former
        ]
        if self.number > 1 or former:
            when = "" if self.takes_effect is None else self.takes_effect.astimezone(dt.UTC).isoformat()
            body += [self.number, self.first, self.follows, when, sorted(self.removed), former]
        return hashlib.blake2b(msgpack.packb(body), digest_size=32, person=b"tercet-lake").digest()

    def write(self, path: Path) -> None:
        """Write the file; whatever was there is replaced."""
        path.write_text(self.to_text())

    def to_text(self) -> str:
        """The file."""
        document = tomlkit.document()
        document.add(
            tomlkit.comment("Who makes up this lake. Nothing here is secret; all must have the same.")
        )
        document.add("format", tomlkit.item(FORMAT))
        document.add("protocol", tomlkit.item(self.protocol))
        for name in ("number", "first", "follows", "takes_effect", "removed"):
            if (value := getattr(self, name)) not in (1, "", None, ()):
                document.add(name, _item(value))
        for kind, entries in (("node", self.nodes), ("member", self.members), ("signature", self.signatures)):
            if entries:
                document.add(kind, _tables(entries))
        return tomlkit.dumps(document)


def _tables(entries: Sequence[Any]) -> AoT:
    found = tomlkit.aot()
    for entry in entries:
        table = tomlkit.table()
        for name in attrs.fields_dict(type(entry)):
            value = getattr(entry, name)
            if name == "former" and value:
                table.add(name, _tables(value))
            elif name != "former":
                table.add(name, _item(value))
        found.append(table)
    return found


def _read_node(fields: Fields) -> NodeEntry:
    name, address = fields.take("name", str), fields.take("address", str)
    found = NodeEntry(name, address, fields.take("certificate", str), former=_read_former(fields))
    fields.done()
    return found


def _read_member(fields: Fields) -> Member:
    found = Member(
        fields.take("name", str),
        tuple(fields.strings("roles")),
        fields.take("certificate", str),
        fields.take("sealing_key", str),
        former=_read_former(fields),
    )
    fields.done()
    return found


def _read_former(fields: Fields) -> tuple[Former, ...]:
    found = []
    for one in fields.tables("former"):
        vouches, revoked = one.take("vouches", str, ""), one.take("revoked", bool, default=False)
        sealing_key = one.take("sealing_key", str, "")
        found.append(Former(one.take("certificate", str), vouches, revoked, sealing_key))
        one.done()
    return tuple(found)


def _read_signed(fields: Fields) -> Signed:
    found = Signed(fields.take("node", str), fields.take("signature", str))
    fields.done()
    return found


def _item(value: Any) -> Item:
    if isinstance(value, str):
        return tomlkit.string(value, multiline="\n" in value)
    found: Item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
    return found


def _in(where: str, who: str, check: Callable[..., object], *args: Any) -> None:
    try:
        check(*args)
    except TransportError as error:
        raise ConfigError(f"{where}, {who}: {error}") from error


def _check_certificates(entry: Listed, where: str) -> None:
    """Raise ConfigError for a certificate that is none, or an earlier one that names another successor."""
    for certificate in entry.certificates:
        _in(where, entry.name, public_key, certificate)
    if len(entry.former) > MOST_FORMER:
        raise ConfigError(f"{where}: {entry.name} has more than {MOST_FORMER} earlier certificates")
    for one, *after in zip(entry.former, entry.certificates[1:], entry.sealing_keys[1:], strict=True):
        if one.vouches and not vouched_for(one.certificate, one.vouches, *after):
            raise ConfigError(
                f"{where}: an earlier certificate of {entry.name} does not vouch for the one after it; take "
                "the public part that `tercet renew` has written, as it is"
            )


def _check_member(member: Member, where: str) -> None:
    check_roles(member.name, member.roles, where)
    try:
        right = all(len(bytes.fromhex(one)) == 32 for one in member.sealing_keys)
    except ValueError:
        right = False
    if not right:
        raise ConfigError(
            f"{where}: the sealing key of {member.name} is not 64 hexadecimal digits; copy it again"
        )


def check_roles(name: str, roles: Sequence[str], where: str) -> None:
    """Raise ConfigError if a member cannot have these roles."""
    if not roles or not set(roles) <= set(ROLES):
        raise ConfigError(
            f"{where}: {name} has the roles {list(roles)}; a member has one or more of {', '.join(ROLES)}"
        )


def check_name(name: str, where: str) -> None:
    """Raise ConfigError if a node or member cannot have a name."""
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise ConfigError(f"{where}: {name!r:.80} is no name; use 1 to {LONGEST_NAME} printable characters")
    if is_party(name) or name in RESERVED:
        raise ConfigError(f"{where}: the name {name!r} means something else in Tercet; take another")
