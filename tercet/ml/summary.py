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

from tercet.errors import PlanError, SchemaError
from tercet.ml import views
from tercet.ml.fitting import Problem, stronger
from tercet.ml.inference import FIGURES, GUARDED, INEXACT, LOOSE, Inference
from tercet.ml.newton import LARGEST_SHARE
from tercet.ml.table import Steps, as_names
from tercet.ml.tails import chi_square_tail, critical, shown_p, two_sided
from tercet.plans import Builder, DisclosureClass, Value

Reals = npt.NDArray[np.float64]

Inputs = Callable[[Builder], Mapping[str, Value]]

INTERCEPT = "(intercept)"
OF_COEFFICIENTS = ("coef", "se", "z", "p", "ci", "odds_ratio", "odds_ratio_ci", "sign", "significant")
OF_FIT = ("llf", "llnull", "llr", "llr_pvalue", "prsquared", "tjur", "aic", "bic", "nobs")
AGAINST_CONSTANT = frozenset({"llnull", "llr", "llr_pvalue", "prsquared"})
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
    "llr": "likelihood ratio",
    "llr_pvalue": "p-value of the likelihood ratio",
    "prsquared": "McFadden's R2",
    "tjur": "Tjur's R2",
    "nobs": "sum of weights",
}
"""What disclosures call figures."""
SERIES = {"params": "coef", "bse": "se", "tvalues": "z", "pvalues": "p", "odds_ratio": "odds_ratio"}
SERIES |= {"sign": "sign", "significant": "significant"}
"""Figures of coefficients by the names that they have as attributes, which are those of statsmodels."""
METHODS = {"conf_int": "ci", "odds_ratio_conf_int": "odds_ratio_ci"}
"""Intervals by the methods that give them."""


def figures(problem: Problem, reveal: str | Sequence[str] | None) -> tuple[str, ...]:
    """The figures asked for, by default all that a fit has. Raises PlanError for others.

    They are asked for by the heads of their columns, as "coef", or by their attributes, as "params". The
    interval "ci" is that of the effect that is asked for with it: of coefficients, odds ratios, or both.
    """
    compared = problem.intercept and problem.offset is None
    has = [name for name in (*OF_COEFFICIENTS, *OF_FIT) if compared or name not in AGAINST_CONSTANT]
    if reveal is None:
        return tuple(has)
    asked = [{**SERIES, **METHODS}.get(name, name) for name in as_names(reveal)]
    for name in asked:
        if name not in (*OF_COEFFICIENTS, *OF_FIT):
            known = ", ".join((*OF_COEFFICIENTS, *OF_FIT))
            raise PlanError(f"there is no figure {name!r} in a summary; known are {known}")
        if name not in has:
            raise PlanError(
                f"{name!r} compares a fit with a constant probability, which means nothing for a fit with an "
                "offset or without an intercept; leave it out of reveal="
            )
    if {"ci", "odds_ratio"} <= set(asked):  # an interval beside an odds ratio is the odds ratio's
        asked = [name for name in asked if name != "ci" or "coef" in asked] + ["odds_ratio_ci"]
    return tuple(dict.fromkeys(asked))


def told(asked: Iterable[str], *, counts_rows: bool) -> tuple[str, ...]:
    """What has to be revealed for the figures asked for, and no more than they determine.

    `counts_rows` says that the number of observations is public.
    """
    wanted, found = set(asked), set[str]()
    intervals = wanted & {"ci", "odds_ratio_ci"}
    effects, widths = wanted & {"coef", "odds_ratio"} | intervals, wanted & {"se"} | intervals
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
        found |= wanted & {"llr", "prsquared"}
        found |= wanted & {"llr_pvalue"} - ({"llr_pvalue"} if "llr" in wanted else set())
    return tuple(name for name in FIGURES if name in found)


