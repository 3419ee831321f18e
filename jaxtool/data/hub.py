"""Data sets on the Hugging Face hub by name, `org/name[:config][@split]`, through the library `datasets`.

What was downloaded once stays in its cache (HF_HOME), and is read from there without network. HF_ENDPOINT
names another hub. Not covered: files on this machine (`rows`), models.
"""

import dataclasses
import os
import re
from collections.abc import Collection, Iterator
from typing import Any

from jaxtool.core.files import one_line

_NAME = re.compile(
    r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?::(?P<config>[\w.-]+))?(?:@(?P<split>[\w.-]+))?"
)
_BATCH_ROWS = 1024
# Classes of errors that mean that the hub did not answer, of all the libraries below `datasets`.
_NETWORK = {"ConnectionError", "OfflineModeIsEnabled", "TimeoutError", "TransportError"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubName:
    """A data set on the hub."""

    repository: str  # org/name
    config: str | None = None  # None: the only one
    split: str | None = None  # None: the only one

    @classmethod
    def parse(cls, text: str) -> "HubName | None":
        """The name that a text writes; None where it could be none."""
        match = _NAME.fullmatch(text)
        return None if match is None else cls(**match.groupdict())

    def __str__(self) -> str:
        config = "" if self.config is None else f":{self.config}"
        return f"{self.repository}{config}" + ("" if self.split is None else f"@{self.split}")


def hub_batches(
    name: HubName, columns: Collection[str] | None
) -> Iterator[tuple[tuple[str, ...], int, list[dict[str, Any]]]]:
    """All column names, number of the first row from 1, and rows: batch after batch, in order.

    Args:
      columns: names that are needed; rows hold no others. None: all.

    Raises:
      ValueError: there is no such split or configuration, with those that there are.
      OSError: the set is not on this machine and cannot be had; one line with what to do.
    """
    table = _opened(name)
    names = tuple(table.column_names)
    wanted = [column for column in names if columns is None or column in columns] or names[:1]
    rows = table.select_columns(list(wanted)).with_format("arrow")
    number = 1
    for batch in rows.iter(batch_size=_BATCH_ROWS):
        values = batch.to_pylist()
        yield names, number, values
        number += len(values)


def _opened(name: HubName) -> Any:
    """The table of the name's split, downloaded if need be; it is mapped into memory and not read."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise ValueError(
            f"{name} is read from the hub by the package datasets, which is not installed: "
            "pip install -e '.[hub]', or name a file on this machine"
        ) from None
    try:
        found: Any = datasets.load_dataset(name.repository, name.config, split=name.split)
    except Exception as error:  # whatever the hub's libraries raise, it is about this name
        raise _refusal(name, error) from None
    if isinstance(found, datasets.Dataset):
        return found
    splits = [str(split) for split in found]
    if len(splits) > 1:
        raise ValueError(
            f"{name} has the splits {', '.join(splits)}: write {name}@{splits[0]} or another"
        )
    return found[splits[0]]


def _refusal(name: HubName, error: Exception) -> Exception:
    """One line about what the libraries raised: no network, no such set, or no such part of it."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    causes = kinds | {kind.__name__ for kind in type(error.__cause__ or error).__mro__}
    if kinds & {"DatasetNotFoundError", "DataFilesNotFoundError"}:
        return OSError(
            f"there is no file {name}, and no such data set on {_endpoint()} that may be read here "
            f"({one_line(error, 160)}): mend the name, or `hf auth login` where it is a gated one"
        )
    is_not_cached = "Couldn't find cache" in str(error)  # with HF_HUB_OFFLINE
    if is_not_cached or causes & _NETWORK:
        return OSError(
            f"there is no file {name}, and {_endpoint()} cannot be reached for a data set of that name "
            f"({one_line(error, 120)}): run `hf download --repo-type dataset {name.repository} "
            "--local-dir DIR` where there is a network, and name a file of DIR"
        )
    return ValueError(
        f"{name} of {_endpoint()} cannot be read: {one_line(error, 200)}; a configuration and a split are "
        f"written as {name.repository}:CONFIG@SPLIT"
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")
