"""What this machine can do and what a process uses of it: the speed of a copy, memory at its peak."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import numpy as np

from perf.report import median
from tercet.actors.line import CHUNK_BYTES
from tercet.comparison.peaks import MB, peaks_mb, reset_peaks, resident_mb

COPY_BYTES = 1 << 27
"""Larger than caches are."""
WORD = 8


def copy_rate() -> float:
    """Bytes that one core moves in a second when it copies memory, those read and those written."""
    source = np.ones(COPY_BYTES // WORD, dtype=np.uint64)
    target = np.zeros_like(source)
    seconds = timed(lambda: np.copyto(target, source), repeat=9)
    return 2 * COPY_BYTES / seconds


def socket_cost() -> float:
    """Seconds of processor time that a byte takes through TCP on loopback, both ends together."""
    piece = bytes(CHUNK_BYTES)

    def receive(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        room = bytearray(CHUNK_BYTES)
        with connection:
            while connection.recv_into(room):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = threading.Thread(target=receive, args=(listener,))
        reader.start()
        with socket.create_connection(listener.getsockname()) as sender:
            began = time.process_time()
            for _ in range(COPY_BYTES // CHUNK_BYTES):
                sender.sendall(piece)
        reader.join()
        return (time.process_time() - began) / COPY_BYTES


def timed(function: Callable[[], object], *, repeat: int, warm: bool = True) -> float:
    """Median seconds of some calls."""
    if warm:
        function()
    found = []
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return median(found)


__all__ = ["COPY_BYTES", "MB", "WORD", "copy_rate", "peaks_mb", "reset_peaks", "resident_mb", "timed"]