def summarise(
    problem: Problem, inputs: Inputs, *, reveal: str | Sequence[str] | None, alpha: float, to: str
) -> Steps[Summary]:
    """Reveal what is asked for; `inputs` gives, in a plan, what the fit left of its state."""
    if not 0 < alpha < 1:
        raise PlanError(f"alpha={alpha} is not between 0 and 1; give the level of significance, such as 0.05")
    asked = figures(problem, reveal)
    names = told(asked, counts_rows=not problem.weighs)
    if GUARDED & set(names):
        _require_data_to_count(problem)
    found = yield from _revealed(problem, inputs, names, alpha, to)
    loose = np.zeros(problem.size, dtype=bool)
    if found is None:
        loose = yield from _loose(problem, inputs, alpha, to)
        found = yield from _revealed(problem, inputs, names, alpha, to, loose)
    if found is None:
        raise _inexact(problem, loose)
    return Summary(
        f"{problem.target!r} on {problem.table.name!r}",
        _names(problem),
        None if problem.weighs else problem.rows,
        alpha,
        derived(asked, found, problem, alpha, loose),
        tuple(name for name, bit in zip(_names(problem), loose, strict=True) if bit),
        penalised=problem.strength > 0,
    )


def _names(problem: Problem) -> tuple[str, ...]:
    """Names of the coefficients."""
    return (*problem.names, INTERCEPT) if problem.intercept else problem.names


def _class_of(name: str) -> DisclosureClass:
    """The class of a figure: what is told for each coefficient follows from the model's parameters."""
    if name in OF_COEFFICIENTS:
        return "model"
    return "count" if name == "nobs" else "figure"


def _revealed(
    problem: Problem,
    inputs: Inputs,
    names: Sequence[str],
    alpha: float,
    to: str,
    loose: npt.NDArray[np.bool_] | None = None,
) -> Steps[dict[str, Reals] | None]:
    """Figures in the columns' own units, without the coefficients that are `loose`.

    None if standard errors are among them and not exact; then nothing is told of coefficients.
    """
    table, target = problem.table, problem.target
    builder = table.lake.builder(f"summary of {target} on {table.name}")
    inference = Inference(problem, builder, inputs(builder), alpha, loose)
    titles = {name: f"{TITLES[name]} of {target!r}" for name in names}
    guarded = GUARDED & set(names)
    if guarded:
        inference.inexact.reveal(INEXACT, to=to, kind="check")
    for name in names:
        with builder.scope(name):
            value = inference.figure(name)
            hidden = guarded and name in OF_COEFFICIENTS
            value = value * (1 - inference.inexact) if hidden else value
            value.reveal(titles[name], to=to, kind=_class_of(name))
    revealed = (yield builder.plan()).revealed
    if guarded and revealed[INEXACT] > 0.5:
        return None
    return _in_units(inference, {name: revealed[title] for name, title in titles.items()})


def _loose(problem: Problem, inputs: Inputs, alpha: float, to: str) -> Steps[npt.NDArray[np.bool_]]:
    """Which coefficients have no standard error, `(k,)`. Raises SchemaError if no column has one."""
    builder = problem.table.lake.builder(
        f"columns without errors of {problem.target} on {problem.table.name}"
    )
    Inference(problem, builder, inputs(builder), alpha).loose.reveal(LOOSE, to=to, kind="check")
    loose: npt.NDArray[np.bool_] = (yield builder.plan()).revealed[LOOSE] > 0.5
    if loose[: len(problem.names)].all() or not loose.any():
        raise _inexact(problem, loose)
    return loose


