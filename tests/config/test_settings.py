"""A configuration as a list of settings: each once, by its path, equal in every process."""

import dataclasses
import enum
from collections.abc import Callable
from pathlib import Path

from jaxtool.config.settings import Setting, changes, settings_of
from jaxtool.config.syntax import BoundFunction


class Colour(enum.Enum):
    RED = "red"


def shrink(x, *, by):
    return x / by


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    total_steps: int = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    rate: float = 1e-3
    decay: Cosine | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tool:
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    tools: tuple[Tool, ...] = ()
    addresses: tuple[str, ...] = ("a:1",)
    reward: Callable[..., float] = shrink
    colour: Colour = Colour.RED
    folder: Path = Path("x")
    counted: list[int] = dataclasses.field(default_factory=list, repr=False)


def values(config):
    return {path: (one.name, one.value) for path, one in settings_of(config).items()}


def test_each_setting_stands_once_with_the_name_that_gin_gives_it():
    config = Run(
        optimizer=Optimizer(decay=Cosine()),
        tools=(Tool(name="python"), Tool(name="search")),
        reward=BoundFunction(shrink, (("by", 2),)),
        counted=[3],
    )
    here = "test_settings"
    assert values(config) == {
        "optimizer": ("Run.optimizer", f"{here}.Optimizer"),
        "optimizer.rate": ("Optimizer.rate", "0.001"),
        "optimizer.decay": ("Optimizer.decay", f"{here}.Cosine"),
        "optimizer.decay.total_steps": ("Cosine.total_steps", "10"),
        "tools": ("Run.tools", f"({here}.Tool, {here}.Tool)"),
        "tools[0]": ("Run.tools[0]", f"{here}.Tool"),
        "tools[0].name": ("Tool.name", "'python'"),
        "tools[1]": ("Run.tools[1]", f"{here}.Tool"),
        "tools[1].name": ("Tool.name", "'search'"),
        "addresses": ("Run.addresses", "('a:1',)"),
        "reward": ("Run.reward", f"{here}.shrink"),
        "reward.by": ("shrink.by", "2"),
        "colour": ("Run.colour", "'red'"),
        "folder": ("Run.folder", "PosixPath('x')"),
    }


def test_what_differs_is_named_once_and_not_again_inside_it():
    before = settings_of(Run(optimizer=Optimizer(rate=1.0)))
    now = settings_of(Run(optimizer=Optimizer(rate=2.0, decay=Cosine())))
    assert [str(one) for one in changes(before, now)] == [
        "Optimizer.rate: 1.0 -> 2.0",
        "Optimizer.decay: None -> test_settings.Cosine",
    ]
    assert [one.path for one in changes(now, before)] == ["optimizer.rate", "optimizer.decay"]
    assert changes(now, now) == []


def test_a_value_says_where_it_was_set_and_a_place_alone_is_no_change():
    def origin(part, parameter):
        return "run.gin:3" if isinstance(part, Optimizer) and parameter == "rate" else ""

    settings = settings_of(Run(), origin)
    assert settings["optimizer.rate"].origin == "run.gin:3"
    assert settings["optimizer.decay"].origin == ""
    assert changes(settings_of(Run()), settings) == []
    other = settings | {"optimizer.rate": Setting(name="Optimizer.rate", value="5.0")}
    (change,) = changes(settings, other)
    assert str(change) == "Optimizer.rate: 0.001 (run.gin:3) -> 5.0"


def test_objects_without_a_text_of_their_own_show_no_address():
    class Plain:
        pass

    one, other = (settings_of(Run(colour=Plain())) for _ in range(2))  # type: ignore[arg-type]
    assert one == other
    assert " at 0x" not in one["colour"].value
