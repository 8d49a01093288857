"""`transports`: what a link between two processes carries, over TCP and over TLS.

Three figures each: bytes in a second in frames of the size that parties send, small frames in a second one
way, and the time of a small frame there and back, which bounds a round from below. The other end is this
module, run as a program.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import numpy as np
import trio

from perf.machine import MB, copy_rate
from perf.report import Measured, median
from tercet.actors.line import CHUNK_BYTES
from tercet.transports import Identity, Link, TcpTransport, TlsTransport, Transport, make_identity

SMALL_BYTES = 64
NEAR, FAR = "party 0", "party 1"
STOP = b"stop"
WARM = 0.1


@attrs.frozen
class Load:
    """How much is sent: bulk bytes, small frames one way, small frames there and back."""

    bulk_bytes: int
    small_frames: int
    round_trips: int


def _transport(kind: str, own: Identity | None, pins: dict[str, Any]) -> Transport:
    return TlsTransport(own, pins) if kind == "tls" and own is not None else TcpTransport()


# -- the far end -----------------------------------------------------------------------------------------


async def _far_end(config: dict[str, Any]) -> None:
    """Read frames as told: `["bulk" | "small", count]` is answered once, `["echo", count]` frame by frame."""
    identity = Identity(**config["identity"]) if config["identity"] else None
    link = await _transport(config["kind"], identity, config["pins"]).connect(config["address"], peer=NEAR)
    async with link:
        while (told := (await link.receive_header())[0]) != STOP:
            what, count, size = json.loads(told)
            into = np.empty(size, dtype=np.uint8)
            for _ in range(count):
                await link.receive_header()
                if not link.take_payload(into):
                    await link.receive_payload(into)
                if what == "echo" and (rest := link.send_now(b"", [into])) is not None:
                    await rest
            if what != "echo":
                await link.send(b"")


@asynccontextmanager
async def far_process(kind: str, nursery: trio.Nursery) -> AsyncIterator[Link]:
    """A link to a process of its own."""
    identities = {name: make_identity(name) for name in (NEAR, FAR)} if kind == "tls" else {}
    pins = {name: identity.certificate_pem for name, identity in identities.items()}
    own, theirs = identities.get(NEAR), identities.get(FAR)
    near = _transport(kind, own, {FAR: pins[FAR]} if pins else {})
    async with await near.listen("127.0.0.1:0", nursery=nursery) as listener:
        config = {
            "kind": kind,
            "address": listener.address,
            "identity": attrs.asdict(theirs) if theirs is not None else None,
            "pins": {NEAR: pins[NEAR]} if pins else {},
        }
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "perf.transports"], stdin=subprocess.PIPE
        )
        try:
            assert process.stdin is not None
            await process.stdin.send_all(json.dumps(config).encode() + b"\n")
            with trio.fail_after(30):
                link = await listener.accept()
            async with link:
                yield link
                await link.send(STOP)
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()


# -- the near end ----------------------------------------------------------------------------------------


async def _one_way(link: Link, what: str, count: int, size: int) -> float:
    """Seconds until the far end has read so many frames."""
    payload = np.ones(size, dtype=np.uint8)
    await link.send(json.dumps([what, count, size]).encode())
    began = time.perf_counter()
    for _ in range(count):
        await link.send(b"", [payload])
    await link.receive_header()
    return time.perf_counter() - began


async def there_and_back(link: Link, count: int) -> list[float]:
    """Seconds of each of so many small frames and its answer, sent and taken as lines do."""
    payload, into = np.ones(SMALL_BYTES, dtype=np.uint8), np.empty(SMALL_BYTES, dtype=np.uint8)
    await link.send(json.dumps(["echo", count, SMALL_BYTES]).encode())
    found = []
    for _ in range(count):
        began = time.perf_counter()
        if (rest := link.send_now(b"", [payload])) is not None:
            await rest
        await link.receive_header()
        if not link.take_payload(into):
            await link.receive_payload(into)
        found.append(time.perf_counter() - began)
    return found


async def _measure(kind: str, load: Load, repeat: int) -> dict[str, float]:
    frames = max(1, load.bulk_bytes // CHUNK_BYTES)
    async with trio.open_nursery() as nursery:
        async with far_process(kind, nursery) as link:
            await _one_way(link, "bulk", max(1, round(WARM * frames)), CHUNK_BYTES)
            bulk = median([await _one_way(link, "bulk", frames, CHUNK_BYTES) for _ in range(repeat)])
            small = median(
                [await _one_way(link, "small", load.small_frames, SMALL_BYTES) for _ in range(repeat)]
            )
            back = median(await there_and_back(link, load.round_trips))
        nursery.cancel_scope.cancel()
    return {
        "mb_per_second": frames * CHUNK_BYTES / bulk / MB,
        "small_frames_per_second": load.small_frames / small,
        "round_trip_us": back * 1e6,
    }


async def run(load: Load, repeat: int) -> Measured:
    """Measure TCP and TLS; `speedup` is TCP's throughput over TLS's."""
    rate = copy_rate()
    tcp, tls = [await _measure(kind, load, repeat) for kind in ("tcp", "tls")]
    copied = rate / 2 / MB
    return Measured(
        name="transports",
        speedup=tcp["mb_per_second"] / tls["mb_per_second"],
        more={
            "frame_bytes": CHUNK_BYTES,
            "small_frame_bytes": SMALL_BYTES,
            "repeat": repeat,
            "copy_mb_per_second": copied,
            "tcp": {**tcp, "copies_per_byte": copied / tcp["mb_per_second"]},
            "tls": {**tls, "copies_per_byte": copied / tls["mb_per_second"]},
        },
    )


if __name__ == "__main__":
    trio.run(_far_end, json.loads(sys.stdin.readline()))
