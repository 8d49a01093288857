"""What options of joins and of groups by key may be: one rule for each, and the types that they have."""

from __future__ import annotations

from typing import Literal, get_args

from tercet.errors import SchemaError
from tercet.options import Choice, Number, Several, Text
from tercet.plans import types
from tercet.plans.types import Sizes

How = Literal["inner", "left", "right", "outer", "semi", "anti"]
Validate = Literal["1:1", "m:1"]

__all__ = ["HOW", "SHARE", "SIZES", "SUFFIXES", "VALIDATE", "How", "Sizes", "Validate"]

HOW = Choice(choices=get_args(How), error=SchemaError)
VALIDATE = Choice(choices=get_args(Validate), error=SchemaError)
SIZES = Choice(choices=types.SIZES, error=SchemaError)
SHARE = Number(least=0, most=1, error=SchemaError, advice="as in min_share=0.5")
SUFFIXES = Several(
    each=Text(what="text to append to names"),
    what="a list of texts",
    none=True,
    error=SchemaError,
    most=64,
    advice="as in ['_clinic', '_insurer']",
)
