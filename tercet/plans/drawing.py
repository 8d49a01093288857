"""Drawings of plans: Mermaid text for documents, SVG for notebooks; what discloses something is marked.

The SVG is a layered drawing in the manner of Sugiyama, Tagawa and Toda (1981): nodes stand in rows by the
network rounds that must pass before they end, long edges are cut by bends that take a place in each row they
cross, and a few sweeps of barycentres put what is joined near to each other. No other program is needed to
make or to show it.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence

import attrs

from tercet.options import PLAN, takes
from tercet.plans.kinds import KINDS, Kind
from tercet.plans.passes import drop_dead
from tercet.plans.plan import Plan
from tercet.plans.tiles import Costs, Layout, depths
from tercet.protocols import registry

LETTER = 6.4
"""Width of a letter in the SVG's small font, about."""
BOX_HEIGHT = 34.0
ROW_GAP = 26.0
COLUMN_GAP = 14.0
MARGIN = 56.0
SWEEPS = 8
LONG_EDGE = 12
"""Edges over more rows get no bends: they are drawn faintly, behind everything."""
MOST_DRAWN = 250
"""Plans of more nodes are drawn without constants and what works locally."""


@attrs.frozen
class Drawing:
    """An SVG drawing, which notebooks show."""

    svg: str = attrs.field(repr=False)

    def __str__(self) -> str:
        return self.svg

    def _repr_svg_(self) -> str:
        return self.svg


@takes(plan=PLAN)
def draw(plan: Plan) -> Drawing:
    """A plan as a drawing, for a notebook; what discloses something is marked."""
    return Drawing(to_svg(plan))


def to_mermaid(plan: Plan) -> str:
    """The plan as a Mermaid flowchart, for Markdown; disclosing nodes have the class `discloses`."""
    plan = drop_dead(plan)
    lines = ["flowchart TD"]
    for index, node in enumerate(plan.nodes):
        first, second, told = _texts(plan, index)
        text = html.escape("<br/>".join([first, second] + [f"discloses: {told}"] * bool(told)), quote=True)
        lines.append(f'  n{index}["{text.replace("&lt;br/&gt;", "<br/>")}"]' + ":::discloses" * bool(told))
        lines += [f"  n{source} --> n{index}" for source in dict.fromkeys(source for source, _ in node.args)]
    lines.append("  classDef discloses fill:#fde3c4,stroke:#c46210,stroke-width:2px")
    return "\n".join(lines) + "\n"


def _texts(plan: Plan, index: int, notes: Mapping[int, str] | None = None) -> tuple[str, str, str]:
    """Two lines for a node, the second with its note, and what it discloses."""
    node = plan.nodes[index]
    told = KINDS[node.kind].discloses(node, [plan.type_of(ref) for ref in node.args])
    first = f"{node.kind} ({node.label})" if node.label else node.kind
    if node.kind in ("reveal", "store", "checkpoint"):
        first += f" {node.get('handle' if node.kind == 'store' else 'name')!r}"
    types = [str(kind) for kind in node.types]
    second = types[0] if len(types) == 1 else "; ".join(dict.fromkeys(types))
    note = f", {notes[index]}" if notes and index in notes else ""
    return _short(first), _short(second) + note, "" if told is None else str(told)


def _short(text: str, most: int = 44) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


@attrs.define(eq=False)
class _Place:
    """A node, or a bend of a long edge, in its row."""

    row: int
    width: float
    index: int | None = None
    x: float = 0.0
    above: list[_Place] = attrs.field(factory=list)
    below: list[_Place] = attrs.field(factory=list)


