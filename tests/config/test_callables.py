"""Functions that a configuration chose: what they are called, and whether they can be."""

import dataclasses

import pytest

from jaxtool.config.callables import callable_name, check_takes
from jaxtool.config.syntax import BoundFunction


def scaled(x, y, *, factor):
    return factor * (x + y)


@dataclasses.dataclass(frozen=True)
class Scaled:
    factors: tuple[float, ...] | list[float] = ()

    def __call__(self, x, y, /):
        return sum(self.factors) * (x + y)


BOUND = BoundFunction(scaled, (("factor", 2.0),))


@pytest.mark.parametrize(
    ("choice", "name"),
    [(scaled, "scaled"), (BOUND, "scaled"), (Scaled(), "Scaled"), (Scaled, "Scaled")],
)
def test_names_are_those_of_the_module(choice, name):
    assert callable_name(choice) == f"{__name__}.{name}"


@pytest.mark.parametrize("choice", [BOUND, Scaled((1.0,)), lambda *xs: 0, lambda x, y, z=1: 0, min])
def test_what_takes_the_arguments_passes(choice):
    check_takes(choice, ("x", "y"), "Config.scale")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            scaled,
            r"scaled\(x, y, \*, factor\) cannot be \(missing a required .*'factor'\); give it",
        ),
        (lambda x: 0, r"Config.scale is called as f\(x, y\), and .*<lambda>\(x\) cannot be"),
        (lambda *, x, y: 0, "too many positional arguments"),
        (Scaled, r"Scaled is a class; write \(\) behind it"),
        ("m:scaled", "Config.scale='m:scaled' is a string; .* reference it as @module.f"),
        (Scaled([1.0]), "Scaled cannot be compared .*; make it a frozen dataclass"),
    ],
)
def test_what_does_not_is_refused_with_the_remedy(choice, message):
    with pytest.raises(ValueError, match=message):
        check_takes(choice, ("x", "y"), "Config.scale")
