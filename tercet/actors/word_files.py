"""Arrays of words in a file, where recordings are longer than memory, or are read by other processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from tercet.actors.values import Filed, Stored
from tercet.protocols.base import Share
from tercet.protocols.domains import DOMAINS, Words


@attrs.frozen
class FiledWords(Filed[Words]):
    """Arrays in a file of words, by their places there; each is read whenever it is asked for."""

    path: Path
    places: tuple[tuple[int, tuple[int, ...]], ...]

    def __len__(self) -> int:
        return len(self.places)

    def at(self, number: int) -> Words:
        """As `Filed.at`."""
        start, shape = self.places[number]
        return np.fromfile(self.path, np.uint64, math.prod(shape), offset=start).reshape(shape)


@attrs.frozen(eq=False)
class FiledShares(Filed[Share]):
    """Tiles of a stored value in a file of words."""

    domain: str
    scale: int
    words: FiledWords

    def __len__(self) -> int:
        return len(self.words)

    def at(self, number: int) -> Share:
        """As `Filed.at`."""
        return Share(DOMAINS[self.domain], self.words[number], self.scale)


@attrs.frozen
class WordFile:
    """A file that arrays of words are added to."""

    path: Path

    def add(self, arrays: Sequence[Words]) -> FiledWords:
        """Write some arrays. Raises OSError."""
        places = []
        with self.path.open("ab") as file:
            for array in arrays:
                places.append((file.tell(), array.shape))
                np.ascontiguousarray(array).tofile(file)
        return FiledWords(self.path, tuple(places))

    def add_stored(self, value: Stored) -> Stored:
        """Write the tiles of a value; the same value, which is read from there. Raises OSError."""
        first = value.tiles[0]
        words = self.add([tile.data for tile in value.tiles])
        return attrs.evolve(value, tiles=FiledShares(first.domain.name, first.scale, words))
