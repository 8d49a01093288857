"""Key hashing: from the key columns of a table to 128 bits a row.

Two tables are joined on keys that nobody may see, so the parties never handle a name or a policy number: each
owner maps the key of each row to 128 bits with BLAKE2b, in the clear and on its own machine, and
secret-shares the result. Equal keys must give equal bits at every owner, on every machine and in every later
version, so the encoding is fixed here, byte for byte, and everything is a pure function of the values.
Building the messages and hashing them are two small compiled kernels, because a table has millions of rows
and `hashlib` would cost a Python call for each; few rows are hashed by that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import narwhals as nw
import numpy as np
import numpy.typing as npt
from attrs import frozen

from tercet.compiled import INT64, UINT8, UINT64, Array, inline, kernel
from tercet.ml.schema import Spot

PERSON = b"tercet-key-v1"
"""The BLAKE2b personalisation: it keeps these hashes apart from others and names the encoding's version."""
FEW_ROWS = 1 << 12
"""Rows whose keys are hashed one by one, in less time than kernels take to load."""

BYTES, ROWS = Array(UINT8, 1), Array(INT64, 1)

_IV = np.array(
    [
        0x6A09E667F3BCC908,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    ],
    dtype=np.uint64,
)
_SIGMA = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ],
    dtype=np.uint64,
)
_PARAMETERS = np.frombuffer(
    np.array([16, 0, 1, 1], np.uint8).tobytes() + bytes(44) + PERSON.ljust(16, b"\0"), dtype="<u8"
)
_START = _IV ^ _PARAMETERS  # digest of 16 bytes, no key, fanout 1, depth 1, no salt (RFC 7693, section 2.5)


@inline
def _mix(a: Any, b: Any, c: Any, d: Any, x: Any, y: Any) -> Any:
    """The function G of RFC 7693, section 3.1."""
    a = a + b + x
    d ^= a
    d = (d >> np.uint64(32)) | (d << np.uint64(32))
    c = c + d
    b ^= c
    b = (b >> np.uint64(24)) | (b << np.uint64(40))
    a = a + b + y
    d ^= a
    d = (d >> np.uint64(16)) | (d << np.uint64(48))
    c = c + d
    b ^= c
    b = (b >> np.uint64(63)) | (b << np.uint64(1))
    return a, b, c, d


@inline
def _compress(h: Any, m: Any, count: Any, last: Any) -> None:
    """The function F of RFC 7693, section 3.2: mix one block `m` (16 words) into the state `h` (8 words)."""
    v0, v1, v2, v3, v4, v5, v6, v7 = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
    v8, v9, v10, v11 = _IV[0], _IV[1], _IV[2], _IV[3]
    v12, v13, v14, v15 = _IV[4] ^ count, _IV[5], _IV[6] ^ last, _IV[7]
    for r in range(12):
        s = _SIGMA[r]
        v0, v4, v8, v12 = _mix(v0, v4, v8, v12, m[s[0]], m[s[1]])
        v1, v5, v9, v13 = _mix(v1, v5, v9, v13, m[s[2]], m[s[3]])
        v2, v6, v10, v14 = _mix(v2, v6, v10, v14, m[s[4]], m[s[5]])
        v3, v7, v11, v15 = _mix(v3, v7, v11, v15, m[s[6]], m[s[7]])
        v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[s[8]], m[s[9]])
        v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[s[10]], m[s[11]])
        v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[s[12]], m[s[13]])
        v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[s[14]], m[s[15]])
    h[0] ^= v0 ^ v8
    h[1] ^= v1 ^ v9
    h[2] ^= v2 ^ v10
    h[3] ^= v3 ^ v11
    h[4] ^= v4 ^ v12
    h[5] ^= v5 ^ v13
    h[6] ^= v6 ^ v14
    h[7] ^= v7 ^ v15


@kernel(BYTES, ROWS, Array(UINT64, 2))
def _hash_messages(buffer: Any, starts: Any, out: Any) -> None:
    """Hash each message `buffer[starts[i]:starts[i + 1]]` to 16 bytes, column i of `out`, shape (2, n)."""
    block = np.zeros(128, np.uint8)
    words = block.view(np.uint64)
    h = np.empty(8, np.uint64)
    for i in range(starts.size - 1):
        at, end = starts[i], starts[i + 1]
        h[:] = _START
        while True:
            size = min(end - at, 128)
            for j in range(size):
                block[j] = buffer[at + j]
            block[size:] = 0
            at += size
            last = at == end
            _compress(h, words, np.uint64(at - starts[i]), ~np.uint64(0) if last else np.uint64(0))
            if last:
                break
        out[0, i] = h[0]
        out[1, i] = h[1]


