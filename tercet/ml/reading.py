"""Reading: any source to its columns by name, before anyone looks at what is in them.

Data frames of every library that narwhals knows, dictionaries of columns, CSV and Parquet files. What they
differ in ends here: keys in a CSV file stay text as they are written, and a column comes out as a narwhals
series or a one-dimensional array, with its missing values still in it.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import narwhals as nw
import numpy as np
from attrs import field, frozen

from tercet.errors import SchemaError
from tercet.ml.schema import Spot, suggest

Declared = Literal["real", "integer", "boolean", "string"]
"""What `types` may say of a column: the first three of a feature, "integer" or "string" of a key."""

_Reader = Literal["polars", "pyarrow", "pandas"]
_READERS: tuple[_Reader, ...] = ("polars", "pyarrow", "pandas")
_FILES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
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


def _open(path: Path) -> IO[str]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _header(path: Path, separator: str, table: str) -> list[str]:
    """Read the column names ourselves: each library renames duplicates in its own way."""
    with _open(path) as lines:
        names = next(csv.reader(lines, delimiter=separator), [])
    if not names:
        raise SchemaError(f'Table "{table}": the file {path} is empty; its first line must name the columns.')
    return names


def _read_csv(path: Path, request: Request) -> nw.DataFrame[Any]:
    """Read a CSV file: keys as text first, so that "007" survives, the rest as its rows suggest."""
    separator = "\t" if ".tsv" in path.name.lower() else ","
    header = _header(path, separator, request.table)
    _refuse_repeats(header, request.table)
    request.require(request.keys, header, "key")
    backend = _backend(request.table)
    native: Any = importlib.import_module(backend)
    options: dict[str, Any]
    if backend == "polars":
        overrides = dict.fromkeys(request.keys, native.String)
        options = {"infer_schema_length": None, "schema_overrides": overrides}
    elif backend == "pyarrow":
        native_csv: Any = importlib.import_module("pyarrow.csv")
        types = dict.fromkeys(request.keys, native.string())
        convert = native_csv.ConvertOptions(null_values=[""], strings_can_be_null=True, column_types=types)
        options = {"convert_options": convert, "read_options": native_csv.ReadOptions(block_size=1 << 28)}
    else:
        options = {"dtype": dict.fromkeys(request.keys, str), "keep_default_na": False, "na_values": [""]}
        options |= {"index_col": False, "low_memory": False}
    frame = nw.read_csv(str(path), backend=backend, separator=separator, **options)
    for name in frame.columns:
        if name in request.keys:
            frame = frame.with_columns(_key_from_text(frame[name], request))
        elif len(frame) and frame[name].dtype == nw.String and frame[name].is_in(_TRUTH).all():
            frame = frame.with_columns(frame[name].str.to_lowercase() == "true")
    return frame


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


def _read_file(path: Path, request: Request) -> nw.DataFrame[Any]:
    if not path.is_file():
        raise SchemaError(f'Table "{request.table}": there is no file {path}; check the path.')
    if not path.name.lower().endswith(_FILES):
        raise SchemaError(f'Table "{request.table}": {path} is no file of a known type: {", ".join(_FILES)}.')
    try:
        if not path.name.lower().endswith(".parquet"):
            return _read_csv(path, request)
        frame = nw.read_parquet(str(path), backend=_backend(request.table))
    except SchemaError:
        raise
    except Exception as problem:
        why = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise SchemaError(
            f'Table "{request.table}": the file {path} cannot be read ({why}); repair or convert it.'
        ) from problem
    return frame.drop([name for name in frame.columns if name.startswith("__index_level_")])


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


def read(source: Any, request: Request) -> Mapping[str, Any]:
    """Read any source into its columns by name, each a narwhals series or a one-dimensional array."""
    if isinstance(source, Mapping):
        return _read_mapping(source, request)
    if isinstance(source, str | Path):
        frame = _read_file(Path(source).expanduser(), request)
    else:
        frame = _read_frame(source, request)
    try:
        return {name: frame[name] for name in frame.columns}
    except nw.exceptions.DuplicateError as problem:
        raise SchemaError(
            f'Table "{request.table}" has two columns of one name; rename or drop one. ({problem})'
        ) from problem
