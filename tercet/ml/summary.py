"""The summary of a fit: which figures are told, and the table that they make.

What is asked for decides what the nodes reveal. A figure that follows from others which are revealed anyway
is computed in the clear, since it discloses nothing more: z and p from coefficients and standard errors, odds
ratios from coefficients. Everything else is computed in MPC and revealed alone.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors import Builder, Value
from tercet.errors import PlanError, SchemaError
from tercet.ml.fitting import Problem
from tercet.ml.inference import FIGURES, GUARDED, INEXACT, Inference
from tercet.ml.newton import LARGEST_SHARE
from tercet.ml.table import Steps
from tercet.ml.tails import chi_square_tail, critical, two_sided

Reals = npt.NDArray[np.float64]

Inputs = Callable[[Builder], Mapping[str, Value]]

INTERCEPT = "(intercept)"
OF_COEFFICIENTS = ("coef", "se", "z", "p", "ci", "odds_ratio", "sign", "significant")
OF_FIT = ("llf", "llnull", "lr", "lr_p", "mcfadden", "tjur", "aic", "bic", "nobs")
AGAINST_CONSTANT = frozenset({"llnull", "lr", "lr_p", "mcfadden"})
"""What compares with a constant probability: not for fits with an offset or without an intercept."""
TITLES = {
    "coef": "coefficients",
    "se": "standard errors",
    "z": "z-values",
    "p": "p-values",
    "sign": "signs of coefficients",
    "significant": "which coefficients are significant",
    "llf": "log-likelihood",
    "llnull": "log-likelihood of a constant",
    "lr": "likelihood ratio",
    "lr_p": "p-value of the likelihood ratio",
    "mcfadden": "McFadden's R2",
    "tjur": "Tjur's R2",
    "nobs": "sum of weights",
}
"""What disclosures call figures."""


def figures(problem: Problem, reveal: str | Sequence[str] | None) -> tuple[str, ...]:
    """The figures asked for, by default all that a fit has. Raises PlanError for others."""
    compared = problem.intercept and problem.offset is None
    has = [name for name in (*OF_COEFFICIENTS, *OF_FIT) if compared or name not in AGAINST_CONSTANT]
    if reveal is None:
        return tuple(has)
    asked = (reveal,) if isinstance(reveal, str) else tuple(reveal)
    for name in asked:
        if name not in (*OF_COEFFICIENTS, *OF_FIT):
            known = ", ".join((*OF_COEFFICIENTS, *OF_FIT))
            raise PlanError(f"there is no figure {name!r} in a summary; known are {known}")
        if name not in has:
            raise PlanError(
                f"{name!r} compares a fit with a constant probability, which means nothing for a fit with an "
                "offset or without an intercept; leave it out of reveal="
            )
    return asked


def told(asked: Iterable[str], *, counts_rows: bool) -> tuple[str, ...]:
    """What has to be revealed for the figures asked for, and no more than they determine.

    `counts_rows` says that the number of observations is public.
    """
    wanted, found = set(asked), set[str]()
    effects, widths = wanted & {"coef", "odds_ratio", "ci"}, wanted & {"se", "ci"}
    if (effects and widths | (wanted & {"z"})) or {"se", "z"} <= wanted:
        found |= {"coef", "se"}
    else:
        found |= {"coef"} if effects else set()
        found |= wanted & {"se", "z"}
        found |= wanted & {"p"} - ({"p"} if "z" in wanted else set())
        found |= wanted & {"sign"} - ({"sign"} if found & {"coef", "z"} else set())
        found |= wanted & {"significant"} - ({"significant"} if found & {"z", "p"} else set())
    found |= {"llf"} if wanted & {"llf", "aic", "bic"} else set()
    found |= wanted & {"llnull", "tjur"}
    found |= {"nobs"} if wanted & {"nobs", "bic"} and not counts_rows else set()
    if not {"llf", "llnull"} <= found:
        found |= wanted & {"lr", "mcfadden"}
        found |= wanted & {"lr_p"} - ({"lr_p"} if "lr" in wanted else set())
    return tuple(name for name in FIGURES if name in found)


def summarise(
    problem: Problem, inputs: Inputs, *, reveal: str | Sequence[str] | None, alpha: float, to: str
) -> Steps[Summary]:
    """Reveal what is asked for; `inputs` gives, in a plan, what the fit left of its state."""
    if not 0 < alpha < 1:
        raise PlanError(f"alpha={alpha} is not between 0 and 1; give the level of significance, such as 0.05")
    asked = figures(problem, reveal)
    if GUARDED & set(told(asked, counts_rows=True)):
        _require_data_to_count(problem)
    table, target = problem.table, problem.target
    names = told(asked, counts_rows=not problem.weighs)
    builder = table.lake.builder(f"summary of {target} on {table.name}")
    inference = Inference(problem, builder, inputs(builder), alpha)
    titles = {name: f"{TITLES[name]} of {target!r}" for name in names}
    if guarded := GUARDED & set(names):
        inference.inexact.reveal(INEXACT, to=to)
    for name in names:
        with builder.scope(name):
            value = FIGURES[name](inference)
            value = value * (1 - inference.inexact) if name in guarded else value
            value.reveal(titles[name], to=to)
    result = yield builder.plan()
    if guarded and result.revealed[INEXACT] > 0.5:
        raise SchemaError(
            f"fit of {target!r} on {table.name!r}: standard errors cannot be made exact, since some column "
            "does not vary, nearly repeats others, has a mean far beyond its spread or tells some outcomes "
            "apart without error, or the outcome is too rare; leave such columns out"
        )
    found = {name: result.revealed[title] for name, title in titles.items()}
    return Summary(
        f"{target!r} on {table.name!r}",
        (*problem.names, INTERCEPT) if problem.intercept else problem.names,
        None if problem.weighs else problem.rows,
        alpha,
        derived(asked, _in_units(inference, found), problem, alpha),
        penalised=problem.strength > 0,
    )


def _require_data_to_count(problem: Problem) -> None:
    """Raise PlanError where the penalty is so strong that it was cut for the fit."""
    factors = problem.penalties(LARGEST_SHARE)
    if factors.max() >= LARGEST_SHARE:
        name = problem.names[int(factors.argmax())]
        raise PlanError(
            f"the penalty leaves nothing of column {name!r}, whose standard error is that of the penalty "
            "alone; use a larger C, or measure the column in larger units"
        )


def _in_units(inference: Inference, found: dict[str, Reals]) -> dict[str, Reals]:
    """Figures in the columns' own units."""
    problem = inference.problem
    exponent = 0 if inference.weights is None else inference.weights.exponent
    shrunk = np.exp2(-np.append(inference.solver.exponents(len(problem.names)), [0] * problem.intercept))
    units = np.exp2(-np.append(problem.unit_exponents, [0] * problem.intercept).astype(np.float64))
    sums = 2.0 ** (problem.halved + exponent)
    factors: dict[str, Any] = dict.fromkeys(("llf", "llnull", "nobs"), sums)
    factors |= {"coef": units, "se": units * shrunk / math.sqrt(sums), "lr": 2 * sums}
    made = {name: np.asarray(values * factors.get(name, 1.0)) for name, values in found.items()}
    for name in ("p", "lr_p"):
        if name in made:
            made[name] = np.clip(made[name], 0.0, 1.0)
    return made


