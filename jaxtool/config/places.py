"""Where the files of this code lie: beside the packages in a checkout, inside of jaxtool in an installed wheel.

A checkout has gin_configs/, docs/ and experiments/ at its root. A wheel has copies of gin_configs/ and of docs/'s
pages and plans in jaxtool/, and no experiments/: its commands are `jaxtool train` and so on.
"""

import pathlib
import re

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
IS_CHECKOUT = not (_PACKAGE / "gin_configs").is_dir()
REPOSITORY_ROOT = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE  # holds gin_configs and docs
CONFIGS = REPOSITORY_ROOT / "gin_configs"
DOCS = REPOSITORY_ROOT / "docs"
_PIP = re.compile(r"pip install (?:-e )?'\.\[")
_DOOR = re.compile(r"(?:python -m )?experiments\.(?!md\b)([a-z]\w*)")


def command_words(name: str, is_checkout: bool = IS_CHECKOUT) -> list[str]:
    """The first words of a command: ["python", "-m", "experiments.train"], or ["jaxtool", "train"] without a checkout."""
    return ["python", "-m", f"experiments.{name}"] if is_checkout else ["jaxtool", name]


def as_typed(text: str, is_checkout: bool = IS_CHECKOUT) -> str:
    """`text` with the commands that it names as they are typed here.

    Example without a checkout: "merge it by experiments.convert_weights" gives "merge it by jaxtool convert_weights",
    and "pip install -e '.[cpu]'" gives "pip install 'jaxtool[cpu]'".
    """
    if is_checkout:
        return text
    return _PIP.sub("pip install 'jaxtool[", _DOOR.sub(r"jaxtool \1", text))
