"""Reading: any source to its columns by name, before anyone looks at what is in them.

Data frames of every library that narwhals knows, dictionaries of columns, CSV and Parquet files. What they
differ in ends here: a column comes out as a narwhals series, a one-dimensional array, or the cells of a CSV
file as they are written, with its missing values still in it. Sources are read in chunks of rows, so they may
be larger than memory: files, and iterators of data frames.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal

import narwhals as nw
import numpy as np
from attrs import field, frozen

from tercet.errors import SchemaError
from tercet.ml.csv_files import read_csv, refuse_repeats
from tercet.ml.meanings import check_labels
from tercet.ml.normalising import check_normalise
from tercet.ml.schema import Spot, suggest

Declared = Literal["real", "integer", "boolean", "string", "category", "date", "datetime"]
"""What `types` may say of a column: "integer" or "string" of a key, all but "string" of a feature."""

CHUNK_ROWS = 1 << 18
"""Rows that are looked at together."""
_FILES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


def names_of(given: object, what: str, table: str) -> tuple[str, ...]:
    """One name or several, as a tuple; SchemaError, about the option `what`, if they are no text."""
    if isinstance(given, AbstractSet) and not isinstance(given, MappingView):
        raise SchemaError(f'Table "{table}": {what} is {given!r}, and a set has no order; give a list.')
    names = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    for name in names:
        if not isinstance(name, str):
            raise SchemaError(
                f'Table "{table}": {what} names {name!r}, which is not text; a column is named by its name, '
                'as in "age", and a source whose columns have other names is renamed first.'
            )
    return names


def _options(given: object, what: str, table: str) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise SchemaError(
            f'Table "{table}": {what} is {given!r}; it is a dictionary from names of columns, as in '
            f'{what}={{"age": ...}}.'
        )
    return dict(given or {})


@frozen
class Request:
    """What the caller of `encode` asked for."""

    table: str
    keys: tuple[str, ...]
    columns: tuple[str, ...] | None
    scales: dict[str, int]
    types: dict[str, Declared]
    ranges: dict[str, tuple[float, float]]
    missing: str
    categories: dict[str, tuple[str, ...]] = field(factory=dict)
    normalise: tuple[str, ...] = ()
    """What is done to keys, all of which are text then."""
    as_text: frozenset[str] = frozenset()
    """Keys of a file in which some row was found that is no integer, so that all are text."""

    @classmethod
    def of(
        cls,
        table: str,
        key: object,
        columns: object,
        scales: object,
        types: object,
        ranges: object,
        missing: str,
        categories: object = None,
        normalise: object = (),
    ) -> Request:
        """Check what sort of things the options are; SchemaError for another sort."""
        return cls(
            table,
            names_of(key, "key", table),
            None if columns is None else names_of(columns, "columns", table),
            _options(scales, "scales", table),
            _options(types, "types", table),
            _options(ranges, "ranges", table),
            missing,
            {
                name: check_labels(labels, f'Table "{table}", column "{name}"')
                for name, labels in _options(categories, "categories", table).items()
            },
            check_normalise(normalise or (), f'Table "{table}"'),
        )

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

    def declared(self, name: str) -> Declared | None:
        """What the caller says that a column is; what has declared labels is a category."""
        return self.types.get(name, "category" if name in self.categories else None)

    def require(self, names: Iterable[str], known: Sequence[str], what: str) -> None:
        """Raise `SchemaError` unless all `names`, given as `what`, are among the columns `known`."""
        for name in names:
            if name not in known:
                raise SchemaError(
                    f'Table "{self.table}" has no column {name!r}, which {what} names. {suggest(name, known)}'
                )


def _read_parquet(path: Path, request: Request) -> Iterator[nw.DataFrame[Any]]:
    """Read a Parquet file in chunks, with pyarrow."""
    if importlib.util.find_spec("pyarrow") is None:
        raise SchemaError(
            f'Table "{request.table}": reading Parquet files needs pyarrow; run `pip install pyarrow`.'
        )
    parquet: Any = importlib.import_module("pyarrow.parquet")
    native: Any = importlib.import_module("pyarrow")
    with parquet.ParquetFile(path) as file:
        if not file.metadata.num_rows:
            yield nw.from_native(file.schema_arrow.empty_table(), eager_only=True)
        for batch in file.iter_batches(CHUNK_ROWS):
            yield nw.from_native(native.Table.from_batches([batch]), eager_only=True)


def _read_file(path: Path, request: Request) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise SchemaError(f'Table "{request.table}": there is no file {path}; check the path.')
    if not path.name.lower().endswith(_FILES):
        raise SchemaError(f'Table "{request.table}": {path} is no file of a known type: {", ".join(_FILES)}.')
    try:
        if not path.name.lower().endswith(".parquet"):
            yield from read_csv(path, request.table, request.keys, CHUNK_ROWS)
            return
        for frame in _read_parquet(path, request):
            yield {n: c for n, c in _series(frame, request).items() if not n.startswith("__index_level_")}
    except SchemaError:
        raise
    except Exception as problem:
        why = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise SchemaError(
            f'Table "{request.table}": the file {path} cannot be read ({why}); repair or convert it.'
        ) from problem


def _read_frame(source: Any, request: Request) -> nw.DataFrame[Any]:
    if nw.dependencies.is_pandas_dataframe(source):
        _require_names(source.columns, request)
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


def _require_names(names: Any, request: Request) -> None:
    """Raise SchemaError unless a source's names of columns are text, each its own."""
    levels = getattr(names, "nlevels", 1)
    if levels > 1:
        raise SchemaError(
            f'Table "{request.table}": its columns have names of {levels} levels (a MultiIndex); give them '
            'plain ones first, as with df.columns = ["_".join(map(str, name)) for name in df.columns].'
        )
    for name in names:
        if not isinstance(name, str):
            raise SchemaError(
                f'A column of table "{request.table}" is named {name!r}, which is not text; rename it, or '
                "all with df.columns = df.columns.astype(str)."
            )
    refuse_repeats(list(names), request.table)