@kernel(BYTES, ROWS, UINT8, Array(UINT8, 1, readonly=True), ROWS)
def _place(buffer: Any, starts: Any, tag: Any, data: Any, ends: Any) -> None:
    """Write one component of every key, tag, length and bytes, at `starts`, and move `starts` past it."""
    begin = 0
    for i in range(ends.size):
        size = ends[i] - begin
        at = starts[i]
        buffer[at] = tag
        for j in range(4):
            buffer[at + 1 + j] = (size >> (8 * j)) & 255
        for j in range(size):
            buffer[at + 5 + j] = data[begin + j]
        starts[i] = at + 5 + size
        begin = ends[i]


@frozen(eq=False)
class Text:
    """A column of n strings in UTF-8: row i is `data[ends[i - 1]:ends[i]]`, row 0 starts at 0.

    `data` has dtype uint8 and may be read-only, `ends` is int64 of shape (n,). This is Arrow's layout less
    its leading zero, so a column of a data frame usually gets here without a Python object for each row.
    """

    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @property
    def rows(self) -> int:
        """The number of strings."""
        return self.ends.size

    def at(self, row: int) -> str:
        """Return the string in one row."""
        begin = self.ends[row - 1] if row else 0
        return self.data[begin : self.ends[row]].tobytes().decode()

    def strings(self) -> list[str]:
        """All of them."""
        begins = [0, *self.ends[:-1].tolist()]
        data = self.data[: self.ends[-1]].tobytes() if self.rows else b""
        if data.isascii():
            joined = data.decode()
            return [joined[begin:end] for begin, end in zip(begins, self.ends.tolist(), strict=False)]
        return [data[begin:end].decode() for begin, end in zip(begins, self.ends.tolist(), strict=False)]

    @classmethod
    def of(cls, strings: Iterable[str]) -> Text:
        """Encode Python strings; `UnicodeEncodeError` for a lone surrogate, which UTF-8 has no bytes for."""
        rows = list(strings)
        joined = "".join(rows)
        if joined.isascii():
            data, sizes = joined.encode(), map(len, rows)
        else:
            encoded = [row.encode() for row in rows]
            data, sizes = b"".join(encoded), map(len, encoded)
        ends = np.cumsum(np.fromiter(sizes, np.int64, len(rows)))
        return cls(np.frombuffer(data, np.uint8), ends)


def encode_text(strings: list[str], spot: Spot) -> Text:
    """Encode the strings of the column at `spot`; `SchemaError`, with the row, for invalid Unicode."""
    try:
        return Text.of(strings)
    except UnicodeEncodeError as problem:
        row = strings.index(problem.object)
        raise spot.error(
            "the text is not valid Unicode; read it again with the right encoding.", row
        ) from problem


def series_text(series: nw.Series[Any], spot: Spot) -> Text:
    """Encode a column of text without nulls: Arrow's buffers as they are, if pyarrow is installed."""
    try:
        array: Any = series.to_arrow()
        array = array.cast("large_string")
    except (ImportError, NotImplementedError, ValueError):
        return encode_text(series.to_list(), spot)
    if len(array) == 0:
        return Text.of([])
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    buffer = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    return Text(buffer, ends[1:] - ends[0])


def _integer_bytes(values: npt.NDArray[Any], spot: Spot) -> Text:
    if values.dtype.kind not in "iu":
        raise spot.error(f"it holds {values.dtype} values; a key is an integer or text.")
    if values.dtype.kind == "u" and values.size and int(values.max()) >= 2**63:
        row = int(np.argmax(values >= np.uint64(2**63)))
        raise spot.too_wide(values[row], row)
    data = np.ascontiguousarray(values, dtype="<i8").view(np.uint8)
    return Text(data, np.arange(8, 8 * values.size + 1, 8, dtype=np.int64))


