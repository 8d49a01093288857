"""Plans, and the actors that run them: everything that owns a nursery."""

from tercet.actors import interactive_kinds, local_kinds
from tercet.actors.plan import Builder, Disclosure, Form, Plan, Type, Value, concatenate

__all__ = ["Builder", "Disclosure", "Form", "Plan", "Type", "Value", "concatenate", "interactive_kinds", "local_kinds"]
