"""A user's function by its name, "my_tools:convert". Whatever is wrong with it is one line."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any


def imported(call: str) -> Callable[..., Any]:
    """The function that `call` names.

    Raises:
      ValueError: there is no such module or function, or its module cannot be imported.
    """
    module_name, colon, name = call.partition(":")
    if not (colon and module_name and name):
        raise ValueError(f"tool {call!r} must be MODULE:FUNCTION, such as my_tools:convert")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = f"no module {error.name!r}"
        if error.name and module_name.split(".")[0] == error.name.split(".")[0]:
            where = (
                f"the working directory is {os.getcwd()}, and {len(sys.path)} folders are searched"
            )
            raise ValueError(
                f"tool {call!r}: {missing}: {where}; set PYTHONPATH to its folder"
            ) from None
        raise ValueError(f"tool {call!r}: its module needs another one: {missing}") from None
    except BaseException as error:  # whatever the module does when it is imported, exit() included
        if isinstance(error, KeyboardInterrupt):
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"tool {call!r}: its module cannot be imported: {text:.300}") from None
    found: Any = module
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
        if found is None:
            raise ValueError(f"tool {call!r}: {module.__file__} has no {name!r}")
    if not callable(found) or isinstance(found, type):
        kind = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise ValueError(f"tool {call!r} is {kind}: name a function")
    return found
