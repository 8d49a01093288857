"""CSV files: from bytes to columns of cells, each cell text as yet, and every row as wide as the header.

Python's own `csv` reads them, in its strict mode. It is slower than what compiled libraries have, but it is
the one reader that refuses a quotation which is never closed or is closed in the middle of a cell, where
others give rows away; it needs memory for one row only, and it knows which row it is at. What cells mean is
not known here; see `tercet.ml.cells`.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from tercet.errors import SchemaError
from tercet.ml.cells import Cells

CHUNK_CELLS = 1 << 20
"""How many cells are held as text at a time."""
LONGEST_LINE = 1 << 24
"""Characters; a file without line breaks is none of rows, and would be read into memory as a whole."""
SEPARATORS = (";", "\t", "|", ",")
"""What separates columns in files, somewhere."""


def read_csv(path: Path, table: str, keys: Collection[str], most_rows: int) -> Iterator[dict[str, Cells]]:
    """Read a .csv, .tsv, .csv.gz or .tsv.gz file in UTF-8, in chunks of at most `most_rows` rows.

    There is at least one chunk. Lines end in LF, CRLF or CR. The first one that is not blank has the names
    of the columns; blank lines are skipped and not counted. Cells may be in quotation marks, with separators,
    line breaks and doubled quotation marks in them. Raises SchemaError for two columns of one name, for a row
    that is longer or shorter than the header, for a quotation that does not end with its cell, and for text
    that is not UTF-8.
    """
    separator = "\t" if ".tsv" in path.name.lower() else ","
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        source = _Rows(file, separator, path, table)
        rows = iter(source)
        header = next(rows, None)
        if header is None:
            raise SchemaError(
                f'Table "{table}": the file {path} is empty; its first line must name the columns.'
            )
        _check_header(header, keys, separator, path, table)
        width = len(header)
        most = width * max(1, min(most_rows, CHUNK_CELLS // width))
        chunk: list[str] = []  # flat, for lists of lists keep the garbage collector busy
        for row in rows:
            if len(row) != width:
                raise source.ragged(row, header)
            chunk += row
            if len(chunk) == most:
                yield _columns(header, chunk)
                chunk = []
        if chunk or not source.count:
            yield _columns(header, chunk)


def _columns(header: list[str], cells: list[str]) -> dict[str, Cells]:
    return {name: Cells(cells[place :: len(header)]) for place, name in enumerate(header)}


def refuse_repeats(names: Sequence[str], table: str) -> None:
    """Raise SchemaError for two columns of one name."""
    if len(set(names)) < len(names):
        name = next(name for i, name in enumerate(names) if name in names[:i])
        raise SchemaError(f'Table "{table}" has two columns named {name!r}; rename or drop one.')


class _Rows:
    """The rows of a file, the header first, without those of blank lines."""

    def __init__(self, file: TextIO, separator: str, path: Path, table: str) -> None:
        self.path, self.table = path, table
        self.count = -1
        """Rows so far, the header apart."""
        self._ends = 0
        self._reader = csv.reader(self._lines(file), delimiter=separator, strict=True)

    def __iter__(self) -> Iterator[list[str]]:
        reader = self._reader
        try:
            for row in reader:
                if row:
                    self.count += 1
                    yield row
                self._ends = reader.line_num
        except csv.Error as problem:
            raise self._error(
                f"the row that begins in line {self._ends + 1} is malformed ({problem}): a cell that begins "
                "with a quotation mark ends with one, and those inside of it are doubled, as in "
                '"6 ft 2"" tall"'
            ) from problem

    def _lines(self, file: TextIO) -> Iterator[str]:
        for line in iter(partial(file.readline, LONGEST_LINE), ""):
            if not line.isascii():
                self._require_unicode(line)
            if "\0" in line:
                raise self._error(f"line {self._line} has a character 0; save it as CSV in UTF-8")
            if len(line) >= LONGEST_LINE and line[-1] not in "\r\n":
                raise self._error(
                    f"line {self._line} is longer than {LONGEST_LINE} characters; it is no CSV file, or "
                    "has no line breaks"
                )
            yield line

    @property
    def _line(self) -> int:
        """The number of the line that is being read."""
        return self._reader.line_num + 1

    def _require_unicode(self, line: str) -> None:
        try:
            line.encode()
        except UnicodeEncodeError as problem:
            what = "is in UTF-16" if line.encode("utf-8", "surrogateescape")[:2] in _UTF16 else "is not UTF-8"
            raise self._error(
                f"the text in line {self._line} {what}; save it as CSV in UTF-8, in Excel as "
                '"CSV UTF-8", or convert it with iconv'
            ) from problem

    def _error(self, what: str) -> SchemaError:
        return SchemaError(f'Table "{self.table}": the file {self.path} cannot be read: {what}.')

    def ragged(self, row: list[str], header: list[str]) -> SchemaError:
        """The error that the last row has more or fewer cells than the header."""
        more = len(row) > len(header)
        mend = (
            "a decimal comma, or text with a comma in it, needs quotation marks"
            if more
            else "cells are missing"
        )
        return SchemaError(
            f'Table "{self.table}", row {self.count - 1} (counted from 0): it has {len(row)} '
            f"cell{'s' * (len(row) != 1)} where the first line of {self.path} names {len(header)} columns; "
            f"{mend}: correct line {self._reader.line_num} of the file."
        )


_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def _check_header(header: list[str], keys: Collection[str], separator: str, path: Path, table: str) -> None:
    refuse_repeats(header, table)
    other = next((mark for mark in SEPARATORS if len(header) == 1 and mark in header[0]), separator)
    if other != separator and header[0] not in keys:
        raise SchemaError(
            f'Table "{table}": the columns of {path} are separated by {other!r} instead of '
            f"{separator!r}; write it with {separator!r}, and numbers with decimal points."
        )
