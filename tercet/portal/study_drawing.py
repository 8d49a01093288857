"""Drawings that follow both themes: what leads to what in a study, and how nodes were over time.

They are SVG with a style sheet within, for `<img>`, where nothing in them can run. Whatever others have
written is escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence

from tercet.members.studies import MODEL, RESULT, TABLE, Study
from tercet.members.study_pages import DOES
from tercet.portal.node_watch import Sample

ROW, WIDTH, LEFT = 34, 640, 120
STYLE = """
text{font:13px system-ui,sans-serif;fill:#1c2430}
.soft{fill:#5b6675}
rect{fill:#fff;stroke:#8a94a3}
.table rect{fill:#e8f0ff;stroke:#3b66c4}
.model rect{fill:#fff1dc;stroke:#a86500}
.rows rect{fill:#ffe4e4;stroke:#b3261e}
path{fill:none;stroke:#8a94a3;stroke-width:1.5}
.line0{stroke:#2f5fc4}.line1{stroke:#a34a00}.line2{stroke:#1d7a46}.line3{stroke:#8a3ab9}
text.line0{fill:#2f5fc4;stroke:none}text.line1{fill:#a34a00;stroke:none}
text.line2{fill:#1d7a46;stroke:none}text.line3{fill:#8a3ab9;stroke:none}
.axis{stroke:#c6ccd5;stroke-width:1}
@media (prefers-color-scheme:dark){
text{fill:#e6e9ef}.soft{fill:#a3adbb}
rect{fill:#1b212b;stroke:#6d7888}
.table rect{fill:#1c2c4f;stroke:#7ea2ef}.model rect{fill:#40301a;stroke:#e0a64f}
.rows rect{fill:#4a2022;stroke:#f08a84}
path{stroke:#6d7888}
.line0{stroke:#8fb0f5}.line1{stroke:#f0a366}.line2{stroke:#74cf9a}.line3{stroke:#d0a2ee}
text.line0{fill:#8fb0f5}text.line1{fill:#f0a366}text.line2{fill:#74cf9a}text.line3{fill:#d0a2ee}
.axis{stroke:#3a4351}
}
"""


def draw_study(study: Study) -> str:
    """The requests of a study from top to bottom, and which reads what of which."""
    sources = [*((TABLE, name) for name in study.tables()), *((MODEL, name) for name in study.models())]
    places = {source: place for place, source in enumerate(sources)}
    first = len(sources)
    height = ROW * (first + len(study.requests)) + 10
    boxes, arrows = [], []
    for (tag, name), place in places.items():
        kind = "table" if tag == TABLE else "model"
        boxes.append(_box(place, "table", f"{kind} {name}", ""))
    for position, request in enumerate(study.requests):
        does = DOES.get(request.computation)
        kind = does.kind if does is not None and does.kind in ("model", "rows") else ""
        receiver = "" if request.receiver == "analyst" else f"to {request.receiver}"
        what = "" if does is None else does.what
        boxes.append(_box(first + position, kind, f"{position + 1}. {request.computation}", receiver or what))
        reads = [places[TABLE, name] for name in request.tagged(TABLE)]
        reads += [places[MODEL, name] for name in request.tagged(MODEL)]
        reads += [first + int(result[0]) - 1 for result in request.tagged(RESULT)]
        arrows += [_arc(source, first + position) for source in dict.fromkeys(reads)]
    return _svg(WIDTH, height, "What leads to what in the study", [*arrows, *boxes])


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><title>{html.escape(title)}</title><style>{STYLE}</style>{"".join(parts)}</svg>'
    )


def _box(place: int, kind: str, text: str, beside: str) -> str:
    top = 6 + ROW * place
    return (
        f'<g class="{kind}"><rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - 6}" height="26" rx="5"/>'
        f'<text x="{LEFT + 10}" y="{top + 17}">{html.escape(_short(text, 32))}</text>'
        f'<text class="soft" x="{WIDTH - 16}" y="{top + 17}" text-anchor="end">'
        f"{html.escape(_short(beside, 44))}</text></g>"
    )


def _short(text: str, most: int) -> str:
    plain = text if text.isprintable() else ascii(text)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def _arc(source: int, target: int) -> str:
    begin, end = 19 + ROW * source, 19 + ROW * target
    reach = min(LEFT - 12, 10 + 14 * math.sqrt(target - source))
    return (
        f'<path d="M{LEFT} {begin} C{LEFT - reach:.0f} {begin} {LEFT - reach:.0f} {end} {LEFT - 6} {end}"/>'
        f'<path d="M{LEFT - 10} {end - 4} L{LEFT - 3} {end} L{LEFT - 10} {end + 4}"/>'
    )


def draw_samples(samples: Mapping[str, Sequence[Sample]], field: str, title: str, unit: float) -> str:
    """A figure of each node over time, in `unit`s."""
    width, height, left, bottom = 640, 180, 46, 26
    points = [one for some in samples.values() for one in some if math.isfinite(getattr(one, field))]
    begin, end = (min(one.time for one in points), max(one.time for one in points)) if points else (0.0, 1.0)
    most = max((getattr(one, field) / unit for one in points), default=0.0) or 1.0
    span = max(end - begin, 1.0)

    def at(one: Sample) -> tuple[float, float]:
        x = left + (one.time - begin) / span * (width - left - 90)
        return x, height - bottom - getattr(one, field) / unit / most * (height - bottom - 14)

    parts = [
        f'<path class="axis" d="M{left} 10 V{height - bottom} H{width - 84}"/>',
        f'<text class="soft" x="{left - 6}" y="18" text-anchor="end">{most:.3g}</text>',
        f'<text class="soft" x="{left - 6}" y="{height - bottom}" text-anchor="end">0</text>',
        f'<text class="soft" x="{left}" y="{height - 8}">{html.escape(title)}, {span / 60:.0f} min</text>',
    ]
    for place, (name, some) in enumerate(samples.items()):
        colour = f"line{place % 4}"
        for run in _runs(some, field):
            line = " L".join(f"{x:.1f} {y:.1f}" for x, y in map(at, run))
            parts.append(f'<path class="{colour}" d="M{line}"/>')
        shown = _short(name, 10)
        parts.append(
            f'<text class="{colour}" x="{width - 78}" y="{24 + 18 * place}">{html.escape(shown)}</text>'
        )
    return _svg(width, height, title, parts)


def _runs(samples: Sequence[Sample], field: str) -> Iterator[list[Sample]]:
    """Stretches of samples of a node in which it answered."""
    found: list[Sample] = []
    for one in samples:
        if math.isfinite(getattr(one, field)):
            found.append(one)
        elif found:
            yield found
            found = []
    if found:
        yield found
