"""How tables, columns and results look in a notebook and at a prompt.

Everything here is public: names, kinds, owners, scales and counts, which a handle has anyway. Nothing asks
the nodes. Classes take these functions as their `__repr__` and `_repr_html_`; what has been revealed shows
what `print` shows of it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tercet.ml.expressions import Expression
    from tercet.ml.metrics.evaluation import Evaluation
    from tercet.ml.models import SecretModel
    from tercet.ml.secret_column import SecretColumn
    from tercet.ml.stored_columns import Column
    from tercet.ml.table import Table

MOST_ROWS = 60
"""Of tables with more columns, so many are shown."""
HEADS = ("column", "kind", "owner", "scale", "missing")


def as_printed(self: object) -> str:
    """The `__repr__` of results in the clear: what `print` shows."""
    return str(self)


def html_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table, everything in it escaped; the first cell of each row is a heading."""

    def cell(tag: str, content: object) -> str:
        return f"<{tag}>{html.escape(str(content))}</{tag}>"

    head = "".join(cell("th", one) for one in heads)
    body = "".join(
        f"<tr>{cell('th', first)}{''.join(cell('td', one) for one in rest)}</tr>" for first, *rest in rows
    )
    return f"<table><caption>{html.escape(caption)}</caption><tr>{head}</tr>{body}</table>"


def text_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lines of aligned columns."""
    cells = [heads, *([str(one) for one in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _facts(table: Table) -> str:
    """What is known of a table as a whole."""
    facts = [_counted(table.rows, "secret row"), f"key {', '.join(table.key_names)}"]
    if table.selection:
        facts.append("a secret filter keeps some of the rows")
    if table.min_count > 1:
        facts.append(f"figures rest on at least {table.min_count} rows")
    return f"table {table.name!r}: {'; '.join(facts)}"


def _row(column: Column) -> tuple[str, str, str, int, str]:
    schema = column.schema
    kind = schema.kind if schema.labels is None else f"category of {len(schema.labels)}"
    return column.name, kind, column.owner, schema.scale, schema.missing or ""


def _rows(table: Table) -> tuple[Sequence[str], list[Sequence[object]]]:
    """Headings and rows, one for each column, without the scarce heading if it says nothing."""
    any_missing = any(column.schema.missing for column in table.columns)
    width = len(HEADS) if any_missing else len(HEADS) - 1
    return HEADS[:width], [_row(column)[:width] for column in table.columns[:MOST_ROWS]]


def _more(table: Table) -> str:
    left_out = len(table.columns) - MOST_ROWS
    return f"... and {_counted(left_out, 'more column')}: table.column_names" if left_out > 0 else ""


def table_text(self: Table) -> str:
    """The `__repr__` of a table."""
    return "\n".join(filter(None, [_facts(self), text_table(*_rows(self)), _more(self)]))


def table_html(self: Table) -> str:
    """The notebook view of a table."""
    more = _more(self)
    return html_table(_facts(self), *_rows(self)) + (f"<p>{html.escape(more)}</p>" if more else "")


def expression_text(self: Expression) -> str:
    """The `__repr__` of column arithmetic."""
    return f"{self.text}: secret {self.kind} column of table {self.table.name!r}, not computed yet"


def column_text(self: SecretColumn) -> str:
    """The `__repr__` of a secret result by row."""
    return f"secret {self.what}: {_counted(self.rows, 'number')}; reveal() sends them to one receiver"


def model_text(self: SecretModel) -> str:
    """The `__repr__` of a secret model."""
    beside = f", offset {self.offset}" if self.offset is not None else ""
    return (
        f"secret logistic regression of {self.target_!r} on {', '.join(self.names)}{beside}; "
        "reveal() sends it to one receiver"
    )


def evaluation_text(self: Evaluation) -> str:
    """The `__repr__` of secret metrics."""
    least = f", which rest on at least {self.least} rows" if self.least > 1 else ""
    return (
        f"secret metrics of {self.what}, {_counted(self.rows, 'row')}{least}: {', '.join(self.metrics)}; "
        "reveal() sends them to one receiver"
    )
