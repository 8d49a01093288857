"""Tables on their way into the lake: files from a browser, looked at before anything leaves this machine.

A file lies in a folder of the portal's own, readable by its member alone, under a name that nobody else
chose. It goes when it was uploaded or discarded, when the session ends, and with the portal.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import trio

from tercet.errors import SchemaError
from tercet.ml.cells import MISSING, NUMBER, TRUTH
from tercet.ml.csv_files import read_csv
from tercet.ml.schema import TableSchema
from tercet.ml.upload import encode_for_upload

KINDS = (".csv.gz", ".tsv.gz", ".csv", ".tsv", ".parquet")
"""Endings of files that are taken."""
MOST_DRAFTS = 8
SAMPLE_ROWS = 5
COPY_BYTES = 1 << 20


@attrs.frozen
class Peeked:
    """A column as the first rows of a file show it: its name, some cells, and whether they are numbers."""

    name: str
    cells: tuple[str, ...]
    numeric: bool
    distinct: bool


@attrs.frozen
class Found:
    """What a file becomes: its public schema, and sentences on its keys for the owner alone."""

    schema: TableSchema
    findings: tuple[str, ...]


@attrs.define(eq=False)
class Draft:
    """A file that waits for its owner's word; `title` is what the browser called it."""

    number: str
    path: Path
    title: str
    columns: tuple[Peeked, ...]
    asked: int = 0
    """How often it was to be looked at; only the latest choice is."""
    _looked: tuple[Mapping[str, Any], Found | SchemaError] | None = attrs.field(default=None, init=False)

    @property
    def proposed_name(self) -> str:
        """A name for the table, after the file's."""
        kept = "".join(
            char if char.isalnum() or char in "_-" else "_" for char in self.title.partition(".")[0]
        )
        return kept.strip("_") or "table"

    @property
    def proposed_key(self) -> str:
        """The column that may link rows: the first that is text, else the first without repeats."""
        text = [one.name for one in self.columns if not one.numeric]
        whole = [one.name for one in self.columns if one.distinct]
        return next(iter((*text, *whole, *(one.name for one in self.columns))), "")

    def look(self, **options: Any) -> Found:
        """What everybody will know of the table, and what its owner alone is told.

        All is read, as an upload does, once for given options. Takes long for a large file. Raises
        SchemaError.
        """
        if self._looked is None or self._looked[0] != options:
            try:
                encoded = encode_for_upload(self.path, **options)
                self._looked = options, Found(encoded.schema, encoded.findings)
            except SchemaError as error:
                self._looked = options, SchemaError(str(error).replace(str(self.path), self.title))
        found = self._looked[1]
        if isinstance(found, SchemaError):
            raise found
        return found


class Drafts:
    """The files that wait. One is read at a time, since that takes memory and a core: hold `reading`."""

    def __init__(self, folder: Path) -> None:
        self.reading = trio.Lock()
        self._folder = folder
        self._drafts: dict[str, Draft] = {}

    def add(self, file: BinaryIO, title: str) -> Draft:
        """Take a file in, and look at its first rows; the oldest makes room.

        Raises SchemaError for what is no table.
        """
        kind = next((one for one in KINDS if title.lower().endswith(one)), None)
        if kind is None:
            raise SchemaError(
                f"{title[-80:]!r} is no table; a file has one of the endings {', '.join(KINDS)}"
            )
        while len(self._drafts) >= MOST_DRAFTS:
            self.drop(next(iter(self._drafts)))
        number = secrets.token_hex(8)
        place = self._folder / number
        place.mkdir(mode=0o700)
        path = place / f"table{kind}"
        try:
            with path.open("wb") as out:
                shutil.copyfileobj(file, out, COPY_BYTES)
            columns = _peek(path)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        draft = self._drafts[number] = Draft(number, path, title, columns)
        return draft

    def find(self, number: str) -> Draft:
        """A file that waits. Raises SchemaError if it does not any more."""
        found = self._drafts.get(number)
        if found is None:
            raise SchemaError("this file is not here any more; choose it again")
        return found

    def drop(self, number: str) -> None:
        """Remove a file, if it is there."""
        found = self._drafts.pop(number, None)
        if found is not None:
            shutil.rmtree(found.path.parent, ignore_errors=True)

    def clear(self) -> None:
        """Remove all files."""
        for number in list(self._drafts):
            self.drop(number)


def _peek(path: Path) -> tuple[Peeked, ...]:
    """Columns by the first rows of a file. Raises SchemaError for a file that cannot be read."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            with parquet.ParquetFile(path) as file:
                names = list(file.schema_arrow.names)
                batch = next(file.iter_batches(SAMPLE_ROWS), None)
            columns = {name: [] if batch is None else batch.column(name).to_pylist() for name in names}
            return tuple(_peeked(name, cells) for name, cells in columns.items())
        chunk = next(iter(read_csv(path, "upload", (), SAMPLE_ROWS)))
        return tuple(_peeked(name, cells.texts) for name, cells in chunk.items())
    except SchemaError as error:
        raise SchemaError(str(error).replace(str(path), path.name)) from error
    except Exception as error:
        raise SchemaError(
            f"the file cannot be read ({type(error).__name__}: {error}); is it whole?"
        ) from error


def _peeked(name: str, cells: Iterable[object]) -> Peeked:
    texts = ["" if cell is None else str(cell) for cell in itertools.islice(cells, SAMPLE_ROWS)]
    filled = [text.strip() for text in texts if text.strip() not in MISSING]
    numeric = all(NUMBER.fullmatch(text) or text in TRUTH for text in filled)
    return Peeked(name, tuple(texts), numeric, len(set(filled)) == len(texts))
