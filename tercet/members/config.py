"""The files of a lake: `cluster.toml`, the same for everybody, and `node.toml`, one at each node.

`cluster.toml` lists the nodes in the order of their party numbers, and the members (owners, analysts,
operators, auditors), each with a certificate: nothing in it is secret, and its digest is compared whenever
two ends meet. Each node and member makes its own entry, its public part, in the same format; merging them
makes the file. Unknown names and values of a wrong kind are refused with a sentence, since a typing error in
a file like this must not pass as a default.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import msgpack
import tomlkit
from tomlkit.items import Item

from tercet.errors import ConfigError, TransportError
from tercet.members.quota import Quota
from tercet.protocols import registry
from tercet.protocols.base import Protocol
from tercet.transports.identity import Pins, public_key
from tercet.transports.names import CLIENT, is_party, party_name
from tercet.transports.tcp import split_address

T = TypeVar("T")

FORMAT = 1
ROLES = ("owner", "analyst", "operator", "auditor")
RESERVED = (CLIENT, "analyst", "nodes", "everyone")
"""Names that mean something else than a member."""
LONGEST_NAME = 64


@attrs.frozen
class NodeEntry:
    """A node as all others know it: a name for people, where it listens, its certificate (PEM)."""

    name: str
    address: str
    certificate: str


@attrs.frozen
class Member:
    """Someone who uses the lake. `sealing_key` (X25519, hex) is what results for them are encrypted to."""

    name: str
    roles: tuple[str, ...]
    certificate: str
    sealing_key: str


@attrs.frozen
class ClusterFile:
    """Who makes up a lake; or, as a public part, a single entry of it."""

    protocol: str
    nodes: tuple[NodeEntry, ...]
    members: tuple[Member, ...]

    @classmethod
    def read(cls, path: Path) -> ClusterFile:
        """Read and check a whole file. Raises ConfigError."""
        found = cls.read_part(path)
        found.check(str(path))
        return found

    @classmethod
    def read_part(cls, path: Path) -> ClusterFile:
        """Read entries, be they whole or not. Raises ConfigError."""
        fields = Fields(_load(path), str(path))
        version = fields.take("format", int)
        if version != FORMAT:
            raise ConfigError(
                f"{path} has format {version}, this release reads {FORMAT}; update the older side"
            )
        protocol = fields.take("protocol", str, "replicated")
        nodes = [_read_node(one) for one in fields.tables("node")]
        members = [_read_member(one) for one in fields.tables("member")]
        fields.done()
        return cls(protocol, tuple(nodes), tuple(members))

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
            _in(where, entry.name, public_key, entry.certificate)

    @property
    def entries(self) -> tuple[NodeEntry | Member, ...]:
        """All nodes and members."""
        return (*self.nodes, *self.members)

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

    def digest(self) -> bytes:
        """32 bytes that stand for who is who. Addresses may differ from network to network."""
        body = [
            FORMAT,
            self.protocol,
            [[node.name, node.certificate.strip()] for node in self.nodes],
            [[one.name, sorted(one.roles), one.certificate.strip(), one.sealing_key] for one in self.members],
        ]
        return hashlib.blake2b(msgpack.packb(body), digest_size=32, person=b"tercet-lake").digest()

    def write(self, path: Path) -> None:
        """Write the file; whatever was there is replaced."""
        document = tomlkit.document()
        document.add(
            tomlkit.comment("Who makes up this lake. Nothing here is secret; all must have the same.")
        )
        document.add("format", tomlkit.item(FORMAT))
        document.add("protocol", tomlkit.item(self.protocol))
        for kind, entries in (("node", self.nodes), ("member", self.members)):
            tables = tomlkit.aot()
            for entry in entries:
                table = tomlkit.table()
                for name, value in attrs.asdict(entry).items():
                    table.add(name, _item(value))
                tables.append(table)
            if entries:
                document.add(kind, tables)
        path.write_text(tomlkit.dumps(document))


def _read_node(fields: Fields) -> NodeEntry:
    found = NodeEntry(fields.take("name", str), fields.take("address", str), fields.take("certificate", str))
    fields.done()
    return found


def _read_member(fields: Fields) -> Member:
    found = Member(
        fields.take("name", str),
        tuple(fields.strings("roles")),
        fields.take("certificate", str),
        fields.take("sealing_key", str),
    )
    fields.done()
    return found


def _item(value: str | tuple[str, ...]) -> Item:
    if isinstance(value, tuple):
        return tomlkit.item(list(value))
    return tomlkit.string(value, multiline="\n" in value)


def _in(where: str, who: str, check: Callable[..., object], *args: Any) -> None:
    try:
        check(*args)
    except TransportError as error:
        raise ConfigError(f"{where}, {who}: {error}") from error


def _check_member(member: Member, where: str) -> None:
    check_roles(member.name, member.roles, where)
    try:
        right = len(bytes.fromhex(member.sealing_key)) == 32
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


@attrs.frozen
class NodeFile:
    """What only one node is told; paths and URLs of files are relative to the file's directory."""

    directory: Path
    cluster: Path
    key: Path
    storage_key: Path
    listen: str
    storage: str
    catalog: str
    metrics: str
    threads: int
    timeout_s: float
    grace_s: float
    runs_at_once: int
    memory_mb: int
    scratch: Path | None
    quota: Quota = attrs.field(factory=Quota)

    @classmethod
    def read(cls, path: Path) -> NodeFile:
        """Read `node.toml`. Raises ConfigError."""
        fields, here = Fields(_load(path), str(path)), path.resolve().parent
        found = cls(
            directory=here,
            cluster=here / fields.take("cluster", str, "cluster.toml"),
            key=here / fields.take("key", str, "node.key"),
            storage_key=here / fields.take("storage_key", str, "storage.key"),
            listen=fields.take("listen", str),
            storage=fields.take("storage", str, "data"),
            catalog=fields.take("catalog", str, "sqlite:///catalog.sqlite"),
            metrics=fields.take("metrics", str, ""),
            threads=fields.take("threads", int, 1),
            timeout_s=fields.take("timeout_s", float, 6.0),
            grace_s=fields.take("grace_s", float, 30.0),
            runs_at_once=fields.take("runs_at_once", int, 4),
            memory_mb=fields.take("memory_mb", int, 4096),
            scratch=here / scratch if (scratch := fields.take("scratch", str, "")) else None,
            quota=Quota.read(fields.take("quota", dict, {}), str(path)),
        )
        fields.done()
        for name, least in (
            ("threads", 1),
            ("timeout_s", 0.5),
            ("grace_s", 0),
            ("runs_at_once", 1),
            ("memory_mb", 1),
        ):
            if not getattr(found, name) >= least:
                raise ConfigError(f"{path}: {name} = {getattr(found, name)} is too small; at least {least}")
        if found.scratch is not None and not found.scratch.is_dir():
            raise ConfigError(f"{path}: scratch = {str(found.scratch)!r} is no directory; make it")
        for name, address in (("listen", found.listen), ("metrics", found.metrics)):
            if address or name == "listen":
                _in(str(path), name, split_address, address)
        return found


