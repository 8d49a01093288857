"""What the API reference tells beyond what stands in the source, as an extension of griffe.

griffe reads source and imports nothing, so the reference can be made where numba and the like are not
installed. But attrs writes constructors when classes are made; here their fields are read as they stand. And
names between backticks and errors in docstrings become links to what they name, if the reference has it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import griffe

ATTRS = {"attrs.define", "attrs.frozen"}
NAME = re.compile(
    r"`(?P<name>[A-Za-z_]\w*(?:\.\w+)*)(?:\(\))?`|`[^`]*`|\b(?P<error>[A-Z]\w+(?:Error|Lost|Warning))\b"
)
"""A name between backticks, other code, or an error, which docstrings name without backticks."""


class Reference(griffe.Extension):
    """Gives attrs classes their constructors, and docstrings their links."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Go through a package that was loaded in full, so that bases and names can be found."""
        objects = list(written(pkg))
        for one in objects:
            if isinstance(one, griffe.Class) and is_attrs(one) and "__init__" not in one.members:
                takes = griffe.Parameters(*parameters(one))
                one.set_member("__init__", griffe.Function("__init__", parameters=takes, returns="None"))
        for one in objects:
            if one.docstring is not None:
                one.docstring.value = linked(one.docstring.value, one, pkg)


def written(where: griffe.Object) -> Iterator[griffe.Object]:
    """A module or class, and all that is written in it, at any depth."""
    yield where
    for member in where.members.values():
        if not member.is_alias:
            yield from written(member)


# -- constructors --------------------------------------------------------------------------------------


def is_attrs(cls: griffe.Class) -> bool:
    """Whether attrs makes this class."""
    return any(one.callable_path in ATTRS for one in cls.decorators)


def parameters(cls: griffe.Class) -> Iterator[griffe.Parameter]:
    """What the constructor takes: fields of bases first, each under its name without underscores."""
    fields: dict[str, griffe.Attribute] = {}
    for base in (*reversed(cls.mro()), cls):
        if is_attrs(base):
            own = {name: one for name, one in base.members.items() if is_field(one)}
            fields = {name: one for name, one in fields.items() if name not in own} | own
    yield griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    made = [parameter(one) for one in fields.values() if options_of(one.value).get("init") != "False"]
    yield from sorted(made, key=lambda one: one.kind is griffe.ParameterKind.keyword_only)


def is_field(member: griffe.Object) -> bool:
    """Whether a member is a field: a name with an annotation, and neither a property nor a ClassVar."""
    if not isinstance(member, griffe.Attribute) or member.annotation is None or "property" in member.labels:
        return False
    return not str(member.annotation).startswith("ClassVar")


def parameter(field: griffe.Attribute) -> griffe.Parameter:
    """The parameter that a field makes. A default that a method computes is shown as `...`."""
    options = options_of(field.value)
    decorators = [options_of(one.value) for one in field.parent.decorators if one.callable_path in ATTRS]
    by_name = any(one.get("kw_only") == "True" for one in (options, *decorators))
    kind = griffe.ParameterKind.keyword_only if by_name else griffe.ParameterKind.positional_or_keyword
    default = options.get("default")
    if "factory" in options:
        default = f"{options['factory']}()"
    elif any(is_default_of(field.name, one) for one in field.parent.members.values()):
        default = "..."
    name = field.name.lstrip("_")
    return griffe.Parameter(name, annotation=field.annotation, kind=kind, default=default)


def is_default_of(name: str, member: griffe.Object) -> bool:
    """Whether a member is the method that computes a field's default."""
    return isinstance(member, griffe.Function) and any(
        str(one.value) == f"{name}.default" for one in member.decorators
    )


def options_of(value: griffe.Expr | str | None) -> dict[str, str]:
    """Options of a call to attrs by name, as they are written; any other value is a default."""
    if value is None:
        return {}
    call = ast.parse(str(value), mode="eval").body
    if not isinstance(call, ast.Call) or not ast.unparse(call.func).startswith("attrs."):
        return {"default": str(value)}
    return {one.arg: ast.unparse(one.value) for one in call.keywords if one.arg}


# -- links ---------------------------------------------------------------------------------------------


def linked(text: str, where: griffe.Object, package: griffe.Module) -> str:
    """A docstring whose names are links, as far as they are known where it stands.

    Parameters and fields are no links: they are told of right there.
    """

    def link(found: re.Match[str]) -> str:
        name = found["name"] or found["error"]
        path = named(name, where, package) if name else None
        if path is None or path == where.path:
            return found[0]
        return f'<autoref identifier="{path}" optional>{found[0]}</autoref>'

    return NAME.sub(link, text)


def named(name: str, where: griffe.Object, package: griffe.Module) -> str | None:
    """Full name of the function, property, class or module that is called so there, or None.

    Names are looked up as Python does, and among what a class inherits. Errors, and classes that
    `tercet` and `tercet.ml` offer, are known everywhere.
    """
    first, _, rest = name.partition(".")
    if isinstance(where, griffe.Function) and first in {one.name for one in where.parameters}:
        return None
    try:
        found: Any = package if first == package.name else in_scope(first, where)
        if found is None:
            found = offered(package)[first]
        for part in filter(None, rest.split(".")):
            found = found.all_members[part]
        if found.is_attribute and "property" not in found.labels:
            return None
        path = str(found.canonical_path)
    except (griffe.AliasResolutionError, griffe.CyclicAliasError, KeyError):
        return None  # what other packages have, or nobody
    return path if path.startswith(f"{package.name}.") else None


def offered(package: griffe.Module) -> dict[str, Any]:
    """Classes that scripts import and errors, by name."""
    found = {name: package["errors"][name] for name in package["errors"].classes}
    for module in (package, package["ml"]):
        found |= {name: module[name] for name in module.exports or () if name[0].isupper()}
    return found


def in_scope(name: str, where: griffe.Object) -> Any:
    """What a name stands for in a class or module around a docstring, other than a module; or None."""
    scope: Any = where
    while scope is not None:
        found = scope.all_members.get(name) if scope.is_class or scope.is_module else None
        if found is not None and not found.is_module:
            return found
        scope = None if scope.is_module else scope.parent
    return None
