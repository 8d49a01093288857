"""What decodes bytes from outside: each with valid inputs, and what it may raise for others.

From the network: frames, messages, hellos, plans, what parties, clients and nodes say, and descriptions that
other members have written. From files: `cluster.toml`, `node.toml`, keys, audit logs.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import msgpack

from tercet.actors.hello import Hello
from tercet.actors.progress import Progress
from tercet.actors.values import read_type
from tercet.errors import TercetError, from_wire
from tercet.members.approvals import Approval
from tercet.members.audit import AuditLog, read_lines
from tercet.members.audit_lines import check_lines
from tercet.members.config import ClusterFile, Former, Member, NodeEntry
from tercet.members.keys import MemberKeys
from tercet.members.node_file import NODE_TOML, NodeFile
from tercet.members.rules import Rules
from tercet.members.studies import Asked, Study, matches
from tercet.members.study_pages import Facts, page
from tercet.members.succession import draft, sign
from tercet.ml.models import FORMAT, SecretModel
from tercet.ml.numbers import SavedNumber
from tercet.ml.numbers.saved import describe
from tercet.ml.schema import ColumnSchema, TableSchema
from tercet.nodes.entries import read_entry as _read_entry
from tercet.nodes.job_words import Told
from tercet.plans import Builder, Form, Plan, Type, sigmoid
from tercet.plans.parsing import read_plan
from tercet.plans.review import review
from tercet.plans.tiles import Costs, Layout, Ledger
from tercet.protocols import registry
from tercet.protocols.domains import WORD_BYTES
from tercet.transports import Identity, make_identity
from tercet.transports.wire import FrameReader, encode_prefix, pack_message, unpack_message
from tests.fuzz import asked

IDENTITIES = [make_identity(f"n{number}") for number in range(5)]
KEYS = MemberKeys(IDENTITIES[3])
CERTIFICATE = IDENTITIES[3].certificate_pem


@attrs.frozen
class Target:
    """Something that decodes. Whatever is not valid raises `refuses`, and nothing else."""

    decode: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    tree: bool = True
    refuses: tuple[type[BaseException], ...] = (TercetError,)
    peak: int | None = None
    """Bytes that it may take besides, where that is more than decoding does."""


# What calls these turns errors of such kinds into sentences, as it must for whatever a peer provokes.
MALFORMED = (TercetError, TypeError, ValueError, KeyError, AttributeError, OverflowError, IndexError)


SHAPES = ((1,), (3, 100))
RULES = (
    Rules(readers=("ann",), columns=("age",), receivers=("ann",), uses=3, until=1.8e9),
    Rules(plans="any", classes=("figure",)),
    Rules(computations=("tables", "fit"), parameters_per_row=0.1),
)
OLD_RULES = msgpack.packb([["ann"], "any", 1, False])
"""Rules as the first release packed them."""


def small_plan() -> Plan:
    b = Builder("small", tile_rows=64)
    b.input("x", Type(Form.RING, (100,), 8, 2.0**20)).sum().reveal("total", to="ann")
    return b.plan()


def large_plan() -> Plan:
    b = Builder("fuzzed", tile_rows=64)
    x = b.input("x", Type(Form.RING, (3, 100), 8, 2.0**20))
    w = b.input("w", Type(Form.RING, (3,), 8, 2.0**20))
    z = (w @ x).rescale(8).bounded(2.0**11, "small")
    z.fourier(sigmoid(8.0, 1e-3), dealt_bits=20, coefficient_bits=14)[0].reveal("p", to="ann")
    (x.select([0]).squeeze() < 0).to_ring().sum().reveal("count", to="ann")
    x.dot(x).store("gram")
    keys = b.input("k", Type(Form.WORDS, (2, 100)))
    opened = b.apply_all("shuffle", b.apply("prf", b.random_words(2), keys), x)
    matched = b.apply("match", opened[0].open("pseudonyms"), rows="n")
    b.apply("take", opened[1], matched, table=0).store("joined")
    return b.plan()


def read_frames(data: bytes) -> None:
    reader = FrameReader()
    rest = memoryview(data)
    while len(rest):
        room = reader.space()
        count = min(len(room), len(rest))
        room[:count] = rest[:count]
        reader.filled(count)
        rest = rest[count:]
        while (found := reader.next_header("peer")) is not None:
            unpack_message(found[0])
            if reader.take_payload(memoryview(bytearray(min(found[1], 1 << 16)))) < found[1]:
                return


def a_plan(data: bytes) -> None:
    """As a node does with a plan: read it, review it, prepare to run it."""
    plan = read_plan(data)
    plan.digest()
    Ledger(Costs(Layout(plan, dict(plan.maxima)), registry.get("replicated"), 3))
    review(plan, lambda handle: frozenset({handle}))
    plan.disclosures()


def read_approval(data: bytes) -> None:
    Approval(**unpack_message(data)).check(b"lake", b"s", b"d", [CERTIFICATE])


def read_study(data: bytes) -> None:
    """As a node does with a study: read it, write it down, say what it does, compare requests with it."""
    study = Study.from_bytes(data)
    assert Study.from_bytes(study.to_bytes()).digest() == study.digest()
    page(study, Facts({}, {}))
    for position, request in enumerate(study.requests, 1):
        if not any(request.tagged("$result")):
            matches(study, position, request, {}, {})


def message_target(decode: Callable[[Any], object], *seeds: object, malformed: bool = False) -> Target:
    """Decodes what msgpack carries."""
    packed = tuple(pack_message(seed) for seed in seeds)
    return Target(
        lambda data: decode(unpack_message(data)), packed, refuses=MALFORMED if malformed else (TercetError,)
    )


def from_network() -> Iterator[tuple[str, Target]]:
    data = pack_message([1, 64, ["data", b"s", [[0, 0, 0, [8]]]]])
    beat = pack_message([2, 0, ["beat"]])
    frames = tuple(encode_prefix(len(one), size) + one + bytes(size) for one, size in ((data, 64), (beat, 0)))
    yield "frames", Target(read_frames, (*frames, frames[0] + frames[1] + frames[0]), tree=False)
    yield "messages", Target(unpack_message, (data, beat, pack_message({"a": [1.5, None, True, b"b", "c"]})))
    yield (
        "hellos",
        message_target(
            lambda tree: Hello.read(tree, peer="peer"), Hello("client", "replicated", 3).to_wire()
        ),
    )
    yield "plans", Target(read_plan, (small_plan().to_bytes(), large_plan().to_bytes()))
    yield (
        "types",
        message_target(
            read_type, ["ring", [3, 100], 8, 2.0**20], ["bits", [64], 0, 1.0], ["words", [2, 9], 0, 1.0]
        ),
    )
    costs = Costs(Layout(large_plan(), dict(large_plan().maxima)), registry.get("replicated"), 3)
    sent = {index: costs.of(index, 0).sent[1] // WORD_BYTES for index in range(len(large_plan().nodes))}
    entries = [[index, 0, 0, [words]] for index, words in sent.items() if words]
    size = WORD_BYTES * sum(sent.values())
    charges = [entries, size], [entries[:1], WORD_BYTES * entries[0][3][0]]
    yield "entries", message_target(lambda tree: Ledger(costs).charge(1, *tree), *charges, malformed=True)
    yield "errors", message_target(from_wire, TercetError("why").to_wire(), malformed=True)
    progress = {"done": 1, "nodes": 2, "rounds": 3, "bytes_sent": 4}
    yield "progress", message_target(Progress.read, progress)
    told = Told("interrupted", b"s" * 24, 1, points=((b"s" * 16, 3),), error=TercetError("why"))
    yield "words on jobs", message_target(Told.read, told.to_wire())
    table = {
        "kind": "table",
        "name": "t",
        "body": b"",
        "rules": Rules(readers=("ann",)).to_bytes(),
        "handles": ["t#1"],
    }
    yield (
        "requests",
        message_target(lambda tree: _read_entry("ann", tree), {**table, "fingerprint": b"", "expires": None}),
    )
    yield (
        "rules",
        Target(Rules.from_bytes, (*(one.to_bytes() for one in RULES), OLD_RULES)),
    )
    approval = Approval.make(b"lake", b"s", b"d", KEYS)
    yield (
        "approvals",
        message_target(
            lambda tree: read_approval(pack_message(tree)), attrs.asdict(approval), malformed=True
        ),
    )
    requests = (
        Asked("join", {"tables": [{"$table": "a"}, {"$table": "b"}], "on": "id"}),
        Asked(
            "fit", {"self": {"$estimator": ["LogisticRegression", {"C": 1.0}]}, "table": {"$result": [1, []]}}
        ),
    )
    study = Study.of(requests, purpose="risk", analyst="ann", uses=3, until=2_000_000_000)
    yield "computations", Target(asked.read_request, asked.requests(), peak=1 << 27)
    yield "studies", Target(read_study, (study.to_bytes(), study.to_text().encode()), tree=False)
    yield from described()


def described() -> Iterator[tuple[str, Target]]:
    """Descriptions of tables, models and numbers, which other members have written."""
    key = ColumnSchema("id", "key", key_type="integer")
    columns = key, ColumnSchema("age", "real", 9, range=(0, 120)), ColumnSchema("sick", "boolean")
    schema = TableSchema("t", "clinic", columns, 100, min_count=5)
    yield "schemas", message_target(TableSchema.from_dict, schema.to_dict())
    parameters = [[8, 100.0, [1]], [8, 100.0, []]]
    model = {"format": FORMAT, "columns": [["age", "real", 9]], "parameters": parameters, "features": ["age"]}
    whole = {**model, "target": "sick", "offset": None}

    def read(tree: Any) -> None:
        SecretModel.from_dict(tree, "m", ("a", "b"), None)

    yield "models", message_target(read, whole)

    def read_number(data: bytes) -> None:
        SavedNumber.of(None, "x", "ann", ("a", "b"), data)

    bit = Type(Form.RING, (1,), 0, 1.0)
    described = [describe([Type(Form.RING, shape, 9, 2.0**20), bit], rows=True, least=5) for shape in SHAPES]
    yield "numbers", Target(read_number, tuple(described))


def from_files(directory: Path) -> Iterator[tuple[str, Target]]:
    path = directory / "input"

    def from_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def decode(data: bytes) -> None:
            path.write_bytes(data)
            read(path)

        return decode

    nodes = tuple(NodeEntry(f"n{i}", f"127.0.0.1:70{i}", IDENTITIES[i].certificate_pem) for i in range(3))
    member = Member("ann", ("owner",), CERTIFICATE, KEYS.sealing_key)
    first = ClusterFile("replicated", nodes, (member,))
    part = attrs.evolve(nodes[0], former=(Former(IDENTITIES[4].certificate_pem, ""),))
    after = draft(first, removed=["ann"], addresses={"n1": "h:1"}, takes_effect=dt.datetime.now(dt.UTC))
    for name, file in (
        ("whole", first),
        ("next", sign(first, after, MemberKeys(IDENTITIES[0]))),
        ("renewed", attrs.evolve(first, nodes=(part, *nodes[1:]))),
        ("part", ClusterFile("plain", nodes[:1], ())),
    ):
        file.write(directory / name)
    seeds = tuple((directory / name).read_bytes() for name in ("whole", "next", "renewed", "part"))
    yield "clusters", Target(from_file(ClusterFile.read), seeds, tree=False)
    text = NODE_TOML.format(listen='"0.0.0.0:7301"', metrics='""', threads=1)
    yield "nodes", Target(from_file(NodeFile.read), (text.encode(),), tree=False)

    def read_identity(file: Path) -> None:
        file.chmod(0o600)
        Identity.read(file)

    IDENTITIES[3].save(directory / "ann.key")
    yield "keys", Target(from_file(read_identity), ((directory / "ann.key").read_bytes(),), tree=False)
    log = AuditLog(directory / "audit.log", KEYS)
    for event in ("started", "runs", "refused"):
        log.append(event, caller="ann", why=json.dumps({"x": 1}))
    lines = ("\n".join(read_lines(log.path))).encode()
    yield (
        "logs",
        Target(
            from_file(lambda file: check_lines(read_lines(file), CERTIFICATE, where="the log")),
            (lines, lines[: lines.index(b"\n")]),
            tree=False,
        ),
    )


def all_targets(directory: Path | None = None) -> dict[str, Target]:
    """All targets by name; files are made in a directory, in memory where the system has one there."""
    memory = Path("/dev/shm")
    place = directory or Path(
        tempfile.mkdtemp(prefix="tercet-fuzz-", dir=memory if memory.is_dir() else None)
    )
    return dict([*from_network(), *from_files(place)])


__all__ = ["Target", "all_targets"]