def derived(asked: Sequence[str], found: dict[str, Reals], problem: Problem, alpha: float) -> dict[str, Any]:
    """The figures asked for, from those revealed."""
    made: dict[str, Any] = dict(found)
    if {"coef", "se"} <= made.keys():
        made["z"] = made["coef"] / made["se"]
        half = critical(alpha) * made["se"]
        made["ci"] = np.column_stack([made["coef"] - half, made["coef"] + half])
    if "coef" in made:
        made["odds_ratio"] = np.exp(made["coef"])
    if "z" in made:
        made["p"] = np.array([two_sided(float(z)) for z in made["z"]])
    if "p" in made:
        made["significant"] = made["p"] < alpha
    signed = made.get("coef", made.get("z"))
    if signed is not None:
        made["sign"] = np.where(signed < 0, -1, 1)
    elif "sign" in made:
        made["sign"] = np.where(made["sign"] > 0.5, -1, 1)
    if "significant" in made:
        made["significant"] = np.asarray(made["significant"]) > 0.5
    made["nobs"] = made.get("nobs", np.array([problem.rows]))
    parameters = problem.size
    if "llf" in made:
        made["aic"] = 2 * parameters - 2 * made["llf"]
        made["bic"] = parameters * np.log(made["nobs"]) - 2 * made["llf"]
    if {"llf", "llnull"} <= made.keys():
        made["lr"] = 2 * (made["llf"] - made["llnull"])
        made["mcfadden"] = 1 - made["llf"] / made["llnull"]
    if "lr" in made:
        made["lr_p"] = np.array([chi_square_tail(float(made["lr"][0]), len(problem.names))])
    return {name: float(made[name][0]) if name in OF_FIT else made[name] for name in asked}


