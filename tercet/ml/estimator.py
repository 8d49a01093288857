"""What estimators and fitted models have in common with scikit-learn's: options by name, and learned names.

Options are the attributes of an attrs class that its constructor takes, with rules as their validators (see
`tercet.options`), so a wrong one is refused when it is given. What was learned has a name that ends in `_`.
Of a secret model, what is public is there; its parameters are not, and asking for them says how to get them.
"""

from __future__ import annotations

import abc
import importlib
from typing import Any, NoReturn, Self, cast

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import MissingAttribute, PlanError
from tercet.ml.computations import Data, as_data, referred

Integers = npt.NDArray[np.int32]


HOMES = {
    "LogisticRegression": "linear_model",
    "StandardScaler": "transformers",
    "MinMaxScaler": "transformers",
    "MeanImputer": "transformers",
}
"""Estimators that have a name in requests, and the modules that they are in."""


def estimator_named(name: str) -> type[Any]:
    """The class of an estimator. Raises PlanError if there is none of that name."""
    if name not in HOMES:
        raise PlanError(f"there is no estimator {name!r:.80}")
    found: type[Any] = getattr(importlib.import_module(f"tercet.ml.{HOMES[name]}"), name)
    return found


class Estimator:
    """An attrs class whose options can be read, set, compared and cloned as scikit-learn's can."""

    __slots__ = ()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All options by name; with `deep`, also those of an estimator within, as `model__C`."""
        found: dict[str, Any] = {}
        for option in self._options():
            value = getattr(self, option.name)
            found[option.name] = value
            if deep and isinstance(value, Estimator):
                found |= {f"{option.name}__{name}": one for name, one in value.get_params().items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Set options by name; none of them if one is refused. Raises PlanError for unknown ones."""
        known = {option.name: getattr(self, option.name) for option in self._options()}
        given, within = {}, dict[str, dict[str, Any]]()
        for name, value in params.items():
            outer, _, inner = name.partition("__")
            if outer not in known or (inner and not isinstance(known[outer], Estimator)):
                raise PlanError(f"{type(self).__name__} has no option {name!r}; it has {', '.join(known)}")
            if inner:
                within.setdefault(outer, {})[inner] = value
            else:
                given[name] = value
        attrs.evolve(cast("Any", self), **given)  # refuses what cannot be, before anything is set
        for outer, some in within.items():
            (given.get(outer) or known[outer]).set_params(**some)
        for name, value in given.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """The constructor's call, with options that are not at their defaults."""
        changed = [f"{name}={value!r}" for name, value in self.changed_options().items()]
        return f"{type(self).__name__}({', '.join(changed)})"

    def to_data(self, *, fresh: bool = False) -> Data:
        """How requests refer to it: by its options where it is `fresh`, else by what it has learned."""
        if not fresh:
            return referred(getattr(self, "_origin", None), what=f"this {type(self).__name__}")
        name = type(self).__name__
        return {"$estimator": [name, as_data(self.changed_options(), f"options of {name}")]}

    def changed_options(self) -> dict[str, Any]:
        """Options that are not at their defaults, by name."""
        return {
            option.name: getattr(self, option.name)
            for option in self._options()
            if not _same(getattr(self, option.name), option.default)
        }

    @classmethod
    def _options(cls) -> list[attrs.Attribute[Any]]:
        return [option for option in attrs.fields(cast("Any", cls)) if option.init]


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and bool(one == other))


class Learned(abc.ABC):
    """Learned names of a classifier of two outcomes, from what is public of it."""

    __slots__ = ()

    @abc.abstractmethod
    def _facts(self) -> tuple[tuple[str, ...], int]:
        """Names of features, and the number of steps that were made; MissingAttribute before a fit."""

    @property
    def classes_(self) -> npt.NDArray[np.int64]:
        """The outcomes `(2,)`: 0 and 1."""
        self._facts()
        return np.array([0, 1])

    @property
    def feature_names_in_(self) -> npt.NDArray[np.object_]:
        """Names of the features `(n_features,)`, in the order of the coefficients."""
        return np.array(self._facts()[0], dtype=object)

    @property
    def n_features_in_(self) -> int:
        """The number of features."""
        return len(self._facts()[0])

    @property
    def n_iter_(self) -> Integers:
        """The number of steps that the fit has made `(1,)`; 0 where nobody has kept it."""
        return np.array([self._facts()[1]], dtype=np.int32)


class SecretParameters(Learned):
    """Learned names of a model whose parameters only the nodes hold."""

    __slots__ = ()

    @property
    def coef_(self) -> NoReturn:
        """Secret: `reveal().coef_` has them."""
        self._refuse("coef_")

    @property
    def intercept_(self) -> NoReturn:
        """Secret: `reveal().intercept_` has it."""
        self._refuse("intercept_")

    def _refuse(self, name: str) -> NoReturn:
        self._facts()
        raise MissingAttribute(
            f"{name} of this model is secret and lies at the nodes; model.reveal().{name} discloses it, "
            "with all other parameters"
        )
