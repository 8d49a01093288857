"""What options of lakes and of uploads may be: rules of `tercet.options` by name."""

from __future__ import annotations

import attrs

from tercet.errors import SchemaError
from tercet.options import (
    COUNT,
    FLAG,
    MAYBE_COLUMNS,
    NAME,
    PATH,
    ByName,
    Choice,
    Made,
    Names,
    Number,
    Rule,
    Several,
    Text,
)

UPLOAD: dict[str, Rule] = {
    "name": NAME,
    "key": Names(what="names of columns", error=SchemaError, advice="as in key='policy_number'"),
    "owner": attrs.evolve(NAME, what="the name of an owner", advice="write text, as in 'hospital'"),
    "columns": attrs.evolve(MAYBE_COLUMNS, empty=True),
    "scales": ByName(
        of="fractional bits",
        example="{'age': 10}",
        each=Number(whole=True),
        none=True,
        error=SchemaError,
    ),
    "types": ByName(
        of="kinds",
        example="{'age': 'real'}",
        each=Text(what="the name of a kind"),
        none=True,
        error=SchemaError,
    ),
    "ranges": ByName(
        of="two numbers",
        example="{'age': (0, 120)}",
        each=Several(what="two numbers"),
        none=True,
        error=SchemaError,
    ),
    "categories": ByName(
        of="labels",
        example="{'stage': ['I', 'II']}",
        each=Several(each=Text(what="text"), what="a list of labels"),
        none=True,
        error=SchemaError,
    ),
    "normalise": Names(
        what="ways to normalise keys", empty=True, error=SchemaError, advice="as in ['strip', 'case']"
    ),
    "missing": Choice(choices=("refuse", "indicator"), error=SchemaError),
    "unique": FLAG,
    "min_count": attrs.evolve(COUNT, error=SchemaError),
    "allow": Made(of="Allow", what="what tercet.Allow makes", none=True),
}
"""Options of an upload."""
LOCAL: dict[str, Rule] = {
    "protocol": Text(what="the name of a protocol", advice="such as 'replicated' or 'shamir'"),
    "parties": attrs.evolve(COUNT, none=True),
    "processes": FLAG,
    "transport": Text(what="the name of a transport", advice="such as 'memory', 'tcp' or 'tls'", none=True),
    "latency_ms": Number(least=0, most=60_000),
    "bandwidth_mbit": Number(above=0, none=True),
    "jitter_ms": Number(least=0, most=60_000),
    "timeout_s": Number(above=0, most=1e6),
    "threads": attrs.evolve(COUNT, most=1024),
    "workers": Number(whole=True, least=0, most=256),
    "tile_rows": Number(whole=True, least=64, most=2**30, none=True, advice="a multiple of 64"),
    "progress": attrs.evolve(FLAG, none=True),
}
"""Options of a lake on this machine."""
CONNECT: dict[str, Rule] = {
    "cluster": PATH,
    "identity": PATH,
    "timeout_s": Number(above=0),
    "patience_s": Number(least=0),
    "progress": attrs.evolve(FLAG, none=True),
}
"""Options of a lake elsewhere."""
