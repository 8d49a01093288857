"""What an owner says with an upload: who may use the table, for what, and for how long.

Everything that is not said is denied. The words are those of the rules that nodes keep (`members.rules`);
here they are checked as other options of an upload are, and against the table that they are for.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Sequence
from typing import get_args

import attrs

from tercet.errors import ConsentError, PlanError, SchemaError
from tercet.members.rules import GROUPS, PARAMETERS_PER_ROW, USUAL, Plans, Rules
from tercet.ml.computations import find
from tercet.ml.declarations import DECLARED
from tercet.ml.schema import TableSchema, suggest
from tercet.options import FLAG, READERS, Choice, Names, Number
from tercet.plans import DisclosureClass
from tercet.plans.types import SIZES, Sizes

MOST_DAYS = 36_500
COMPUTATIONS = Names(
    what="names of computations or groups", alone=False, empty=True, advice=f"as in {list(GROUPS[:2])}"
)
ALLOWED_COLUMNS = Names(what="names of columns", alone=False, empty=True, advice="as in ['age', 'bmi']")
ALLOWED_CLASSES = Names(
    what="classes of disclosures", alone=False, empty=True, none=True, advice=f"as in {list(USUAL)}"
)


@attrs.frozen
class Allow:
    """What an owner allows with an upload: see `Rules`; and after how many days it is forgotten.

    What is not said is denied. `until` is a date, whose end it means, or a time with its zone. Raises
    ConsentError for rules that mean nothing.
    """

    readers: Sequence[str] = attrs.field(default=(), validator=READERS)
    plans: Plans = attrs.field(default="approved", validator=Choice(choices=get_args(Plans)))
    rows: bool = attrs.field(default=False, validator=FLAG)
    days: float | None = attrs.field(default=None, validator=Number(none=True))
    computations: Sequence[str] = attrs.field(default=(), validator=COMPUTATIONS, kw_only=True)
    columns: Sequence[str] = attrs.field(default=(), validator=ALLOWED_COLUMNS, kw_only=True)
    classes: Sequence[DisclosureClass] | None = attrs.field(
        default=None, validator=ALLOWED_CLASSES, kw_only=True
    )
    receivers: Sequence[str] = attrs.field(default=(), validator=READERS, kw_only=True)
    parameters_per_row: float = attrs.field(
        default=PARAMETERS_PER_ROW, validator=Number(above=0), kw_only=True
    )
    sizes: Sizes = attrs.field(default="exact", validator=Choice(choices=SIZES), kw_only=True)
    uses: int | None = attrs.field(
        default=None, validator=Number(whole=True, least=1, none=True), kw_only=True
    )
    until: dt.date | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self._rules(1)
        for name in self.computations:
            if name not in (*GROUPS, *DECLARED):
                with contextlib.suppress(PlanError):  # there is none, also in no package
                    find(name)
            if name not in (*GROUPS, *DECLARED):
                raise ConsentError(
                    f"there is no computation or group {name!r} to allow. "
                    f"{suggest(name, (*GROUPS, *DECLARED), kind='groups and computations')}"
                )
        if self.days is not None and not 0 < self.days <= MOST_DAYS:
            raise ConsentError(
                f"a table cannot be forgotten after {self.days:g} days; say 0 to {MOST_DAYS:,}"
            )

    def rules(self, schema: TableSchema) -> Rules:
        """As nodes keep them: a column goes with the one that tells where it is missing.

        Raises SchemaError for columns that the table lacks, and for its keys.
        """
        beside = {column.name: column.missing for column in schema.columns if column.kind != "key"}
        names = list(beside)
        for name in self.columns:
            if name not in names:
                raise SchemaError(
                    f"the rules of table {schema.name!r} allow column {name!r}, which has no values there. "
                    f"{suggest(name, names, kind='columns')}"
                )
        more = [one for one in map(beside.get, self.columns) if one and one not in self.columns]
        return self._rules(schema.min_count, more)

    def least(self, min_count: int) -> int:
        """Rows that what others learn has to rest on, labels of categories among it."""
        return self._rules(min_count).least

    def _rules(self, min_count: int, more: Sequence[str] = ()) -> Rules:
        return Rules(
            tuple(self.readers),
            self.plans,
            min_count,
            bool(self.rows),
            computations=tuple(self.computations),
            columns=(*self.columns, *more),
            classes=None if self.classes is None else tuple(self.classes),
            receivers=tuple(self.receivers),
            parameters_per_row=float(self.parameters_per_row),
            sizes=self.sizes,
            uses=None if self.uses is None else int(self.uses),
            until=None if self.until is None else _end_of(self.until),
        )


def _end_of(given: dt.date) -> float:
    """Seconds since 1970 of a time, or of the end of a day. Raises ConsentError for anything else."""
    if isinstance(given, dt.datetime) and given.tzinfo is not None:
        return given.timestamp()
    if not isinstance(given, dt.date) or isinstance(given, dt.datetime):
        raise ConsentError(
            f"until={given!r:.80} is neither a date nor a time with its zone; write dt.date(2027, 1, 31)"
        )
    return dt.datetime(given.year, given.month, given.day, tzinfo=dt.UTC).timestamp() + 86_400
