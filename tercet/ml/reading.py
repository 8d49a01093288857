"""Reading: any source to its columns by name, before anyone looks at what is in them.

Data frames of every library that narwhals knows, dictionaries of columns, CSV and Parquet files. What they
differ in ends here: keys in a CSV file stay text as they are written, and a column comes out as a narwhals
series or a one-dimensional array, with its missing values still in it. Sources are read in chunks of rows, so
they may be larger than memory: files, and iterators of data frames.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import narwhals as nw
import numpy as np
from attrs import field, frozen

from tercet.errors import SchemaError
from tercet.ml.schema import Spot, suggest

Declared = Literal["real", "integer", "boolean", "string"]
"""What `types` may say of a column: the first three of a feature, "integer" or "string" of a key."""

CHUNK_ROWS = 1 << 18
"""Rows that are looked at together."""
BLOCK_BYTES = 1 << 25
"""How much of a CSV file is parsed at a time."""

_Reader = Literal["polars", "pyarrow", "pandas"]
_READERS: tuple[_Reader, ...] = ("polars", "pyarrow", "pandas")
_FILES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
SEPARATORS = (";", "\t", "|", ",")
"""What separates columns in files, somewhere."""
_TRUTH = ["true", "false", "True", "False", "TRUE", "FALSE"]


def names_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given)


@frozen
class Request:
    """What the caller of `encode` asked for."""

    table: str
    keys: tuple[str, ...] = field(converter=names_of)
    columns: tuple[str, ...] | None
    scales: dict[str, int]
    types: dict[str, Declared]
    ranges: dict[str, tuple[float, float]]
    missing: str

    def __attrs_post_init__(self) -> None:
        if self.missing not in ("refuse", "indicator"):
            raise SchemaError(
                f'Table "{self.table}": missing={self.missing!r} is neither "refuse" nor "indicator".'
            )
        for what, names in (("key", self.keys), ("columns", self.columns or ())):
            twice = [name for i, name in enumerate(names) if name in names[:i]]
            if twice:
                raise SchemaError(f'Table "{self.table}": {what} names "{twice[0]}" twice; name it once.')
        if not self.keys:
            raise SchemaError(f'Table "{self.table}" has no key; name its key column with key=....')

    def require(self, names: Iterable[str], known: Sequence[str], what: str) -> None:
        """Raise `SchemaError` unless all `names`, given as `what`, are among the columns `known`."""
        for name in names:
            if name not in known:
                raise SchemaError(
                    f'Table "{self.table}" has no column {name!r}, which {what} names. {suggest(name, known)}'
                )


def _backend(table: str) -> _Reader:
    for name in _READERS:
        if importlib.util.find_spec(name) is not None:
            return name
    raise SchemaError(
        f'Table "{table}": reading files needs polars, pyarrow or pandas, and none is installed; run '
        "`pip install polars`."
    )


def _records(path: Path) -> Iterator[bytes]:
    """The lines of a file: the first one, then many at a time, cut only where no quotation is open."""
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
        rest, end = b"", 0
        while not end and (block := file.read(1 << 12)):
            rest += block
            end = _first_end(rest)
        first, rest = (rest[:end], rest[end:]) if end else (rest, b"")
        yield first
        while block := file.read(BLOCK_BYTES):
            rest += block
            if end := _last_end(rest):
                yield rest[:end]
                rest = rest[end:]
        yield rest


def _first_end(data: bytes) -> int:
    """Where the first record ends, 0 if it does not."""
    end = data.find(b"\n") + 1
    while end and data[:end].count(b'"') % 2:
        end = data.find(b"\n", end) + 1
    return end


def _last_end(data: bytes) -> int:
    """Where the last record ends that does, 0 if none does."""
    end = data.rfind(b"\n") + 1
    while end and data[:end].count(b'"') % 2:
        end = data.rfind(b"\n", 0, end - 1) + 1
    return end


def _header(first: bytes, path: Path, separator: str, table: str) -> list[str]:
    """Read the column names ourselves: each library renames duplicates in its own way."""
    line = first.decode("utf-8-sig").splitlines(keepends=True)
    names = next(csv.reader(line, delimiter=separator), [])
    if not names:
        raise SchemaError(f'Table "{table}": the file {path} is empty; its first line must name the columns.')
    return names


def _read_csv(path: Path, request: Request) -> Iterator[nw.DataFrame[Any]]:
    """Read a CSV file: keys as text first, so that "007" survives, the rest as its rows suggest."""
    separator = "\t" if ".tsv" in path.name.lower() else ","
    records = _records(path)
    first = next(records)
    header = _header(first, path, separator, request.table)
    _refuse_repeats(header, request.table)
    other = next((mark for mark in SEPARATORS if len(header) == 1 and mark in header[0]), separator)
    if other != separator and header[0] not in request.keys:
        raise SchemaError(
            f'Table "{request.table}": the columns of {path} are separated by {other!r} instead of '
            f"{separator!r}; write it with {separator!r}, and numbers with decimal points."
        )
    request.require(request.keys, header, "key")
    count = 0
    for block in records:
        if block or not count:  # a file without rows is one block without any
            frame = _parse_csv(first + block, separator, request)
            count += 1
            yield frame


def _parse_csv(data: bytes, separator: str, request: Request) -> nw.DataFrame[Any]:
    """Some lines of a CSV file, the first one with the names of the columns."""
    backend = _backend(request.table)
    native: Any = importlib.import_module(backend)
    lines = io.BytesIO(data)
    if backend == "polars":
        overrides = dict.fromkeys(request.keys, native.String)
        frame = native.read_csv(
            lines, separator=separator, infer_schema_length=None, schema_overrides=overrides
        )
    elif backend == "pyarrow":
        native_csv: Any = importlib.import_module("pyarrow.csv")
        types = dict.fromkeys(request.keys, native.string())
        frame = native_csv.read_csv(
            lines,
            parse_options=native_csv.ParseOptions(delimiter=separator),
            convert_options=native_csv.ConvertOptions(
                null_values=[""], strings_can_be_null=True, column_types=types
            ),
            read_options=native_csv.ReadOptions(block_size=2 * max(len(data), 1)),
        )
    else:
        frame = native.read_csv(
            lines,
            sep=separator,
            dtype=dict.fromkeys(request.keys, str),
            keep_default_na=False,
            na_values=[""],
            index_col=False,
            low_memory=False,
        )
    found: nw.DataFrame[Any] = nw.from_native(frame, eager_only=True)
    for name in found.columns:
        if name in request.keys:
            found = found.with_columns(_key_from_text(found[name], request))
        elif len(found) and found[name].dtype == nw.String and found[name].is_in(_TRUTH).all():
            found = found.with_columns(found[name].str.to_lowercase() == "true")
    return found


def _read_parquet(path: Path, request: Request) -> Iterator[nw.DataFrame[Any]]:
    """Read a Parquet file: in chunks with pyarrow, as a whole with other libraries."""
    if importlib.util.find_spec("pyarrow") is None:
        yield nw.read_parquet(str(path), backend=_backend(request.table))
        return
    parquet: Any = importlib.import_module("pyarrow.parquet")
    native: Any = importlib.import_module("pyarrow")
    with parquet.ParquetFile(path) as file:
        if not file.metadata.num_rows:
            yield nw.from_native(file.schema_arrow.empty_table(), eager_only=True)
        for batch in file.iter_batches(CHUNK_ROWS):
            yield nw.from_native(native.Table.from_batches([batch]), eager_only=True)


def _key_from_text(key: nw.Series[Any], request: Request) -> nw.Series[Any]:
    """Type a key column of a CSV file: integers if each is written as integers are, else text."""
    if request.types.get(key.name) == "string" or len(key) == 0:
        return key
    lines = key.str.contains(
        "\n", literal=True
    ).any()  # where "$" means different things to different libraries
    if not lines and key.str.contains("^(?:0|-?[1-9][0-9]*)$").all():
        spot = Spot(request.table, key.name)
        long = (key.str.len_chars() > 18).fill_null(value=False).to_numpy()  # below 10**18 all fit int64
        for row in np.flatnonzero(long).tolist():
            if not -(2**63) <= int(key[row]) < 2**63:
                raise spot.too_wide(key[row], row)
        return key.cast(nw.Int64)
    if not lines and key.str.contains(r"^[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+[eE][+-]?[0-9]+)$").all():
        return key.cast(nw.Float64)  # refused later, with the reason
    return key


def _read_file(path: Path, request: Request) -> Iterator[nw.DataFrame[Any]]:
    if not path.is_file():
        raise SchemaError(f'Table "{request.table}": there is no file {path}; check the path.')
    if not path.name.lower().endswith(_FILES):
        raise SchemaError(f'Table "{request.table}": {path} is no file of a known type: {", ".join(_FILES)}.')
    read = _read_parquet if path.name.lower().endswith(".parquet") else _read_csv
    try:
        for frame in read(path, request):
            yield frame.drop([name for name in frame.columns if name.startswith("__index_level_")])
    except SchemaError:
        raise
    except Exception as problem:
        why = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise SchemaError(
            f'Table "{request.table}": the file {path} cannot be read ({why}); repair or convert it.'
        ) from problem


def _refuse_repeats(names: Sequence[object], table: str) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise SchemaError(f'Table "{table}" has two columns named {name!r}; rename or drop one.')


def _read_frame(source: Any, request: Request) -> nw.DataFrame[Any]:
    if nw.dependencies.is_pandas_dataframe(source):
        _refuse_repeats(list(source.columns), request.table)
        levels = [name for name in request.keys if name in source.index.names and name not in source.columns]
        source = source.reset_index(level=levels) if levels else source
    try:
        frame = nw.from_native(source)
    except TypeError as problem:
        raise SchemaError(
            f'Table "{request.table}": a {type(source).__name__} is no table; give a pandas, polars or '
            "pyarrow table, a dictionary of columns, or the path of a CSV or Parquet file."
        ) from problem
    except nw.exceptions.DuplicateError as problem:
        raise SchemaError(
            f'Table "{request.table}" has two columns of one name; rename or drop one. ({problem})'
        ) from problem
    return frame.collect() if isinstance(frame, nw.LazyFrame) else frame


def _read_mapping(source: Mapping[str, Any], request: Request) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, given in source.items():
        column = nw.from_native(given, series_only=True, pass_through=True)
        if not isinstance(column, nw.Series | np.ndarray):
            items = list(column)
            column = np.empty(len(items), object)
            column[:] = items
        if isinstance(column, np.ndarray) and column.ndim != 1:
            raise Spot(request.table, name).error(f"it has {column.ndim} dimensions; a column has one.")
        columns[name] = column
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise SchemaError(
            f'Table "{request.table}" has columns of different lengths: {sizes}; make them equal.'
        )
    return columns


def read(source: Any, request: Request) -> Iterator[Mapping[str, Any]]:
    """Read any source into its columns by name, each a narwhals series or a one-dimensional array.

    They come in chunks of rows, at least one. All chunks have the same columns.
    """
    names: list[str] | None = None
    for whole in _frames(source, request):
        for columns in _cut(_columns(whole, request)):
            if names is not None and set(columns) != set(names):
                raise SchemaError(
                    f'Table "{request.table}": a chunk has the columns {", ".join(columns)} instead of '
                    f"{', '.join(names)}; give all chunks the same columns."
                )
            names = list(columns)
            yield columns
    if names is None:
        raise SchemaError(
            f'Table "{request.table}": the source gives no chunk; give one, with or without rows.'
        )


def _frames(source: Any, request: Request) -> Iterable[Any]:
    """The data frames, or mappings, that a source consists of."""
    if isinstance(source, str | Path):
        return _read_file(Path(source).expanduser(), request)
    if isinstance(source, Iterator) or (isinstance(source, list | tuple) and source and _is_frame(source[0])):
        return source
    return [source]


def _is_frame(one: Any) -> bool:
    return isinstance(one, Mapping) or nw.dependencies.is_into_dataframe(one)


def _columns(source: Any, request: Request) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return _read_mapping(source, request)
    frame = source if isinstance(source, nw.DataFrame) else _read_frame(source, request)
    try:
        return {name: frame[name] for name in frame.columns}
    except nw.exceptions.DuplicateError as problem:
        raise SchemaError(
            f'Table "{request.table}" has two columns of one name; rename or drop one. ({problem})'
        ) from problem


def _cut(columns: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Columns in chunks of at most `CHUNK_ROWS` rows, views of them."""
    rows = max((len(column) for column in columns.values()), default=0)
    if rows <= CHUNK_ROWS:
        yield columns
        return
    for start in range(0, rows, CHUNK_ROWS):
        yield {name: column[start : start + CHUNK_ROWS] for name, column in columns.items()}
