"""What programs are for, by a list of rules. ReTool (2504.11536, Figure 3) asks a language model for it.

These are rules on syntax, not a model that understands: they see that a program loops over candidates, not whether it
checks a conjecture. The first rule that holds decides, so every program has one purpose. What the rules cannot tell is
"other"; what is no Python is "unparsed". Rules are data: each has an example, and a test runs all of them.
"""

import collections
import dataclasses
from collections.abc import Sequence

from jaxtool.behaviour.answers import judged, programs
from jaxtool.behaviour.program_features import features
from jaxtool.rundir.answer_records import AnswerRecord

UNPARSED, OTHER = "unparsed", "other"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Holds if the program has all features of `all_of` and, where there are some, one of `any_of`."""

    purpose: str
    meaning: str
    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    example: str

    def holds(self, found: frozenset[str]) -> bool:
        return found.issuperset(self.all_of) and (
            not self.any_of or not found.isdisjoint(self.any_of)
        )


def _calls(names: str) -> tuple[str, ...]:
    return tuple(f"call:{name}" for name in names.split())


def _imports(names: str) -> tuple[str, ...]:
    return tuple(f"import:{name}" for name in names.split())


RULES = (
    Rule(
        purpose="definitions",
        meaning="Defines or imports and uses nothing of it.",
        all_of=("has:only_definitions",),
        example="def area(r):\n    return 3 * r * r",
    ),
    Rule(
        purpose="plotting",
        meaning="Draws.",
        any_of=_imports("matplotlib seaborn plotly"),
        example="import matplotlib.pyplot as plt\nplt.plot([1, 2])",
    ),
    Rule(
        purpose="verification",
        meaning="Asserts something, or shows or decides whether two things are equal or a comparison holds.",
        any_of=(
            *("has:assertion", "has:shown_comparison", "has:decided_equality"),
            *_calls("isclose allclose"),
        ),
        example="x = 7\nprint(x * x - 5 == 44)",
    ),
    Rule(
        purpose="symbolic solving",
        meaning="Solves, transforms or integrates with sympy, or asks a solver.",
        all_of=_imports("sympy"),
        any_of=_calls(
            "solve solveset nsolve linsolve nonlinsolve dsolve rsolve diophantine Eq symbols Symbol simplify expand "
            "factor apart together diff integrate limit summation series groebner resultant minimal_polynomial"
        ),
        example="from sympy import symbols, solve\nx = symbols('x')\nprint(solve(x**2 - 2, x))",
    ),
    Rule(
        purpose="symbolic solving",
        meaning="Solves, transforms or integrates with sympy, or asks a solver.",
        any_of=_imports("z3"),
        example="import z3\ns = z3.Solver()\nprint(s.check())",
    ),
    Rule(
        purpose="optimisation",
        meaning="Looks for a minimum or maximum with a numerical optimizer.",
        any_of=(
            *_imports("scipy.optimize pulp cvxpy ortools"),
            *_calls("minimize minimize_scalar linprog milp differential_evolution"),
        ),
        example="from scipy.optimize import minimize_scalar\nprint(minimize_scalar(lambda x: x * x).x)",
    ),
    Rule(
        purpose="simulation",
        meaning="Draws random numbers.",
        any_of=(*_imports("random numpy.random"), *_calls("default_rng randint rand randn")),
        example="import random\nprint(sum(random.random() < 0.5 for _ in range(9)))",
    ),
    Rule(
        purpose="recursion",
        meaning="Has a function that calls itself, with or without a memory.",
        any_of=("has:recursion",),
        example="def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nprint(f(9))",
    ),
    Rule(
        purpose="enumeration and search",
        meaning="Goes through candidates and keeps some of them.",
        any_of=(
            *("has:conditional_loop", "has:chosen_extremum"),
            *_calls("product permutations combinations"),
        ),
        example="print([n for n in range(100) if n * n % 7 == 2])",
    ),
    Rule(
        purpose="data processing",
        meaning="Takes text or tables apart.",
        any_of=(
            *_imports("pandas csv json re datetime collections"),
            *_calls("split groupby Counter most_common"),
        ),
        example="print(sum(map(int, '1 2 3'.split())))",
    ),
    Rule(
        purpose="calculation",
        meaning="Computes a value: operators, sums, loops, functions of mathematics.",
        any_of=(
            "has:arithmetic",
            "has:loop",
            *_imports("math numpy fractions decimal sympy scipy statistics"),
            *_calls("sum pow abs round min max divmod len"),
        ),
        example="print(17 * 23 + 4)",
    ),
    Rule(
        purpose="printing",
        meaning="Shows a value that was not computed.",
        all_of=("has:output",),
        example="print('42')",
    ),
)
PURPOSES = (*dict.fromkeys(rule.purpose for rule in RULES), OTHER, UNPARSED)


def purpose_of(program: str) -> str:
    """One of `PURPOSES`: that of the first rule that holds."""
    found = features(program)
    if found is None:
        return UNPARSED
    return next((rule.purpose for rule in RULES if rule.holds(found)), OTHER)


def purpose_shares(records: Sequence[AnswerRecord]) -> dict[str, float]:
    """Programs of a purpose / programs, the most frequent first; purposes without a program are left out."""
    counts = collections.Counter(
        purpose_of(call.code) for record in judged(records) for call in programs(record)
    )
    return {purpose: count / counts.total() for purpose, count in counts.most_common()}
