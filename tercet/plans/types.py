"""What plans are made of: types of values, nodes, and what a node discloses."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import attrs
import numpy as np
import numpy.typing as npt

from tercet.protocols.domains import BITS, Z64, Domain, Words

Dim = int | str

Dims = tuple[Dim, ...]

TILE_ROWS = 1 << 16
"""Rows of a tile: a multiple of 64, so that packed bits split between words."""

RING_LIMIT = 2.0**63

MOST_ELEMENTS = 1 << 40

WIDEST_SCALE = 1 << 10

DisclosureClass = Literal["check", "count", "figure", "model", "rows"]
"""What a disclosure tells, from the least to the most.

- `check`: bits that say whether the computation holds or what of it can be told, on which the next plan of
  the computation may depend;
- `count`: numbers of rows;
- `figure`: numbers that rest on as many rows as owners ask for;
- `model`: parameters of a model, and what follows from them, one for each coefficient;
- `rows`: a number for each row.

Who builds a plan says the class. So it is to be trusted in plans that a node builds itself, and only there.
"""

CLASSES: tuple[DisclosureClass, ...] = get_args(DisclosureClass)
"""All classes of disclosures, from the least to the most."""

Sizes = Literal["exact", "noisy", "hidden"]
SIZES: tuple[Sizes, ...] = get_args(Sizes)
"""What computations tell the nodes of how many rows match or are kept, from the most to the least."""

NODES = "the nodes"
"""Who learns what a plan opens on its way."""


class Form(enum.Enum):
    """What a value is made of."""

    RING = "ring"
    """Secret integers modulo 2^64: fixed-point reals, counts, zeros and ones."""
    BITS = "bits"
    """Secret booleans, packed 64 to a word along the rows."""
    WORDS = "words"
    """Secret 64-bit words under XOR: keys and pseudonyms."""
    PUBLIC = "public"
    """Integers that every node knows: constants of the plan, and what it opens."""

    @property
    def domain(self) -> Domain:
        """The domain of a sharing of this form."""
        return Z64 if self is Form.RING else BITS


@attrs.frozen(cache_hash=True)  # builders look types up by the thousand
class Type:
    """The type of a value: form, shape, fractional bits, a bound on its integers, whether it is a product.

    `limit` bounds the absolute value of the stored integer (ring only). A `product` has not had its round yet
    (see `protocols.base.Product`).
    """

    form: Form
    shape: Dims
    scale: int = 0
    limit: float = 0.0
    product: bool = False

    @property
    def rows(self) -> Dim:
        """The last axis, along which values are cut into tiles; 1 for a scalar."""
        return self.shape[-1] if self.shape else 1

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape)) or "scalar"
        return f"{self.form.value} {shape}" + (f" at scale {self.scale}" if self.scale else "")


Ref = tuple[int, int]
"""A result of a node: (node index, output number)."""


@attrs.frozen
class Node:
    """One operation: its kind, the results that it reads, plain attributes, and a label for people."""

    kind: str
    args: tuple[Ref, ...]
    attributes: tuple[tuple[str, Any], ...]
    types: tuple[Type, ...]
    label: str = attrs.field(default="", eq=False)

    def get(self, name: str) -> Any:
        """An attribute by name."""
        return dict(self.attributes)[name]

    def title(self, index: int) -> str:
        """How messages name the node."""
        return f"node {index} ({self.kind}{' in ' + self.label if self.label else ''})"


@attrs.frozen
class Disclosure:
    """Something that a plan lets someone learn: what, who, how many numbers, and of which class.

    The class `kind` is empty where the plan does not say it, and of what it opens to the nodes on its way.
    """

    what: str
    to: str
    size: str
    kind: DisclosureClass | Literal[""] = ""

    def __str__(self) -> str:
        size = f"{self.size}, {self.kind}" if self.kind else self.size
        return f"{self.what} ({size}) to {self.to}"


def dims_product(shape: Sequence[Dim]) -> str:
    """A shape in words: `12 x join.rows`."""
    return " x ".join(map(str, shape)) if shape else "1"


def bind_shape(shape: Dims, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """A shape with its symbols replaced; KeyError for a symbol that is not known yet."""
    return tuple([dim if isinstance(dim, int) else symbols[dim] for dim in shape])


def word_shape(kind: Type, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of the words behind a value: packed bits take one word for 64 rows."""
    shape = bind_shape(kind.shape, symbols)
    return (*shape[:-1], -(-shape[-1] // 64)) if kind.form is Form.BITS else shape


def as_integers(words: Words) -> npt.NDArray[np.int64]:
    """Words as signed integers."""
    return words.view(np.int64)


def _freeze(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple([_freeze(item) if isinstance(item, (list, tuple)) else item for item in value])
    return value


def freeze(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with lists as tuples, so that they can be hashed."""
    return {
        str(name): _freeze(value) if isinstance(value, (list, tuple)) else value
        for name, value in attributes.items()
    }
