"""Tables of a comparison for terminals, Markdown and LaTeX, from one description of columns and rows.

Cells are never cut. A terminal gets every row in one line where it is wide enough; else rows of a setting
stand under a heading that says what they have in common, and columns that do not fit either below the others.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from itertools import groupby

import attrs

RATIO = "×"
"""The heading of ratios, which belong to the column before."""
NONE = "-"
"""What stands for a figure that is not defined."""


@attrs.frozen
class Column:
    """The heading of figures, whether only a wide table has them, and whether they go with those before."""

    heading: str
    wide: bool = False
    joined: bool = False


@attrs.frozen
class Row:
    """The setting that a row belongs to, what is told of its protocol alone, and its figures."""

    setting: tuple[str, ...]
    label: str
    about: str
    cells: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Table:
    """What measurements say: `columns` are of figures, `notes` lines that stand before, `below` those after.

    `named` are the headings of a setting's parts, of the label and of what is told of the protocol.
    """

    named: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    below: tuple[str, ...] = ()

    @property
    def headings(self) -> tuple[str, ...]:
        """Of all columns of a flat table."""
        return (*self.named, *(column.heading for column in self.columns))

    def flat(self) -> list[tuple[str, ...]]:
        """All rows, each of which says all."""
        return [(*row.setting, row.label, row.about, *row.cells) for row in self.rows]

    def settings(self) -> list[tuple[str, list[Row]]]:
        """Rows by setting, under a heading."""
        return [
            (heading, list(rows)) for heading, rows in groupby(self.rows, lambda row: heading_of(row.setting))
        ]


def heading_of(setting: Sequence[str]) -> str:
    """A setting in a line."""
    plan, network, rows = setting
    return f"{plan}, {network}, {rows} rows"


def text(table: Table, width: int | None = None) -> str:
    """The table for a terminal so many columns wide, or as wide as it comes."""
    flat = _aligned([table.headings, *table.flat()], len(table.named))
    if width is None:
        return _lines([*table.notes, "", *flat, "", *table.below])
    if max(map(len, flat)) <= width:
        notes, below = ([_folded(line, width) for line in lines] for lines in (table.notes, table.below))
        return _lines([*notes, "", *flat, "", *below])
    lines = [_folded(note, width) for note in table.notes]
    about = dict.fromkeys((row.label, row.about) for row in table.rows)
    lines += ["", *_aligned([table.named[-2:], *about], 2)]
    for block in _blocks(table, width):
        first = [table.named[-2], *(table.columns[place].heading for place in block)]
        body = [[row.label, *(row.cells[place] for place in block)] for row in table.rows]
        head, *aligned = _aligned([first, *body], 1)
        lines += ["", head]
        for heading, rows in table.settings():
            lines += ["", _folded(heading, width), *aligned[: len(rows)]]
            aligned = aligned[len(rows) :]
    return _lines([*lines, "", *(_folded(line, width) for line in table.below)])


def markdown(table: Table) -> str:
    """The table in Markdown: columns of figures to the right."""
    align = ["---"] * len(table.named) + ["---:"] * len(table.columns)
    rows = [table.headings, align, *table.flat()]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    notes = [part for note in table.notes for part in (note, "")]
    below = [part for line in table.below for part in ("", line)]
    return _lines([*notes, *lines, *below])


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "×": r"$\times$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{one: "\\" + one for one in "&%$#_{}"},
}


def escaped(cell: str) -> str:
    """Text as LaTeX sets it; numbers such as 1.4e-06, also in ranges, as powers of ten."""
    if cell == NONE:
        return "--"
    parts = re.split(r"([0-9.]+e[+-][0-9]+)", cell)
    return "".join(_power(one) if place % 2 else _plain(one) for place, one in enumerate(parts))


def _plain(cell: str) -> str:
    return "".join(_SPECIAL.get(one, one) for one in cell)


def _power(number: str) -> str:
    digits, _, power = number.partition("e")
    return rf"${digits} \times 10^{{{int(power)}}}$"


def latex(table: Table) -> str:
    """The table as a `tabular` of the package booktabs: settings are headings within it."""
    places = [place for place, column in enumerate(table.columns) if not column.wide]
    columns = (*table.named[-2:], *(table.columns[place].heading for place in places))
    lines = [f"% {note}" for note in (*table.notes, *table.below)]
    lines += [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{ll{'r' * len(places)}}}",
        r"\toprule",
        _latex_row(columns),
    ]
    for heading, rows in table.settings():
        lines += [r"\midrule", rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{escaped(heading)}}}}} \\"]
        lines += [_latex_row((row.label, row.about, *(row.cells[place] for place in places))) for row in rows]
    return _lines([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def _aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows as lines: so many columns to the left, others to the right, ratios close to what they are of."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gaps = [_gap(heading) if place else "" for place, heading in enumerate(rows[0])]
    return [
        "".join(
            gap + (cell.ljust(width) if place < left else cell.rjust(width))
            for place, (cell, width, gap) in enumerate(zip(row, widths, gaps, strict=True))
        )
        for row in rows
    ]


def _gap(heading: str) -> str:
    """The blanks before a column."""
    return " " if heading == RATIO else "  "


def _blocks(table: Table, width: int) -> list[list[int]]:
    """Places of columns that fit beside the labels together; those that fit nowhere stand alone."""
    units: list[list[int]] = []
    for place, column in enumerate(table.columns):
        if column.joined:
            units[-1].append(place)
        elif not column.wide:
            units.append([place])
    start = max(map(len, [table.named[-2], *(row.label for row in table.rows)]))
    blocks: list[list[int]] = []
    taken = width
    for unit in units:
        needed = 0
        for place in unit:
            cells = [table.columns[place].heading, *(row.cells[place] for row in table.rows)]
            needed += len(_gap(cells[0])) + max(map(len, cells))
        if taken + needed > width:
            blocks.append([])
            taken = start
        blocks[-1] += unit
        taken += needed
    return blocks


def _folded(line: str, width: int) -> str:
    """A line of words in several, of which none is wider, unless a word is."""
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


__all__ = ["NONE", "RATIO", "Column", "Row", "Table", "latex", "markdown", "text"]
