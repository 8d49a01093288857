"""Plans, and the actors that run them: everything that owns a nursery."""

from tercet.actors import interactive_kinds, local_kinds, product_kinds, row_kinds
from tercet.actors.builder import Builder, Value, concatenate
from tercet.actors.plan import CLASSES, Disclosure, DisclosureClass, Form, Plan, Type
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
    "local_kinds",
    "product_kinds",
    "row_kinds",
    "sigmoid",
    "slope",
    "softplus_tail",
]
