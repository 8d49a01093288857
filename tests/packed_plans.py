"""Plans in msgpack as members may write them by hand, which no Builder would make."""

from __future__ import annotations

import msgpack

from tercet.plans.plan import HANDLED, pack_plan


def packed_plan(nodes, name="plan", tile_rows=64):
    """A plan of nodes `[kind, args, attributes, label]`, whose handles are text here and numbers there."""
    handles, numbered = {}, []
    for node in nodes:
        kind, args, attributes, label = node
        if kind in HANDLED and isinstance(attributes, dict) and isinstance(attributes.get("handle"), str):
            number = handles.setdefault(attributes["handle"], len(handles))
            node = [kind, args, attributes | {"handle": number}, label]
        numbered.append(node)
    return pack_plan(msgpack.packb([name, numbered, tile_rows]), list(handles))
