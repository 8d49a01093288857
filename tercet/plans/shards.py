"""Which member of a party runs which instances of a plan, where a party has workers beside its node.

Tiles of nodes that are cut along the rows belong to workers, in blocks of neighbours, and so do the rows of
what they run together (see `Layout.together`); the node keeps what else is one operation on all rows, what is
small, and where values leave the plan. All this follows from the plan, the
numbers behind its symbols and the number of workers, so it is the same at every party: worker k of one talks
to worker k of the others about the same tiles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tercet.plans.kinds import KINDS, Tiling
from tercet.plans.plan import Plan
from tercet.plans.tiles import Layout
from tercet.protocols.base import Protocol
from tercet.protocols.together import Team

NODE = -1
"""The member of a party that is its node; workers count from 0."""


class Shards:
    """The map of a plan's instances to the members of a party with as many workers as `layout` is made for.

    Workers also run the nodes in `written`, which store values. That is between members of one party: storing
    sends nothing to others. What depends on a symbol that `layout` does not know yet raises KeyError.
    """

    def __init__(self, layout: Layout, written: Collection[int] = ()) -> None:
        self.workers = layout.workers
        self._layout = layout
        self._cut = [
            tiling is not Tiling.WHOLE
            and node.kind != "input"
            and (index in written or not KINDS[node.kind].keeps(node))
            for index, (tiling, node) in enumerate(zip(layout.tiling, layout.plan.nodes, strict=True))
        ]

    def spread(self, index: int) -> bool:
        """Whether workers run the instances of a node, and not the node of the party."""
        return self._layout.together(index) or (self._cut[index] and self._layout.tiles(index) > 1)

    def block(self, member: int, tiles: int) -> range:
        """The tiles of a worker, of so many."""
        return Team.tiles(member, self.workers, tiles)

    def workers_of(self, index: int) -> list[int]:
        """The workers that run instances of a node."""
        return [worker for worker in range(self.workers) if self.share(worker, index)]

    def share(self, member: int, index: int) -> range:
        """The tiles of a node that a member runs."""
        if self.spread(index) == (member == NODE):
            return range(0)
        if self._layout.together(index):
            return range(member, member + 1)
        tiles = self._layout.tiles(index)
        return range(tiles) if member == NODE else self.block(member, tiles)

    def may_run(self, member: int, index: int, tile: int) -> bool:
        """Whether a member runs an instance, as far as that is known."""
        try:
            return tile in self.share(member, index)
        except KeyError:
            return True

    def read(self, member: int, reader: int, tiles: int, *, by_tile: bool) -> range:
        """The tiles, of so many of a value, that a member reads as it runs its share of a node.

        All of them where that is not known yet.
        """
        try:
            share = self.share(member, reader)
            if share and self._layout.together(reader):
                return self.block(member, tiles)
        except KeyError:
            return range(tiles)
        return share if by_tile else range(tiles if share else 0)

    def readers(self, tile: int, tiles: int, waiting: Mapping[int, bool]) -> set[int]:
        """The members that read a tile, of so many, for which nodes wait; whether they do so tile by tile.

        A member that only may have to, since that is not known yet, counts.
        """
        found: set[int] = set()
        for reader, by_tile in waiting.items():
            try:
                if not self.spread(reader):
                    found.add(NODE)
                elif by_tile or self._layout.together(reader):
                    found.add(tile * self.workers // tiles)
                else:
                    found.update(self.workers_of(reader))
            except KeyError:
                return {NODE, *range(self.workers)}
        return found


def spreads(plan: Plan, protocol: type[Protocol]) -> bool:
    """Whether workers have anything to do in a plan, however many rows its symbols turn out to mean."""
    shards = Shards(Layout(plan, dict(plan.maxima), workers=1, protocol=protocol))
    return any(map(shards.spread, range(len(plan.nodes))))


def stores(plan: Plan, protocol: type[Protocol]) -> list[int]:
    """The nodes of a plan that store what workers may make or read, however many rows its symbols mean.

    What only follows, row by row, from what the node of a party makes is not among it.
    """
    layout = Layout(plan, dict(plan.maxima), workers=1, protocol=protocol)
    made: list[bool] = []
    for index, node in enumerate(plan.nodes):
        by_rows = layout.tiling[index] is not Tiling.WHOLE
        handed = KINDS[node.kind].local or node.kind == "store"
        anew = not handed or not node.args or any(made[one] for one, _ in node.args)
        made.append(layout.together(index) or (by_rows and anew))
    found = [index for index, node in enumerate(plan.nodes) if node.kind == "store" and made[index]]
    shards = Shards(layout, found)
    return [index for index in found if shards.spread(index)]