@attrs.frozen(eq=False)
class Summary:
    """A fit as statisticians print it, of the figures that were revealed.

    Figures are attributes: of coefficients, arrays in the order of `names_`, `ci` `(k, 2)`; of the fit,
    numbers. Standard errors of a penalised fit are those of the posterior under the penalty's prior.
    """

    what: str
    names_: tuple[str, ...]
    rows: int | None
    alpha: float
    values: dict[str, Any]
    penalised: bool = False

    def __getattr__(self, name: str) -> Any:
        values = object.__getattribute__(self, "values")
        if name in values:
            return values[name]
        if name in (*OF_COEFFICIENTS, *OF_FIT):
            raise AttributeError(f"{name!r} was not revealed; ask for it in summary(reveal=[...])")
        raise AttributeError(name)

    def _columns(self) -> dict[str, list[str]]:
        """Columns of the table, as text."""
        low, high = (f"{100 * share:g}%" for share in (self.alpha / 2, 1 - self.alpha / 2))
        made: dict[str, list[str]] = {}
        titles = {"coef": "coef", "se": "std err", "z": "z", "p": "P>|z|", "odds_ratio": "odds ratio"}
        formats = {"coef": ".5g", "se": ".4g", "z": ".3f", "p": ".4f", "odds_ratio": ".5g"}
        for name, title in titles.items():
            if name in self.values:
                made[title] = [format(number, formats[name]) for number in self.values[name]]
        if "ci" in self.values:
            for place, title in enumerate((low, high)):
                made[title] = [format(number, ".5g") for number in self.values["ci"][:, place]]
        if "sign" in self.values and "coef" not in self.values:
            made["sign"] = ["+-"[int(sign < 0)] for sign in self.values["sign"]]
        if "significant" in self.values and "p" not in self.values:
            made[f"P<{self.alpha:g}"] = [("no", "yes")[int(yes)] for yes in self.values["significant"]]
        return made

    def _facts(self) -> list[tuple[str, str]]:
        """What is said of the fit as a whole."""
        titles = {
            "nobs": "observations", "llf": "log-likelihood", "llnull": "null log-likelihood",
            "lr": "likelihood ratio", "lr_p": "P>chi2", "mcfadden": "McFadden R2", "tjur": "Tjur R2",
            "aic": "AIC", "bic": "BIC",
        }  # fmt: skip
        return [(title, f"{self.values[name]:.6g}") for name, title in titles.items() if name in self.values]

    def __str__(self) -> str:
        columns = self._columns()
        cells = [["", *columns], *([name, *row] for name, row in self._rows(columns))]
        widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
        lines = [f"logistic regression of {self.what}" + (", penalised" if self.penalised else "")]
        facts = self._facts()
        broad = max((len(title) for title, _ in facts), default=0)
        lines += [f"{title:<{broad}}  {number}" for title, number in facts]
        if columns:
            lines += [
                "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
            ]
        return "\n".join(lines)

    def _rows(self, columns: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
        """Rows of the table; the intercept comes first."""
        rows = [
            (name, [column[place] for column in columns.values()]) for place, name in enumerate(self.names_)
        ]
        return [*rows[-1:], *rows[:-1]] if self.names_[-1] == INTERCEPT else rows

    def to_frame(self) -> Any:
        """The table of coefficients as a pandas data frame, a row for each."""
        import pandas as pd

        columns = {
            name: self.values[name] for name in OF_COEFFICIENTS if name in self.values and name != "ci"
        }
        if "ci" in self.values:
            columns |= {"ci_low": self.values["ci"][:, 0], "ci_high": self.values["ci"][:, 1]}
        return pd.DataFrame(columns, index=list(self.names_))

    def _repr_html_(self) -> str:
        columns = self._columns()
        head = "".join(f"<th>{html.escape(title)}</th>" for title in ("", *columns))
        body = "".join(
            f"<tr><th>{html.escape(name)}</th>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
            for name, row in self._rows(columns)
        )
        facts = "".join(
            f"<tr><th>{html.escape(title)}</th><td>{number}</td></tr>" for title, number in self._facts()
        )
        title = html.escape(f"logistic regression of {self.what}")
        return f"<table><caption>{title}</caption>{facts}</table><table><tr>{head}</tr>{body}</table>"

    def to_latex(self) -> str:
        """The table of coefficients as a LaTeX tabular."""
        columns = self._columns()
        lines = [" & ".join(map(_latex, ("", *columns))) + r" \\", r"\hline"]
        lines += [" & ".join(map(_latex, (name, *row))) + r" \\" for name, row in self._rows(columns)]
        begin = r"\begin{tabular}{l" + "r" * len(columns) + "}"
        return "\n".join([begin, *lines, r"\end{tabular}"])


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", "~": r"\~{}", "^": r"\^{}"}
    escaped = {char: "\\" + char for char in "&%$#_{}"}
    return "".join(special.get(char, escaped.get(char, char)) for char in text)
