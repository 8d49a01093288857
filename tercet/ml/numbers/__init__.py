"""A language of numbers for plans: secret arrays with NumPy's names, whose scales and bounds are found here.

`facts` is what everyone may know of a secret array, `ring` how its numbers are held in ring units and brought
from one unit to another, `by_row` what counts as rows to owners, `public` the numbers that everyone sees,
`number` the arrays, `alignment` how two of them meet, `functions` what is done with several of them, `checks`
bounds that are stated, `series` functions on ranges, `inverses` quotients and roots, `systems` linear
equations, `saved` how they are kept for later plans, `formulas` the plan that they are written into, and
`declared` makes a function of such a plan a computation that nodes can be asked for.
"""

from tercet.ml.numbers.formulas import Formulas
from tercet.ml.numbers.number import Number
from tercet.ml.numbers.saved import SavedNumber

__all__ = ["Formulas", "Number", "SavedNumber"]