def to_svg(
    plan: Plan,
    protocol: str = "replicated",
    parties: int | None = None,
    *,
    symbols: Mapping[str, int] | None = None,
    notes: Mapping[int, str] | None = None,
) -> str:
    """The plan as an SVG drawing, rows from top to bottom; rounds are those of `protocol`.

    `symbols` gives row counts that are known. `notes` are added to nodes, by number; they are for plans that
    have run, which have no dead nodes.
    """
    if notes is None:
        plan = drop_dead(plan)
    cls = registry.get(protocol)
    layout = Layout(plan, {**plan.maxima, **(symbols or {})})
    rounds = depths(Costs(layout, cls, cls.sizes[0] if parties is None else parties))
    notes = notes or {}
    sources = _sources(plan)
    rows, tops = _rows(sources, rounds)
    paths: list[list[_Place]] = []
    grid = _grid(plan, sources, rows, paths, notes)
    _order(grid)
    _spread(grid)
    left = min((place.x - place.width / 2 for row in grid for place in row), default=0.0) - MARGIN
    width = max((place.x + place.width / 2 for row in grid for place in row), default=0.0) + 20 - left
    height = len(grid) * (BOX_HEIGHT + ROW_GAP) + ROW_GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:.0f} 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{html.escape(plan.name)}</title>",
        f'<rect x="{left:.0f}" width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    parts += _bands(tops, len(grid), left, width)
    parts += [_edge(path) for path in sorted(paths, key=lambda path: path[0].row - path[-1].row)]
    for row in grid:
        parts += [_box(plan, place, notes) for place in row if place.index is not None]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _sources(plan: Plan) -> dict[int, list[int]]:
    """The nodes to draw, and what each reads; large plans go without constants and local nodes."""
    direct = {
        index: list(dict.fromkeys(source for source, _ in node.args)) for index, node in enumerate(plan.nodes)
    }
    if len(direct) <= MOST_DRAWN:
        return direct
    reached: dict[int, list[int]] = {}
    drawn: dict[int, list[int]] = {}
    for index, node in enumerate(plan.nodes):
        through = list(dict.fromkeys(origin for source in direct[index] for origin in reached[source]))
        local = type(KINDS[node.kind]).cost is Kind.cost and (node.args or node.kind == "constant")
        if local and len(node.types) == 1 and not KINDS[node.kind].keeps(node) and node.kind != "match":
            reached[index] = through
        else:
            reached[index], drawn[index] = [index], through
    return drawn


def _rows(
    sources: Mapping[int, Sequence[int]], rounds: Mapping[int, int]
) -> tuple[dict[int, int], dict[int, int]]:
    """The row of every node, and the first row of every number of rounds."""
    steps: dict[int, tuple[int, int]] = {}
    for index, read in sources.items():
        same = [steps[source][1] + 1 for source in read if rounds[source] == rounds[index]]
        steps[index] = rounds[index], max(same, default=0)
    order = {step: row for row, step in enumerate(sorted(set(steps.values())))}
    tops: dict[int, int] = {}
    for step, row in order.items():
        tops[step[0]] = min(row, tops.get(step[0], row))
    return {index: order[step] for index, step in steps.items()}, tops


def _grid(
    plan: Plan,
    sources: Mapping[int, Sequence[int]],
    rows: Mapping[int, int],
    paths: list[list[_Place]],
    notes: Mapping[int, str],
) -> list[list[_Place]]:
    """Rows of places, with a bend in every row that an edge crosses; fills `paths` with the edges."""
    grid: list[list[_Place]] = [[] for _ in range(max(rows.values(), default=-1) + 1)]
    places: dict[int, _Place] = {}
    for index, read in sources.items():
        first, second, _ = _texts(plan, index, notes)
        place = places[index] = _Place(rows[index], max(len(first), len(second)) * LETTER + 16, index)
        for source in read:
            path = [places[source]]
            between = range(rows[source] + 1, rows[index])
            for row in between if len(between) < LONG_EDGE else ():
                path.append(_Place(row, 4.0))
                grid[row].append(path[-1])
            path.append(place)
            for upper, lower in itertools.pairwise(path):
                if lower.row == upper.row + 1:
                    upper.below.append(lower)
                    lower.above.append(upper)
            paths.append(path)
        grid[rows[index]].append(place)
    return grid


def _order(grid: list[list[_Place]]) -> None:
    """Order each row by the barycentres of its neighbours, downwards and upwards in turn."""
    for row in grid:
        for number, place in enumerate(row):
            place.x = number / max(len(row), 1)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        for row in grid if downwards else reversed(grid):
            wish = {id(place): _mean(place.above if downwards else place.below, place.x) for place in row}
            row.sort(key=lambda place, wish=wish: wish[id(place)])  # type: ignore[misc]
            for number, place in enumerate(row):
                place.x = number / max(len(row), 1)


