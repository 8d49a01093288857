"""Plans, and the actors that run them: everything that owns a nursery."""

from tercet.plans import interactive_kinds, joining_kinds, key_kinds, local_kinds, product_kinds, row_kinds
from tercet.plans.builder import Builder, Value, concatenate, stack
from tercet.plans.plan import Plan
from tercet.plans.types import CLASSES, Disclosure, DisclosureClass, Form, Type
from tercet.protocols.fourier import Series, sigmoid, slope, softplus_tail

__all__ = [
    "CLASSES",
    "Builder",
    "Disclosure",
    "DisclosureClass",
    "Form",
    "Plan",
    "Series",
    "Type",
    "Value",
    "concatenate",
    "interactive_kinds",
    "joining_kinds",
    "key_kinds",
    "local_kinds",
    "product_kinds",
    "row_kinds",
    "sigmoid",
    "slope",
    "softplus_tail",
    "stack",
]