NODE_TOML = """\
# One node of a Tercet lake. Paths are relative to this file.
listen = {listen}                 # where other nodes and members connect to
cluster = "cluster.toml"          # who makes up the lake: the same file at every node
key = "node.key"                  # keep it secret
storage_key = "storage.key"       # what stored shares are encrypted with: keep it secret, and back it up
storage = "data"                  # a directory, or a URL that fsspec knows: "s3://bucket/prefix"
catalog = "sqlite:///catalog.sqlite"  # or "postgresql+psycopg://user@host/database"
metrics = {metrics}               # /health and /metrics (Prometheus); "" for none
threads = {threads}               # cores that plans may use
timeout_s = 6.0                   # a peer that is silent for so long is lost
grace_s = 30.0                    # how long a stop waits for runs under way
runs_at_once = 4                  # more plans wait for their turn
memory_mb = 4096                  # stored tables that are held in memory at most
scratch = ""                      # for plans larger than memory: a directory on an encrypted disk

[quota]                           # what each member may have at this node
dealt_mb = 16384                  # values that are not kept under a name, ...
values = 16384                    # ... and how many of them
kept_mb = 65536                   # tables and models
entries = 1024                    # ... and how many of them
waiting = 64                      # plans that wait for approval
queued = 64                       # plans under way, and in a queue for their turn
results = 256                     # results for each other member
results_mb = 1024                 # results and jobs that wait to be fetched
log_lines = 36000                 # lines of the audit log in an hour
connections = 32                  # at a time
requests = 200                    # a second; whoever asks for more is read more slowly
core_percent = 25                 # of a core, for reading, checking and storing what members send
"""


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror or error}); `tercet init` makes it"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from error


_REQUIRED: Any = object()


class Fields:
    """The values of a table in a file: each taken once, by name, kind and default; no others may be there."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._table = table
        self._where = where
        self._known: list[str] = []

    def take(self, name: str, kind: type[T], default: T = _REQUIRED) -> T:
        """A value; whole numbers pass for floats.

        Raises ConfigError if it is missing without default, or of another kind.
        """
        self._known.append(name)
        if name not in self._table:
            if default is _REQUIRED:
                raise ConfigError(f"{self._where} does not say {name!r}; add it")
            return default
        value: Any = self._table[name]
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise ConfigError(f"{self._where}: {name} = {value!r:.80} is not of kind {kind.__name__}")
        return value

    def strings(self, name: str) -> list[str]:
        """A list of strings."""
        values = self.take(name, list)
        if not all(isinstance(value, str) for value in values):
            raise ConfigError(f"{self._where}: {name} = {values!r:.80} is not a list of strings")
        return values

    def tables(self, name: str) -> list[Fields]:
        """The tables `[[name]]`; each must be used up by who takes it."""
        values = self.take(name, list, [])
        if not all(isinstance(value, dict) for value in values):
            raise ConfigError(f"{self._where}: write {name} as tables, [[{name}]]")
        return [Fields(value, f"{self._where}, {name} {number}") for number, value in enumerate(values, 1)]

    def done(self) -> None:
        """Raise ConfigError if something is there that nobody took."""
        for name in self._table:
            if name not in self._known:
                near = difflib.get_close_matches(name, self._known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(self._known)}"
                raise ConfigError(f"{self._where} has {name!r}, which means nothing; {hint}")