def hash_keys(columns: Mapping[str, npt.NDArray[Any] | Text], *, table: str) -> npt.NDArray[np.uint64]:
    """Hash the key of each row to 128 bits.

    `columns` maps the name of each key column to its n values: a NumPy array of signed or unsigned integers,
    or `Text`. Names serve for error messages only and are not hashed; their order is, so that every table
    that is joined must list its key columns in one order.

    The message of a row is, for each component in that order: a tag, `b"i"` for integers or `b"s"` for
    strings; the number of bytes that follow, as an unsigned 32-bit little-endian integer; and the bytes: 8 of
    them, little-endian two's complement, for an integer, and the UTF-8 encoding for a string. Strings are
    taken exactly as they are, with no Unicode normalisation, no stripping and no folding of case: the
    equality of SQL with a binary collation. Integer 7 and string "7" are different keys. The hash is
    `hashlib.blake2b(message, digest_size=16, person=b"tercet-key-v1")`.

    Returns an array of shape (2, n): the digest as two little-endian 64-bit words, the first 8 bytes in row
    0. Raises `SchemaError`, naming `table`, column and row, for an integer of 2**63 or more.
    """
    parts = [
        (ord("s"), values)
        if isinstance(values, Text)
        else (ord("i"), _integer_bytes(values, Spot(table, name)))
        for name, values in columns.items()
    ]
    rows = parts[0][1].rows
    if rows <= FEW_ROWS:
        return _hash_few(parts, rows)
    starts = np.zeros(rows + 1, np.int64)
    starts[1:] = 5 * len(parts) * np.arange(1, rows + 1)
    for _, part in parts:
        starts[1:] += part.ends
    buffer = np.empty(int(starts[-1]), np.uint8)
    cursor = starts[:-1].copy()
    for tag, part in parts:
        _place(buffer, cursor, tag, part.data, part.ends)
    hashes = np.empty((2, rows), np.uint64)
    _hash_messages(buffer, starts, hashes)
    return hashes


@frozen
class Duplicate:
    """A key that occurs twice: `row` is the first row of the table whose key an `earlier` row has.

    `repeats` counts the rows of the whole table whose key occurs in an earlier row. Rows count from 0.
    """

    earlier: int
    row: int
    repeats: int


def find_duplicate(hashes: npt.NDArray[np.uint64]) -> Duplicate | None:
    """Find the first repeated key among the hashes, shape (2, n), or return None if all keys differ."""
    first = np.sort(hashes[0])
    if not np.any(first[1:] == first[:-1]):
        return None
    order = np.lexsort((hashes[1], hashes[0]))  # stable: equal keys stay in the order of the table
    ranked = hashes[:, order]
    again = np.flatnonzero(np.all(ranked[:, 1:] == ranked[:, :-1], axis=0))
    if again.size == 0:
        return None
    at = again[np.argmin(order[again + 1])]
    return Duplicate(earlier=int(order[at]), row=int(order[at + 1]), repeats=int(again.size))


def find_duplicate_in_parts(
    read: Callable[[int, int], npt.NDArray[np.uint64]], rows: int, *, part_rows: int = 1 << 22
) -> Duplicate | None:
    """As `find_duplicate`, of hashes that need not fit in memory: `read(start, stop)` gives those of rows.

    Hashes are uniform, so their remainders cut them into parts of about `part_rows`, looked at one by one.
    """
    parts = max(1, -(-rows // part_rows))
    found = []
    for part in range(parts):
        blocks, numbers = [np.empty((2, 0), np.uint64)], [np.empty(0, np.int64)]
        for start in range(0, rows, part_rows):
            block = read(start, min(start + part_rows, rows))
            here = np.flatnonzero(block[0] % np.uint64(parts) == part)
            blocks.append(block[:, here])
            numbers.append(start + here)
        row_of = np.concatenate(numbers)
        one = find_duplicate(np.concatenate(blocks, axis=1))
        if one is not None:
            found.append(Duplicate(int(row_of[one.earlier]), int(row_of[one.row]), one.repeats))
    if not found:
        return None
    first = min(found, key=lambda one: one.row)
    return Duplicate(first.earlier, first.row, sum(one.repeats for one in found))


def _hash_few(parts: Sequence[tuple[int, Text]], rows: int) -> npt.NDArray[np.uint64]:
    messages = [bytearray() for _ in range(rows)]
    for tag, part in parts:
        data, begin = part.data.tobytes(), 0
        for message, end in zip(messages, part.ends.tolist(), strict=True):
            message += bytes((tag, *(end - begin).to_bytes(4, "little"))) + data[begin:end]
            begin = end
    digests = b"".join(
        hashlib.blake2b(message, digest_size=16, person=PERSON).digest() for message in messages
    )
    return np.ascontiguousarray(np.frombuffer(digests, "<u8").astype(np.uint64).reshape(rows, 2).T)
