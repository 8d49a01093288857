"""A secret column of results, such as predictions: a number for each row that only the nodes hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml import views
from tercet.ml.computations import Data, computation, referred
from tercet.ml.faces import Async, F, Faced, Sync, computes
from tercet.ml.keyed_rows import KeyedRows
from tercet.ml.table import ANALYST, Steps, Table, Workspace
from tercet.options import RECEIVER, takes
from tercet.plans import Type, Value
from tercet.tracebacks import short_tracebacks


@short_tracebacks
@attrs.frozen(eq=False)
class SecretColumn(Faced[F]):
    """A secret result with one number for each row, such as a prediction.

    Where the nodes hold another number that tells it, as log-odds tell a probability, `read` makes it of what
    the caller is revealed, and `told` makes it in MPC for other receivers. `reveal` sends it to one receiver;
    on an `AsyncLake` it gives an awaitable of what is annotated here.
    """

    lake: Workspace = attrs.field(repr=False)
    what: str
    handle: str
    type: Type
    read: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] | None = attrs.field(
        default=None, repr=False
    )
    told: Callable[[Value], Value] | None = attrs.field(default=None, repr=False)
    like: Table | None = attrs.field(default=None, repr=False)
    """The table whose rows they are of."""

    origin: Data = attrs.field(default=None, repr=False)

    if TYPE_CHECKING:

        @property
        def _on_sync(self) -> SecretColumn[Sync]: ...
        @property
        def _on_async(self) -> SecretColumn[Async]: ...

    __repr__ = views.column_text

    def to_data(self, *, fresh: bool = False) -> Data:  # noqa: ARG002 - a column is what it is
        """How requests refer to it."""
        return referred(self.origin, what=self.what)

    def from_computation(self, origin: Data) -> SecretColumn[F]:
        """The same, which a computation has given."""
        return attrs.evolve(self, origin=origin)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.type.rows)

    @computes
    @takes(to=RECEIVER)
    def reveal(self, *, to: str = ANALYST) -> npt.NDArray[np.float64]:
        """All numbers in the clear, to one receiver."""
        values: npt.NDArray[np.float64] = self.lake.perform(self._reveal(to), "reveal")
        return values

    @computes
    @takes(to=RECEIVER)
    def reveal_keyed(self, *, to: str) -> KeyedRows:
        """All numbers in the clear, and hashes of the keys of their rows, to an owner of these.

        `KeyedRows.to_frame(table)` gives her a data frame with her own keys. Discloses to her, beside the
        numbers, which keys are among the rows. Raises SchemaError for a receiver whose own table does not
        have the keys of all rows, as of one that was stacked, or the right one of a left join: she could
        find others' keys by trying them.
        """
        values: KeyedRows = self.lake.perform(self._reveal_keyed(to), "reveal")
        return values

    @computation("reveal_keyed", group="rows", to=RECEIVER)
    def _reveal_keyed(self, to: str) -> Steps[KeyedRows]:
        table = self.like
        if table is None or to not in table.key_holders:
            owners = " or ".join(sorted(table.key_holders)) if table else ""
            raise SchemaError(
                f"{self.what}: hashes of keys go to who has the keys of all rows, "
                f"{owners or 'that is nobody'}, and not to {to!r}; reveal() gives the numbers alone"
            )
        builder = self.lake.builder(f"reveal {self.what} by key")
        value, name = builder.input(self.handle, self.type), self.what
        (value if self.told is None else self.told(value)).reveal(name, to=to, kind="rows")
        hashes = f"hashed keys of {self.what}"
        builder.input(table.keys.handle, table.keys.type).reveal(hashes, to=to, kind="rows")
        found = (yield builder.plan()).revealed
        return KeyedRows(name, found[name], found[hashes].view(np.uint64), table.key_names, table.key_types)

    @computation("reveal_column", group="predictions", to=RECEIVER)
    def _reveal(self, to: str) -> Steps[npt.NDArray[np.float64]]:
        builder = self.lake.builder(f"reveal {self.what}")
        value, mine = builder.input(self.handle, self.type), to == ANALYST
        name = f"{self.what}, as log-odds" if mine and self.read is not None else self.what
        (value if mine or self.told is None else self.told(value)).reveal(name, to=to, kind="rows")
        result = yield builder.plan()
        found = result.revealed[name]
        return self.read(found) if mine and self.read is not None else found
