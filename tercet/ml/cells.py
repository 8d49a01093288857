"""Cells: what text stands for, in a file that says of nothing whether it is a number, and in a key.

This is the one definition of missing, number, boolean and key; docs/files.md has it in words, with a table of
cells that is also its test. Whatever could be read in two ways is refused, with the row and the mend: nobody
can look at a table once it is uploaded, and a key that is read wrongly matches nothing, silently.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from tercet.errors import SchemaError
from tercet.ml.row_keys import Text, encode_text
from tercet.ml.schema import Spot

MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
    | {"<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""How a missing value is written, those of pandas: whoever looked at a file with it is not surprised."""
TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FLOATED = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+[eE][+-][0-9]+)(?:[eE][+-]?[0-9]+)?")
"""What a float becomes where an id was: 123.0, 1.23457E+11, 1e+05. (12E5 is also part of a hash.)"""
INTEGER = re.compile(r"0|-?[1-9][0-9]*")

_LONGEST_INTEGER = 400
"""Digits, beyond which no float reaches."""


@frozen(eq=False)
class Cells:
    """Some rows of a column of a file, each cell as the text that it is."""

    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)


# -- features ------------------------------------------------------------------------------------------------


def feature_cells(cells: Cells, spot: Spot) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
    """Where the cells of a feature are missing, and the values that are there: integers, floats or booleans.

    Spaces and tabs around a cell do not count. Raises SchemaError, with the row, for any other text.
    """
    texts = cells.texts
    joined = "".join(texts)
    if " " in joined or "\t" in joined:
        texts = [text.strip(" \t") for text in texts]
        joined = "".join(texts)
    values = _numbers(texts, joined)
    if values is not None:
        return np.zeros(len(texts), np.bool_), values
    nulls = np.fromiter((text in MISSING for text in texts), np.bool_, len(texts))
    there = [text for text, null in zip(texts, nulls.tolist(), strict=True) if not null]
    values = _numbers(there, "".join(there))
    if values is None and all(text in TRUTH for text in there):
        values = np.array([TRUTH[text] for text in there], np.bool_)
    if values is None:
        raise _no_feature(there, spot.only(~nulls))
    return nulls, values


def symbolic_cells(cells: Cells, spot: Spot) -> tuple[npt.NDArray[np.bool_], Text]:
    """Where the cells of a category, or of dates, are missing, and the text of those that are there."""
    texts = [text.strip(" \t") for text in cells.texts]
    nulls = np.fromiter((text in MISSING for text in texts), np.bool_, len(texts))
    there = [text for text, null in zip(texts, nulls.tolist(), strict=True) if not null]
    return nulls, encode_text(there, spot.only(~nulls))


def _numbers(texts: list[str], joined: str) -> npt.NDArray[Any] | None:
    """Cells as int64, as objects if these do not fit, as floats if some are no integers; None if no numbers.

    Of texts of these characters, Python's int and float take exactly those that match `NUMBER`.
    """
    other = joined.encode("utf-8", "surrogateescape").translate(None, b"0123456789+-")
    if other.translate(None, b".eE"):
        return None
    try:
        if other or not texts or max(map(len, texts)) > _LONGEST_INTEGER:
            return np.fromiter(map(float, texts), np.float64, len(texts))
        whole = list(map(int, texts))
    except ValueError:
        return None
    try:
        return np.array(whole, np.int64)
    except OverflowError:
        return np.array(whole, object)


def _no_feature(texts: list[str], spot: Spot) -> SchemaError:
    """Point at the first cell that is neither number nor boolean, or else at the first unlike the first."""
    row = next((i for i, text in enumerate(texts) if text not in TRUTH and not NUMBER.fullmatch(text)), None)
    if row is None:
        first = texts[0] in TRUTH
        return mixed_truth(spot, next(i for i, text in enumerate(texts) if (text in TRUTH) != first))
    return no_number(texts[row], spot, row)


def no_number(value: object, spot: Spot, row: int) -> SchemaError:
    """The error that a feature's value, in that row, is none."""
    what = "is text" if isinstance(value, str) else f"is a {type(value).__name__}"
    point = isinstance(value, str) and NUMBER.fullmatch(value.strip().replace(",", ".", 1)) and "," in value
    mend = "write numbers with decimal points and no other marks, " if point else ""
    return spot.error(
        f"the value {value!r} {what}, not a number; {mend}leave the column out by naming the others "
        "(columns=[...], or --column), or, if all may know what texts it has, declare it a category with "
        f'types={{"{spot.column}": "category"}}.',
        row,
    )


def mixed_truth(spot: Spot, row: int) -> SchemaError:
    """The error that booleans and numbers stand in one column, first seen in that row."""
    return spot.error(
        "some values are booleans and some, from this row on, are numbers, or the other way round; write "
        "all as 0 and 1, or all as true and false.",
        row,
    )


# -- keys ----------------------------------------------------------------------------------------------------


@frozen
class Doubt:
    """What decides over doubtful keys once all rows are seen: the first, if none was a `word`."""

    error: SchemaError | None = None
    word: bool = False
    """Whether a key is no number, so that keys like 12E5 are text too."""

    def __or__(self, later: Doubt) -> Doubt:
        return Doubt(self.error or later.error, self.word or later.word)


