"""What an owner is told of the keys of her own table before it leaves: how they may fail to match.

Keys match if they are the same to the byte, and what is the same to a person is often not: case, blanks,
leading zeros, the Unicode form of an accent. This runs where the table is read, in the clear, at its owner.
What it finds are numbers of rows, said to her alone: no schema has them, and nothing of them is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tercet.ml.columns import Values
from tercet.ml.normalising import DIFFERENCES, normalised
from tercet.ml.row_keys import Text, find_duplicate, hash_keys

MOST_ROWS = 1 << 20
"""Rows that are looked at: the first ones of a table."""
Hashes = npt.NDArray[np.uint64]


class KeyFindings:
    """Looks at the keys of a table chunk by chunk, as they are after what was agreed on with `normalise`."""

    def __init__(self, table: str, names: Sequence[str], normalise: Sequence[str]) -> None:
        self._table, self._names, self._done = table, tuple(names), tuple(normalise)
        self._rows = 0
        self._as_written: list[Hashes] = []
        self._same: dict[str, list[Hashes]] = {name: [] for name in DIFFERENCES if name not in normalise}
        """By what could be done besides, hashes of keys after it."""
        self._changed = dict.fromkeys(self._same, 0)

    def add(self, keys: Mapping[str, Values], hashes: Hashes) -> None:
        """Look at the next rows: their keys by column, and the hashes `(2, n)` of those."""
        left = MOST_ROWS - self._rows
        if left <= 0 or not any(isinstance(column, Text) for column in keys.values()):
            return
        self._rows += hashes.shape[1]
        self._as_written.append(hashes)
        for name, found in self._same.items():
            after = {
                key: normalised(column, [name]) if isinstance(column, Text) else column
                for key, column in keys.items()
            }
            same = all(map(_alike, keys.values(), after.values()))
            changed = hashes if same else hash_keys(after, table=self._table)
            self._changed[name] += int((changed != hashes).any(axis=0).sum())
            found.append(changed)

    def sentences(self) -> Iterator[str]:
        """A sentence for each way in which keys differ that may not be meant, with what mends it."""
        if not self._rows or not any(self._changed.values()):
            return
        repeats = {"": _repeats(self._as_written)}
        for name, hashes in self._same.items():
            changed = self._changed[name]
            repeats[name] = _repeats(hashes) if changed else repeats[""]
            # Folding case composes accents too, which has been told of by then.
            same = repeats[name] - repeats["nfc" if name == "case" and "nfc" in repeats else ""]
            if not same and (name != "nfc" or not changed):
                continue
            yield (
                f"table {self._table!r}, key {', '.join(map(repr, self._names))}: of {self._rows} rows that "
                f"were looked at, {_what(name, changed, same)}; if that does not count, upload with "
                f"normalise={[*self._done, name]}, as all owners of tables to join have to"
                f"{', once such rows are merged' if same else ''}"
            )


def _what(name: str, changed: int, same: int) -> str:
    """What was found, in words."""
    twins = f"{same} ha{'s' if same == 1 else 've'} the key of another row but for {DIFFERENCES[name]}"
    if name != "nfc":
        return twins
    # Nobody sees it, and what others type is composed.
    alone = f"{changed} ha{'s' if changed == 1 else 've'} a key in another Unicode form than NFC"
    return f"{alone}, and {twins}" if same else alone


def _alike(one: Values, other: Values) -> bool:
    """Whether a column of keys has stayed as it was."""
    if not isinstance(one, Text) or not isinstance(other, Text):
        return one is other
    return np.array_equal(one.ends, other.ends) and np.array_equal(one.data, other.data)


def _repeats(hashes: Sequence[Hashes]) -> int:
    """How many rows have the hash of an earlier one."""
    found = find_duplicate(np.concatenate(hashes, axis=1))
    return 0 if found is None else found.repeats
