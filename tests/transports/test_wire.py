"""The frame format: any bytes give frames or a TransportError, at a cost set by what came."""

from __future__ import annotations

import contextlib
import itertools
import struct
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import TransportError
from tercet.transports import FrameLimits, pack_message, unpack_message
from tercet.transports.wire import PREFIX_SIZE, FrameReader, encode_prefix, parse_prefix

SMALL = FrameLimits(header=200_000, payload=300_000)
frames = st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), max_size=8)


def feed(reader: FrameReader, data: bytes, cuts: list[int]) -> list[tuple[bytes, bytes]]:
    """Drive a reader as a link does, with the stream cut at the given places."""
    got = []
    header: bytes | None = None
    payload = bytearray()
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, stop in itertools.pairwise(edges):
        chunk = data[start:stop]
        while chunk:
            space = reader.space()
            part = chunk[: len(space)]
            space[: len(part)] = part
            reader.filled(len(part))
            chunk = chunk[len(part) :]
            while True:
                if header is None:
                    if (found := reader.next_header("party 1")) is None:
                        break
                    header = found[0]
                    payload = bytearray()
                piece = memoryview(bytearray(min(reader.payload_left, 1000)))
                payload += piece[: reader.take_payload(piece)]
                if reader.payload_left and not reader.may_have_header:
                    break
                if not reader.payload_left:
                    got.append((header, bytes(payload)))
                    header = None
    return got


@given(frames, st.lists(st.integers(0, 6000), max_size=10))
def test_frames_survive_any_cutting_of_the_stream(sent, cuts):
    stream = b"".join(encode_prefix(len(h), len(p)) + h + p for h, p in sent)
    reader = FrameReader()
    assert feed(reader, stream, cuts) == sent
    assert not reader.in_frame


@given(st.integers(1, 199_999), st.integers(0, 300_000), st.integers(1, 70_000))
def test_headers_longer_than_the_first_buffer(header_length, payload_length, cut):
    header = bytes(range(256)) * (header_length // 256 + 1)
    header = header[:header_length]
    payload = header[::-1][:payload_length]
    stream = encode_prefix(len(header), len(payload)) + header + payload
    assert feed(FrameReader(SMALL), stream + stream, [cut, 2 * cut]) == [(header, payload)] * 2


@given(st.integers(0, 200_000), st.integers(0, 1 << 36))
def test_prefix_round_trip(header_length, payload_length):
    prefix = encode_prefix(header_length, payload_length)
    assert len(prefix) == PREFIX_SIZE == 16
    assert parse_prefix(prefix, peer="party 1") == (header_length, payload_length)


@given(st.binary(min_size=16, max_size=64) | st.binary(max_size=60).map(lambda tail: b"T3\x01\x00" + tail))
def test_random_bytes_give_a_sentence_or_nothing(data):
    with contextlib.suppress(TransportError):  # of other errors none may escape
        feed(FrameReader(), data, [3, 17])


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        (b"GET / HTTP/1.1\r\n", "party 1 sent is no Tercet frame"),
        (struct.pack("<2sBBIQ", b"T3", 2, 0, 1, 1), "party 1 speaks version 2"),
        (struct.pack("<2sBBIQ", b"T3", 1, 4, 1, 1), "party 1 sent a frame with unknown flags 0x04"),
        (
            struct.pack("<2sBBIQ", b"T3", 1, 0, (16 << 20) + 1, 1),
            "party 1 announced a header of 16777217 bytes",
        ),
        (
            struct.pack("<2sBBIQ", b"T3", 1, 0, 1, (1 << 36) + 1),
            "party 1 announced a payload of 68719476737 bytes",
        ),
    ],
)
def test_what_the_remote_did_wrong_is_said(prefix, sentence):
    with pytest.raises(TransportError, match=sentence):
        parse_prefix(prefix, peer="party 1")


@pytest.mark.parametrize("lengths", [((16 << 20) + 1, 0), (0, (1 << 36) + 1)])
def test_what_this_end_did_wrong_is_said(lengths):
    with pytest.raises(TransportError, match="This end tried to send a"):
        encode_prefix(*lengths)


def test_an_announced_header_costs_nothing():
    reader = FrameReader()
    tracemalloc.start()
    try:
        assert feed(reader, encode_prefix(16 << 20, 1 << 36) + b"x" * 100, []) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300_000
    assert reader.in_frame


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(plain)
def test_messages_round_trip(message):
    assert unpack_message(pack_message(message)) == message


@given(st.binary(max_size=200))
def test_random_messages_give_a_value_or_a_sentence(data):
    with contextlib.suppress(TransportError):  # of other errors none may escape
        unpack_message(data, peer="party 2")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x02",
        msgpack.packb(msgpack.ExtType(5, b"pickle")),
        msgpack.packb(msgpack.Timestamp(0)),
        b"\xc7\x00\x05",
        msgpack.packb({1: 2}),
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xffx",
        b"\xdf\x7f\xff\xff\xff",
        b"\x91" * 5000 + b"\xc0",
        b"\xa2\xff\xff",
    ],
)
def test_messages_that_are_refused(data):
    with pytest.raises(TransportError, match="party 2"):
        unpack_message(data, peer="party 2")


@pytest.mark.parametrize("message", [object(), {1, 2}, 1 << 64, 1j])
def test_messages_that_cannot_be_sent(message):
    with pytest.raises(TransportError, match="This end"):
        pack_message(message)


def test_nested_claims_of_many_items_do_not_multiply():
    bomb = b"\xdd\x00\x10\x00\x00" * 1000 + b"\xc0" * (1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(TransportError):
            unpack_message(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200e6, "a level may cost what msgpack reserves at once, not all that it claims"