def _read_mapping(source: Mapping[str, Any], request: Request) -> dict[str, Any]:
    _require_names(source, request)
    columns = {name: _column(given, Spot(request.table, name)) for name, given in source.items()}
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise SchemaError(
            f'Table "{request.table}" has columns of different lengths: {sizes}; make them equal.'
        )
    return columns


def _column(given: Any, spot: Spot) -> Any:
    """A column of a dictionary: a series, an array, or whatever else has values in an order."""
    pyarrow = nw.dependencies.get_pyarrow()
    if pyarrow is not None and isinstance(given, pyarrow.Array):
        given = pyarrow.chunked_array([given])
    column = nw.from_native(given, series_only=True, pass_through=True)
    if isinstance(column, nw.Series):
        return column
    unordered = isinstance(given, AbstractSet) and not isinstance(given, MappingView)
    if isinstance(given, str | bytes | bytearray | Mapping) or unordered or not isinstance(given, Iterable):
        why = "which has no order" if unordered else "which is no column"
        raise spot.error(
            f"it is {given!r:.60} (type {type(given).__name__}), {why}; give a list, an array or a series. "
            "Rows that are dictionaries become a table with pandas.DataFrame(rows)."
        )
    if hasattr(given, "__array__") and not isinstance(given, np.ma.MaskedArray):
        column = np.asarray(given)
    if not isinstance(column, np.ndarray):
        column = np.fromiter(given, object)
    if column.ndim != 1:
        raise spot.error(f"it has {column.ndim} dimensions; a column has one.")
    return column


def read(source: Any, request: Request) -> Iterator[Mapping[str, Any]]:
    """Read any source into its columns by name, each a narwhals series, a one-dimensional array or `Cells`.

    They come in chunks of rows, at least one. All chunks have the same columns.
    """
    names: list[str] | None = None
    if isinstance(source, str | Path):
        found: Iterable[Mapping[str, Any]] = _read_file(Path(source).expanduser(), request)
    else:
        found = (_columns(frame, request) for frame in _frames(source))
    for whole in found:
        for columns in _cut(whole):
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


def _frames(source: Any) -> Iterable[Any]:
    """The data frames, or mappings, that a source consists of."""
    if isinstance(source, Iterator) or (isinstance(source, list | tuple) and source and _is_frame(source[0])):
        return source
    return [source]


def _is_frame(one: Any) -> bool:
    return isinstance(one, Mapping) or nw.dependencies.is_into_dataframe(one)


def _columns(source: Any, request: Request) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return _read_mapping(source, request)
    return _series(_read_frame(source, request), request)


def _series(frame: nw.DataFrame[Any], request: Request) -> dict[str, nw.Series[Any]]:
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