def _mean(places: Sequence[_Place], otherwise: float) -> float:
    return sum(place.x for place in places) / len(places) if places else otherwise


def _spread(grid: list[list[_Place]]) -> None:
    """Give places their coordinates: near their neighbours, in order, without overlap."""
    for row in grid:
        _pack(row, [0.0] * len(row))
    for sweep in range(SWEEPS):
        for row in grid if sweep % 2 == 0 else reversed(grid):
            _pack(row, [_mean(place.above + place.below, place.x) for place in row])


def _pack(row: Sequence[_Place], wishes: Sequence[float]) -> None:
    """Put places as near to their wishes as order and widths allow: groups that touch share their mean."""
    groups: list[tuple[float, list[_Place]]] = []
    for place, wish in zip(row, wishes, strict=True):
        groups.append((wish, [place]))
        while len(groups) > 1 and groups[-2][0] + _half(groups[-2][1]) > groups[-1][0] - _half(groups[-1][1]):
            (a, left), (b, right) = groups[-2:]
            both = left + right
            centre = (a * len(left) + b * len(right)) / len(both)
            groups[-2:] = [(centre, both)]
    for centre, members in groups:
        x = centre - _half(members)
        for place in members:
            place.x = x + (place.width + COLUMN_GAP) / 2
            x += place.width + COLUMN_GAP


def _half(places: Iterable[_Place]) -> float:
    return sum(place.width + COLUMN_GAP for place in places) / 2


def _top(row: int) -> float:
    return ROW_GAP + row * (BOX_HEIGHT + ROW_GAP)


def _bands(tops: dict[int, int], rows: int, left: float, width: float) -> list[str]:
    parts = []
    ordered = sorted(tops.items())
    for number, (depth, row) in enumerate(ordered):
        end = ordered[number + 1][1] if number + 1 < len(ordered) else rows
        y, height = _top(row) - ROW_GAP / 2, (end - row) * (BOX_HEIGHT + ROW_GAP)
        shade = "#f4f6f8" if number % 2 == 0 else "#ffffff"
        parts.append(
            f'<rect x="{left:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" fill="{shade}"/>'
        )
        name = f"{depth} round{'s' * (depth != 1)}"
        parts.append(f'<text x="{left + 6:.0f}" y="{y + 14:.0f}" font-size="9" fill="#6b7680">{name}</text>')
    return parts


def _edge(path: Sequence[_Place]) -> str:
    points = [(path[0].x, _top(path[0].row) + BOX_HEIGHT)]
    for place in path[1:-1]:
        points += [(place.x, _top(place.row)), (place.x, _top(place.row) + BOX_HEIGHT)]
    points.append((path[-1].x, _top(path[-1].row)))
    words = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        bend = (y1 - y0) / 2
        words.append(f"C{x0:.1f},{y0 + bend:.1f} {x1:.1f},{y1 - bend:.1f} {x1:.1f},{y1:.1f}")
    colour = "#8a949e" if path[-1].row - path[0].row <= LONG_EDGE else "#dde2e6"
    return f'<path d="{" ".join(words)}" fill="none" stroke="{colour}" stroke-width="1"/>'


def _box(plan: Plan, place: _Place, notes: Mapping[int, str]) -> str:
    if place.index is None:
        return ""
    first, second, told = _texts(plan, place.index, notes)
    x, y = place.x - place.width / 2, _top(place.row)
    fill, stroke = ("#fde3c4", "#c46210") if told else ("#ffffff", "#48525c")
    hint = plan.nodes[place.index].title(place.index) + (f"; discloses {told}" if told else "")
    return "".join(
        [
            f'<g class="{"discloses" if told else "node"}"><title>{html.escape(hint)}</title>',
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{place.width:.1f}" height="{BOX_HEIGHT:.0f}" rx="5" ',
            f'fill="{fill}" stroke="{stroke}"/>',
            _line(place.x, y + 14, "11", "#1c242c", first),
            _line(place.x, y + 27, "9.5", "#5a646e", second),
            "</g>",
        ]
    )


def _line(x: float, y: float, size: str, colour: str, text: str) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="middle" fill="{colour}"'
    return f"<text {where}>{html.escape(text)}</text>"
