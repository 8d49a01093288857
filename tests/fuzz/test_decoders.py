"""Whatever comes from outside is decoded, or refused with a sentence: never a crash, never much memory.

Valid inputs are changed at random, as bytes and, where they are msgpack, as trees, so that most get past the
first check. `make fuzz` takes ten million inputs, the ordinary run a few hundred for each decoder. A failure
shows the input.
"""

from __future__ import annotations

import contextlib
import os
import random
import tracemalloc

import attrs
import msgpack
import numpy as np
import pytest

from tercet.actors import Builder, Form, Plan, Type, sigmoid
from tercet.actors.hello import Hello
from tercet.actors.party import read_type
from tercet.consent.approvals import Approval
from tercet.consent.keys import MemberKeys
from tercet.consent.rules import Rules
from tercet.errors import TercetError
from tercet.nodes.config import ClusterFile, Member, NodeEntry
from tercet.transports import make_identity
from tercet.transports.wire import FrameReader, encode_prefix, pack_message, unpack_message

INPUTS = int(os.environ.get("TERCET_FUZZ_INPUTS", "2400"))
MOST_MEMORY = 64 << 20
NUMBERS = (0, 1, -1, 63, 64, 255, 1 << 16, (1 << 31) - 1, 1 << 40, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1)
IDENTITIES = [make_identity(f"n{number}") for number in range(4)]


def a_plan():
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
    return b.plan().to_bytes()


def a_cluster():
    nodes = tuple(NodeEntry(f"n{i}", f"127.0.0.1:70{i}", IDENTITIES[i].certificate_pem) for i in range(3))
    seal = MemberKeys(IDENTITIES[3]).sealing_key
    return ClusterFile("replicated", nodes, (Member("ann", ("owner",), IDENTITIES[3].certificate_pem, seal),))


def read_frames(data):
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


def read_cluster(data, path):
    path.write_bytes(data)
    ClusterFile.read(path)


def read_approval(data):
    fields = msgpack.unpackb(data)
    if isinstance(fields, dict) and set(fields) == {field.name for field in attrs.fields(Approval)}:
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # what the gate calls malformed
            Approval(**fields).check(b"lake", b"s", b"d", IDENTITIES[3].certificate_pem)


def decoders(tmp_path):
    path = tmp_path / "cluster.toml"
    a_cluster().write(path)
    header = pack_message([1, 64, ["data", b"s", [[0, 0, 0, [8]]]]])
    approval = Approval.make(b"lake", b"s", b"d", MemberKeys(IDENTITIES[3]))
    return {
        "frames": (2 * (encode_prefix(len(header), 64) + header + bytes(64)), read_frames, False),
        "messages": (header, unpack_message, True),
        "plans": (a_plan(), Plan.from_bytes, True),
        "hellos": (
            msgpack.packb(Hello("client", "replicated", 3).to_wire()),
            lambda data: Hello.read(unpack_message(data), peer="peer"),
            True,
        ),
        "types": (
            msgpack.packb(["ring", [3, 100], 8, 2.0**20]),
            lambda data: read_type(unpack_message(data)),
            True,
        ),
        "rules": (Rules(readers=("ann",)).to_bytes(), Rules.from_bytes, True),
        "approvals": (msgpack.packb(attrs.asdict(approval)), read_approval, True),
        "clusters": (path.read_bytes(), lambda data: read_cluster(data, path), False),
    }


def change_bytes(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0 if changed:
                changed[place - 1] ^= 1 << rng.randrange(8)
            case 1:
                del changed[place : place + rng.randrange(1, 9)]
            case 2:
                changed[place:place] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                number = rng.choice(NUMBERS) & ((1 << 64) - 1)
                changed[place : place + 8] = number.to_bytes(8, rng.choice(("big", "little")))
            case _:
                start = rng.randrange(len(changed) + 1)
                changed[place:place] = changed[start : start + rng.randrange(64)]
    return bytes(changed)


def change_tree(tree, rng):
    """The tree with one part of it replaced, removed or doubled."""
    if isinstance(tree, (list, dict)) and tree and rng.random() < 0.9:
        if isinstance(tree, list):
            place = rng.randrange(len(tree))
            what = rng.random()
            if what < 0.1:
                return tree[:place] + tree[place + 1 :]
            if what < 0.2:
                return tree[: place + 1] + tree[place:]
            return [*tree[:place], change_tree(tree[place], rng), *tree[place + 1 :]]
        name = rng.choice(list(tree))
        return {**tree, name: change_tree(tree[name], rng)}
    if isinstance(tree, int) and rng.random() < 0.5:
        return tree + rng.choice((-1, 1, 64))
    return rng.choice(
        (None, True, "", "x", b"", b"x" * 32, [], {}, 0.5, float("nan"), float("inf"), *NUMBERS)
    )


@pytest.mark.parametrize(
    "name", ["frames", "messages", "plans", "hellos", "types", "rules", "approvals", "clusters"]
)
def test_decoders(name, tmp_path):
    valid, decode, is_tree = decoders(tmp_path)[name]
    decode(valid)
    rng = random.Random(name)
    accepted, refused = 0, 0
    np.empty(1)  # what numpy allocates once is not the decoder's
    tracemalloc.start()
    try:
        for _ in range(INPUTS // 8):
            if is_tree and rng.random() < 0.7:
                data = msgpack.packb(change_tree(msgpack.unpackb(valid), rng))
            else:
                data = change_bytes(valid, rng)
            try:
                decode(data)
                accepted += 1
            except TercetError:
                refused += 1
            except (ValueError, msgpack.UnpackException):
                if name != "approvals":  # those bytes were unpacked by the line that carried them
                    raise AssertionError(f"{name}: {data!r}") from None
                refused += 1
            except Exception as error:
                raise AssertionError(f"{name}: {data!r}") from error
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    assert refused > INPUTS // 80, "next to nothing was refused: the changes change nothing"