def _inexact(problem: Problem, loose: npt.NDArray[np.bool_]) -> SchemaError:
    """Build the error that there is no standard error to be told."""
    columns = [name for name, bit in zip(problem.names, loose, strict=False) if bit]
    among = f" (among them {', '.join(map(repr, columns))})" if 0 < len(columns) < len(problem.names) else ""
    return SchemaError(
        f"fit of {problem.target!r} on {problem.table.name!r}: standard errors cannot be made exact: columns"
        f"{among} do not vary, nearly repeat others, have a mean or a declared range far beyond their "
        "spread, or tell outcomes apart without error, or the outcome is too rare; leave such columns out, "
        f"clip them to a narrower range, or fit with {stronger(problem.strength > 0)}"
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
    factors |= {"coef": units, "se": units * shrunk / math.sqrt(sums), "llr": 2 * sums}
    made = {name: np.asarray(values * factors.get(name, 1.0)) for name, values in found.items()}
    for name in ("p", "llr_pvalue"):
        if name in made:
            made[name] = np.clip(made[name], 0.0, 1.0)
    return made


def derived(
    asked: Sequence[str],
    found: dict[str, Reals],
    problem: Problem,
    alpha: float,
    loose: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """The figures asked for, from those revealed; `nan` for coefficients that are `loose`."""
    made: dict[str, Any] = {
        name: np.where(loose, np.nan, values) if name in OF_COEFFICIENTS else values
        for name, values in found.items()
    }
    if {"coef", "se"} <= made.keys():
        made["z"] = made["coef"] / made["se"]
        made["ci"] = _interval(made["coef"], made["se"], alpha)
        made["odds_ratio_ci"] = np.exp(made["ci"])
    if "coef" in made:
        made["odds_ratio"] = np.exp(made["coef"])
    if "z" in made:
        made["p"] = np.array([two_sided(float(z)) for z in made["z"]])
    if "p" in made:
        made["significant"] = np.where(np.isnan(made["p"]), np.nan, made["p"] < alpha)
    signed = made.get("coef", made.get("z"))
    if signed is not None:
        made["sign"] = np.where(np.isnan(signed), np.nan, np.where(signed < 0, -1, 1))
    if "significant" in made and "p" not in made:
        made["significant"] = np.where(np.isnan(made["significant"]), np.nan, made["significant"] > 0.5)
    if signed is None and "sign" in made:
        made["sign"] = np.where(np.isnan(made["sign"]), np.nan, np.where(made["sign"] > 0.5, -1, 1))
    made["nobs"] = made.get("nobs", np.array([problem.rows]))
    features = int((~loose[: len(problem.names)]).sum())
    if "llf" in made:
        parameters = features + problem.intercept
        made["aic"] = 2 * parameters - 2 * made["llf"]
        made["bic"] = parameters * np.log(made["nobs"]) - 2 * made["llf"]
    if {"llf", "llnull"} <= made.keys():
        made["llr"] = 2 * (made["llf"] - made["llnull"])
        made["prsquared"] = 1 - made["llf"] / made["llnull"]
    if "llr" in made:
        made["llr_pvalue"] = np.array([chi_square_tail(float(made["llr"][0]), features)])
    for name in {"sign", "significant"} & made.keys():
        if not np.isnan(made[name]).any():
            made[name] = made[name].astype(np.bool_ if name == "significant" else np.int64)
    return {name: float(made[name][0]) if name in OF_FIT else made[name] for name in asked}


def _interval(effects: Reals, errors: Reals, alpha: float) -> Reals:
    """Both ends of confidence intervals, `(k, 2)`."""
    half = critical(alpha) * errors
    return np.column_stack([effects - half, effects + half])


@attrs.frozen(eq=False)
class Summary:
    """A fit as statisticians print it, of the figures that were revealed.

    Figures are attributes with the names of statsmodels: `params`, `bse`, `tvalues`, `pvalues`, `odds_ratio`,
    `sign` and `significant` of coefficients, pandas series by name where pandas is installed, else arrays in
    the order of `names_`; `llf`, `llnull`, `llr`, `llr_pvalue`, `prsquared` (McFadden's), `tjur`, `aic`,
    `bic` and `nobs` of the fit, numbers. Standard errors of a penalised fit are those of the posterior under
    the penalty's prior.

    `without` names coefficients that nothing can be said of, because their columns do not vary, repeat others
    before them or tell some outcomes apart without error (the intercept, because the mean of some column is
    too far beyond its spread). Their figures are `nan`, and all others those of the fit without them.
    """

    what: str
    names_: tuple[str, ...]
    rows: int | None
    alpha: float
    values: dict[str, Any]
    without: tuple[str, ...] = ()
    penalised: bool = False

    __repr__ = views.as_printed

    def __getattr__(self, name: str) -> Any:
        values = object.__getattribute__(self, "values")
        figure = SERIES.get(name, name)
        if name in SERIES and figure in values:
            return self._labelled(values[figure])
        if name in OF_FIT and figure in values:
            return values[figure]
        if name in (*SERIES, *OF_FIT):
            raise self._not_revealed(name)
        raise AttributeError(f"a summary has no {name!r}; it has {', '.join((*SERIES, *METHODS, *OF_FIT))}")

    @staticmethod
    def _not_revealed(name: str) -> AttributeError:
        return AttributeError(f"{name!r} was not revealed; ask for it in summary(reveal=[...])")

    def _labelled(self, values: Reals, columns: Sequence[Any] | None = None) -> Any:
        """Figures of coefficients with their names, as pandas has them."""
        try:
            import pandas as pd
        except ImportError:
            return values
        names = list(self.names_)
        return pd.Series(values, names) if columns is None else pd.DataFrame(values, names, columns)

    @property
    def df_model(self) -> int:
        """The number of columns whose coefficients are told."""
        return len(set(self.names_) - {INTERCEPT} - set(self.without))

    def conf_int(self, alpha: float | None = None) -> Any:
        """Confidence intervals of coefficients at level 1 - alpha, by default that of the summary.

        A pandas data frame with columns 0 and 1, or an array `(k, 2)`. Raises AttributeError if neither they
        nor coefficients and standard errors were revealed.
        """
        return self._labelled(self._ends("conf_int", alpha), [0, 1])

    def odds_ratio_conf_int(self, alpha: float | None = None) -> Any:
        """Confidence intervals of odds ratios, as `conf_int`: from e to the lower to e to the upper end."""
        return self._labelled(np.exp(self._ends("odds_ratio_conf_int", alpha)), [0, 1])

    def _ends(self, method: str, alpha: float | None) -> Reals:
        """Intervals of coefficients, from whatever was revealed that tells them."""
        level = self.alpha if alpha is None else alpha
        number = isinstance(level, int | float | np.floating) and not isinstance(level, bool)
        if not number or not 0 < level < 1:
            raise PlanError(
                f"alpha={level!r} is not between 0 and 1; give the level of significance, as 0.05"
            )
        values = self.values
        if level == self.alpha and "ci" in values:
            found: Reals = values["ci"]
            return found
        if "ci" in values or "odds_ratio_ci" in values:
            known = values["ci"] if "ci" in values else np.log(values["odds_ratio_ci"])
            effects, errors = known.mean(1), (known[:, 1] - known[:, 0]) / (2 * critical(self.alpha))
        elif {"coef", "se"} <= values.keys():
            effects, errors = values["coef"], values["se"]
        else:
            raise self._not_revealed(method)
        return _interval(effects, errors, level)

    def _columns(self) -> dict[str, list[str]]:
        """Columns of the table, as text."""
        low, high = (f"{100 * share:g}%" for share in (self.alpha / 2, 1 - self.alpha / 2))
        titles = {
            "coef": ("coef", ".5g"), "se": ("std err", ".4g"), "z": ("z", ".3f"), "p": ("P>|z|", ""),
            "ci": ("", ".5g"), "odds_ratio": ("odds ratio", ".5g"), "odds_ratio_ci": ("OR ", ".5g"),
        }  # fmt: skip
        made: dict[str, list[str]] = {}
        for name, (title, style) in titles.items():
            if name not in self.values:
                continue
            if name == "p":
                made[title] = [shown_p(number) for number in self.values[name]]
            elif name in ("ci", "odds_ratio_ci"):
                for place, end in enumerate((low, high)):
                    made[f"{title}{end}"] = [format(one, style) for one in self.values[name][:, place]]
            else:
                made[title] = [format(number, style) for number in self.values[name]]
        words = {
            "sign": ("sign", "coef", ("-", "+")),
            "significant": (f"P<{self.alpha:g}", "p", ("no", "yes")),
        }
        for name, (title, tells, (low_word, high_word)) in words.items():
            if name in self.values and tells not in self.values:
                made[title] = [
                    "nan" if np.isnan(one) else high_word if one > 0 else low_word
                    for one in self.values[name].astype(float)
                ]
        return made

    def notes(self) -> list[str]:
        """What has to be said of coefficients that are not told."""
        columns = [name for name in self.without if name != INTERCEPT]
        notes = []
        if columns:
            notes.append(
                f"left out, with no standard errors: {', '.join(columns)} (a column that does not vary, "
                "repeats others before it, or tells some outcomes apart without error)"
            )
        if INTERCEPT in self.without:
            notes.append(
                f"no standard error: {INTERCEPT} (the mean of some column is too far beyond its spread; take "
                "a constant off)"
            )
        return notes

    def facts(self) -> list[tuple[str, str]]:
        """What is said of the fit as a whole."""
        titles = {
            "nobs": "observations", "llf": "log-likelihood", "llnull": "null log-likelihood",
            "llr": "likelihood ratio", "llr_pvalue": "P>chi2", "prsquared": "McFadden R2", "tjur": "Tjur R2",
            "aic": "AIC", "bic": "BIC",
        }  # fmt: skip
        found = {name: self.values[name] for name in titles if name in self.values}
        return [
            (titles[name], shown_p(number) if name == "llr_pvalue" else f"{number:.6g}")
            for name, number in found.items()
        ]

    @property
    def _title(self) -> str:
        return f"logistic regression of {self.what}" + (", penalised" if self.penalised else "")

    def __str__(self) -> str:
        heads, rows = self.cells()
        cells = [["", *heads], *([name, *row] for name, row in rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
        lines = [self._title]
        facts = self.facts()
        broad = max((len(title) for title, _ in facts), default=0)
        lines += [f"{title:<{broad}}  {number}" for title, number in facts]
        if heads:
            lines += [
                "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
            ]
        return "\n".join([*lines, *self.notes()])

    def cells(self) -> tuple[list[str], list[tuple[str, list[str]]]]:
        """The table as text: headings, and the name and cells of each coefficient, the intercept first."""
        columns = self._columns()
        cells = [[column[place] for column in columns.values()] for place in range(len(self.names_))]
        rows = list(zip(self.names_, cells, strict=True))
        return list(columns), rows if self.names_[-1] != INTERCEPT else [rows[-1], *rows[:-1]]

    def to_frame(self) -> Any:
        """The table of coefficients as a pandas data frame, a row for each."""
        import pandas as pd

        columns: dict[str, Any] = {}
        for name in OF_COEFFICIENTS:
            if name in self.values and name in METHODS.values():
                columns |= {
                    f"{name}_{end}": self.values[name][:, place] for place, end in enumerate(("low", "high"))
                }
            elif name in self.values:
                columns[name] = self.values[name]
        return pd.DataFrame(columns, index=list(self.names_))

    def _repr_html_(self) -> str:
        heads, rows = self.cells()
        head = "".join(f"<th>{html.escape(title)}</th>" for title in ("", *heads))
        body = "".join(
            f"<tr><th>{html.escape(name)}</th>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
            + "</tr>"
            for name, row in rows
        )
        facts = "".join(
            f"<tr><th>{html.escape(title)}</th><td>{html.escape(number)}</td></tr>"
            for title, number in self.facts()
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes())
        title = html.escape(self._title)
        return f"<table><caption>{title}</caption>{facts}</table><table><tr>{head}</tr>{body}</table>{notes}"

    def to_latex(self) -> str:
        """The table of coefficients as a LaTeX tabular."""
        heads, rows = self.cells()
        lines = [" & ".join(map(_latex, ("", *heads))) + r" \\", r"\hline"]
        lines += [" & ".join(map(_latex, (name, *row))) + r" \\" for name, row in rows]
        width = len(heads) + 1
        lines += [rf"\multicolumn{{{width}}}{{l}}{{{_latex(note)}}} \\" for note in self.notes()]
        begin = r"\begin{tabular}{l" + "r" * len(heads) + "}"
        return "\n".join([begin, *lines, r"\end{tabular}"])


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", "~": r"\~{}", "^": r"\^{}"}
    escaped = {char: "\\" + char for char in "&%$#_{}"}
    return "".join(special.get(char, escaped.get(char, char)) for char in text)
