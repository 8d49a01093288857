"""Ingestion: from a data frame or a file to the integers that are secret-shared.

This runs at the owner of the data, in the clear, before anything leaves the machine, so it is the one place
that can look at every value and say what is wrong with it. `encode` reads a source, checks it against what
was asked, hashes the keys and stores each feature as integers in fixed point; it either returns a whole table
or raises a `SchemaError` that names the table, the column and the row. Rows count from 0. Any data frame that
narwhals knows will do: each column becomes one NumPy array (or `Text`) as early as possible, and everything
after that is NumPy.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import IO, Any, Literal, cast

import narwhals as nw
import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from tercet.errors import SchemaError
from tercet.ml.keys import Text, encode_text, find_duplicate, hash_keys, series_text
from tercet.ml.schema import (
    SCALES,
    ColumnSchema,
    KeyType,
    Kind,
    Spot,
    TableSchema,
    automatic_scale,
    check_name,
    fixed_point,
    refuse_large,
    suggest,
)

Declared = Literal["real", "integer", "boolean", "string"]
"""What `types` may say of a column: the first three of a feature, "integer" or "string" of a key."""

Values = npt.NDArray[Any] | Text

_Reader = Literal["polars", "pyarrow", "pandas"]
_READERS: tuple[_Reader, ...] = ("polars", "pyarrow", "pandas")
_FILES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
_TRUTH = ["true", "false", "True", "False", "TRUE", "FALSE"]


@frozen(eq=False)
class EncodedTable:
    """A table as integers, ready to be secret-shared.

    `keys`: uint64 of shape (2, n), the 128-bit hash of the key of each row (see `tercet.ml.keys.hash_keys`),
    whether it has one component or several. `values`: int64 of shape (features, n), row j being
    `schema.features[j]`; decode it with that column's scale.
    """

    schema: TableSchema
    keys: npt.NDArray[np.uint64]
    values: npt.NDArray[np.int64]


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


@frozen
class _Request:
    """What the caller of `encode` asked for."""

    table: str
    keys: tuple[str, ...] = field(converter=_names)
    columns: tuple[str, ...] | None
    scales: dict[str, int]
    types: dict[str, Declared]

    def __attrs_post_init__(self) -> None:
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


# Reading: any source to named columns.


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


def _read_csv(path: Path, request: _Request) -> nw.DataFrame[Any]:
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


def _key_from_text(key: nw.Series[Any], request: _Request) -> nw.Series[Any]:
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


def _read_file(path: Path, request: _Request) -> nw.DataFrame[Any]:
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


def _read_frame(source: Any, request: _Request) -> nw.DataFrame[Any]:
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


def _read_mapping(source: Mapping[str, Any], request: _Request) -> dict[str, Any]:
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


def _read(source: Any, request: _Request) -> Mapping[str, Any]:
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


# Columns to arrays: booleans, integers, float64 or Text; any other dtype is refused afterwards.


def _object_values(array: npt.NDArray[Any], spot: Spot) -> Values:
    """Give an array of Python objects the type that they share."""
    items = array.tolist()
    types = set(map(type, items))
    if len(types) > 1 or types & {type(None)} or any(t.__name__ in ("NAType", "NaTType") for t in types):
        absent = ("NoneType", "NAType", "NaTType")
        nulls = [type(v).__name__ in absent or (isinstance(v, float) and v != v) for v in items]
        if any(nulls):
            raise spot.missing(np.array(nulls))
    if all(issubclass(t, str) for t in types):
        return encode_text(items, spot)
    if types <= {bool, np.bool_}:
        return array.astype(np.bool_)
    numeric = all(issubclass(t, Real | Decimal | np.bool_) for t in types)
    whole = all(issubclass(t, Integral | np.bool_) for t in types)
    for dtype in (np.int64, np.uint64) if whole else (np.float64,) if numeric else ():
        try:
            return array.astype(dtype)
        except OverflowError:
            continue
    return array


def _whole(values: npt.NDArray[Any]) -> bool:
    """Tell whether these are integers, which an object array may hold beyond 64 bits."""
    if values.dtype.kind == "O":
        return all(isinstance(value, Integral) for value in values.tolist())
    return values.dtype.kind in "iu"


def _array_values(array: npt.NDArray[Any], spot: Spot) -> Values:
    if isinstance(array, np.ma.MaskedArray):
        nulls = np.ma.getmaskarray(array)
        if nulls.any():
            raise spot.missing(nulls)
        array = array.data
    if array.dtype.kind in "UT":
        return encode_text(array.tolist(), spot)
    if array.dtype.kind == "O":
        converted = _object_values(array, spot)
        if isinstance(converted, Text):
            return converted
        array = converted
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
        nulls = np.isnan(array)
        if nulls.any():
            raise spot.missing(nulls)
    return array


def _values(column: Any, spot: Spot) -> Values:
    """Turn a column into an array or `Text` without missing values."""
    if not isinstance(column, nw.Series):
        return _array_values(column, spot)
    nulls = column.is_null().to_numpy()
    if nulls.any():
        raise spot.missing(nulls)
    if column.dtype == nw.String:
        return series_text(column, spot)
    if len(column) == 0 and column.dtype in (nw.Unknown, nw.Object):
        return Text.of([])
    if column.dtype == nw.Decimal:
        column = column.cast(nw.Float64)
    if column.dtype in (nw.Int128, nw.UInt128):
        return _array_values(np.array(column.to_list(), dtype=object), spot)
    return _array_values(column.to_numpy(), spot)


# Arrays to what is stored.


def _key(values: Values, declared: Declared | None, spot: Spot) -> tuple[Values, KeyType]:
    if declared not in (None, "integer", "string"):
        raise spot.error(f'types declares this key as {declared!r}; a key is an "integer" or a "string".')
    if isinstance(values, Text):
        if declared == "integer" and values.rows:
            raise spot.error(f"the key {values.at(0)!r} is text, and types declares integers; convert it.", 0)
        return values, "string"
    if not _whole(values):
        sort = "objects of several types" if values.dtype.kind == "O" else f"{values.dtype} values"
        raise spot.error(f"it holds {sort}; a key is an integer or text: convert it, or choose another key.")
    if declared == "string":
        return Text.of(map(str, values.tolist())), "string"
    if values.dtype.kind == "O":
        row = next(i for i, v in enumerate(values.tolist()) if not -(2**63) <= v < 2**63)
        raise spot.too_wide(values[row], row)
    return values, "integer"


def _is_number(value: object) -> bool:
    try:
        float(cast("Any", value))
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _refuse_text(values: Values, spot: Spot) -> SchemaError:
    """Point at the first value that is no number; if all look like numbers, at the first."""
    if isinstance(values, Text):
        rows: Sequence[Any] = [values.at(i) for i in range(values.rows)]
    else:
        rows = values.tolist()
    row = next((i for i, value in enumerate(rows) if not _is_number(value)), 0)
    what = "is text" if isinstance(rows[row], str) else f"is a {type(rows[row]).__name__}"
    return spot.error(
        f"the value {rows[row]!r} {what}, not a number; leave the column out with columns=[...], or "
        "encode it as numbers first.",
        row,
    )


def _feature(values: Values, declared: Declared | None, spot: Spot) -> tuple[npt.NDArray[Any], Kind]:
    """Check a feature against its kind: a real one becomes float64, an integer or a boolean int64."""
    if declared not in (None, "real", "integer", "boolean"):
        raise spot.error(f'types declares it as {declared!r}; a feature is "real", "integer" or "boolean".')
    if isinstance(values, Text) and values.rows == 0:
        values = np.zeros(0)
    if not isinstance(values, Text) and values.dtype.kind == "O" and _whole(values):
        if declared != "real":
            refuse_large(values, spot)
        values = np.array([float(v) if abs(v) < 2**1023 else np.inf for v in values.tolist()])
    if isinstance(values, Text) or values.dtype.kind not in "biuf":
        raise _refuse_text(values, spot)
    inferred: dict[str, Kind] = {"b": "boolean", "i": "integer", "u": "integer", "f": "real"}
    kind = declared or inferred[values.dtype.kind]
    infinite = np.isinf(values)
    if infinite.any():
        raise spot.error(
            "the value is infinite, or as good as; replace it or drop the row.", int(np.argmax(infinite))
        )
    if kind == "real":
        return values.astype(np.float64), kind
    if kind == "boolean":
        wrong, rule = (values != 0) & (values != 1), "a boolean, which is 0 or 1"
    else:
        wrong, rule = values != np.rint(values), "an integer"
    if wrong.any():
        row = int(np.argmax(wrong))
        raise spot.error(
            f'the value {values[row]} is not {rule}; correct it, or declare the column "real".', row
        )
    if values.dtype.kind != "b":
        refuse_large(values, spot)
    return values.astype(np.int64), kind


def _scale(request: _Request, name: str, kind: Kind, values: npt.NDArray[Any]) -> int:
    scale = request.scales.get(name)
    if scale is None:
        return automatic_scale(values, kind=kind)
    spot = Spot(request.table, name)
    if kind == "boolean" and scale != 0:
        raise spot.error(
            f"scales gives {scale!r}, but a boolean is stored at scale 0; leave it out of scales."
        )
    if isinstance(scale, bool) or not isinstance(scale, Integral) or not SCALES[0] <= scale <= SCALES[1]:
        raise spot.error(f"scales gives {scale!r}; a scale is an integer from {SCALES[0]} to {SCALES[1]}.")
    return int(scale)


def _hash(keys: Mapping[str, Values], table: str) -> npt.NDArray[np.uint64]:
    hashes = hash_keys(keys, table=table)
    twice = find_duplicate(hashes)
    if twice is not None:
        names = ", ".join(f'"{name}"' for name in keys)
        rest = "the only repetition" if twice.repeats == 1 else f"the first of {twice.repeats} repetitions"
        raise SchemaError(
            f'Table "{table}", key {names}: row {twice.row} has the same key as row {twice.earlier} '
            f"(counted from 0), {rest}; a key names one row, so merge or drop the others."
        )
    return hashes


def encode(
    source: Any,
    *,
    name: str,
    key: str | Sequence[str],
    owner: str,
    columns: Sequence[str] | None = None,
    scales: Mapping[str, int] | None = None,
    types: Mapping[str, Declared] | None = None,
) -> EncodedTable:
    """Read a table, check it and encode it as integers.

    `source`: a pandas, polars or pyarrow table, or any other that narwhals accepts (a lazy one is collected);
    a dictionary of one-dimensional columns; or the path of a .csv, .csv.gz, .tsv, .tsv.gz or .parquet file.
    `key`: the column, or columns, whose values name a row; a level of a pandas index will do, which is
    otherwise ignored. `columns`: the features to keep, in this order (default: all in the order of the
    source; `[]` keeps the key only).

    `types`: the kind of a column where the dtype does not tell: "real", "integer" or "boolean" (0 and 1) for
    a feature; "string" or "integer" for a key. A key in a CSV file is read as integers if all are written
    canonically (no "007", no "+7"), else as text; a key of integers declared "string" becomes their decimal
    text. `scales`: the fractional bits of a column, in place of `automatic_scale`.

    Returns an `EncodedTable`. Raises `SchemaError`, a sentence with table, column, row and the mend, for a
    file that cannot be read, unknown or repeated columns, missing, infinite or textual values, values out of
    range, and duplicate keys. The source is not changed.
    """
    check_name(name, "The table's name")
    check_name(owner, f'The owner of table "{name}"')
    chosen = None if columns is None else _names(columns)
    request = _Request(name, key, chosen, dict(scales or {}), dict(types or {}))
    table = _read(source, request)
    request.require(request.keys, list(table), "key")
    request.require(chosen or (), list(table), "columns")
    features = [column for column in (table if chosen is None else chosen) if column not in request.keys]
    request.require(request.types, [*request.keys, *features], "types")
    request.require(request.scales, features, "scales")
    for column in (*request.keys, *features):
        check_name(column, f'A column of table "{name}"')

    described: list[ColumnSchema] = []
    keys: dict[str, Values] = {}
    for column in request.keys:
        spot = Spot(name, column)
        keys[column], key_type = _key(_values(table[column], spot), request.types.get(column), spot)
        described.append(ColumnSchema(column, "key", key_type=key_type))
    hashes = _hash(keys, name)
    stored = np.empty((len(features), hashes.shape[1]), np.int64)
    for j, column in enumerate(features):
        spot = Spot(name, column)
        values, kind = _feature(_values(table[column], spot), request.types.get(column), spot)
        scale = _scale(request, column, kind, values)
        stored[j] = fixed_point(values, scale, spot)
        described.append(ColumnSchema(column, kind, scale))
    schema = TableSchema(name=name, owner=owner, columns=tuple(described), rows=hashes.shape[1])
    return EncodedTable(schema, hashes, stored)


def decode(stored: npt.ArrayLike, scale: int) -> npt.NDArray[np.float64]:
    """Turn stored integers of any shape back into numbers: `stored * 2**-scale`."""
    with np.errstate(over="ignore", under="ignore"):
        return cast("npt.NDArray[np.float64]", np.ldexp(np.asarray(stored, np.float64), -scale))