def key_cells(cells: Cells, spot: Spot, *, integers: bool) -> npt.NDArray[np.int64] | Text:
    """The keys of a file, int64 if `integers` are looked for and all are written as these are, else text."""
    texts = cells.texts
    if integers and texts and max(map(len, texts)) <= 20:  # digits and sign of any 64-bit integer
        joined = "".join(texts).encode("utf-8", "surrogateescape")
        if not joined.translate(None, b"0123456789-"):
            try:
                values = np.array(list(map(int, texts)), np.int64)
            except (ValueError, OverflowError):  # "1-2", or beyond 64 bits
                return encode_text(texts, spot)
            if list(map(str, values.tolist())) == texts:  # no "007", no "-0"
                return values
    return encode_text(texts, spot)


def doubt_text(keys: Text, spot: Spot, *, written: bool) -> Doubt:
    """Refuse text that nobody means as a key, unless it is declared "string"; tell what is in doubt yet.

    Raises SchemaError, with the row, for what stands for a missing value or a boolean, for spaces around a
    key, and for what a float becomes. `written`: in a file, where integers are text too.
    """
    doubt, looks = _sort_out(keys, written=written)
    for row in looks:
        text = keys.at(row)
        why = _why_no_key(text)
        if why:
            raise _no_key(text, why, spot, row)
        if not NUMBER.fullmatch(text) or (text.lstrip("+-").isdigit() and not INTEGER.fullmatch(text)):
            doubt |= Doubt(word=True)
        elif not INTEGER.fullmatch(text):
            doubt |= Doubt(_no_key(text, _FLOAT, spot, row))
        elif not -(2**63) <= int(text[:40]) < 2**63:
            doubt |= Doubt(spot.too_wide(text, row))
    return doubt


def _why_no_key(text: str) -> str:
    if text in MISSING:
        return "is how a missing value is written; drop such rows, or fill them."
    if text in TRUTH:
        return "is a boolean; a key is an integer or text."
    if text != text.strip():
        return "has space at an end, which counts, so it would not match the same without; strip it."
    return _FLOAT if _FLOATED.fullmatch(text) else ""


_FLOAT = (
    "is written as a float, as Excel writes long ids and pandas those of a column where some are missing: "
    "digits may be lost, and it would match nothing; export the column again, as text or as integers."
)


def _no_key(text: str, why: str, spot: Spot, row: int) -> SchemaError:
    mend = f'Or, if it is meant literally, declare the key text: types={{"{spot.column}": "string"}}.'
    return spot.error(f"the key {text!r} {why} {mend}", row)


def _bytes(*characters: bytes) -> npt.NDArray[np.bool_]:
    return np.isin(np.arange(256), np.frombuffer(b"".join(characters), np.uint8))


_DIGITS, _SIGNS, _POINTS = _bytes(b"0123456789"), _bytes(b"+-"), _bytes(b".eE")
_SPACE_FIRST = _bytes(b"\t\n\v\f\r\x1c\x1d\x1e\x1f \xc2\xe1\xe2\xe3")
_SPACE_LAST = _bytes(b"\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\x9f\xa0\xa8\xa9\xaf", bytes(range(0x80, 0x8B)))
"""First and last bytes of whatever space there is in Unicode, in UTF-8."""
_WORD_FIRST = _bytes(*{word[:1].encode() for word in MISSING | TRUTH.keys()})
_LONGEST_WORD = max(map(len, MISSING | TRUTH.keys()))


def _sort_out(keys: Text, *, written: bool) -> tuple[Doubt, list[int]]:
    """Whether some key is seen to be a word, and the rows that have to be looked at one by one, a few."""
    if not keys.rows or not keys.data.size:
        return Doubt(), list(range(keys.rows))
    starts = np.concatenate([[0], keys.ends[:-1]])
    sizes = keys.ends - starts

    def count(table: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        total = np.concatenate([[0], np.cumsum(table[keys.data], dtype=np.int64)])
        found: npt.NDArray[np.int64] = total[keys.ends] - total[starts]
        return found

    def at(places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        found: npt.NDArray[np.uint8] = keys.data[np.clip(places, 0, keys.data.size - 1)]
        return found

    digits, signs, points = count(_DIGITS), count(_SIGNS), count(_POINTS)
    first = at(starts)
    minus = (first == ord("-")) & (signs == 1)
    lead = at(starts + minus)
    whole = (digits + minus == sizes) & (digits > 0) & ((lead != ord("0")) | (sizes == 1))
    number = (digits + signs + points == sizes) & (points > 0) & (digits > 0)
    looks = (sizes == 0) | number | _SPACE_FIRST[first] | _SPACE_LAST[at(keys.ends - 1)]
    looks |= (sizes <= _LONGEST_WORD) & _WORD_FIRST[first] & ~whole
    looks |= whole & (digits > 18) & written
    word = bool((~whole & ~number & ~looks).any())
    return Doubt(word=word), np.flatnonzero(looks).tolist()
