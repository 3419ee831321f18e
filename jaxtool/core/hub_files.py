"""Files of a model on the Hugging Face hub: downloaded once, then read from the cache without network.

HF_HOME names the cache, HF_ENDPOINT another hub. Not covered: data sets (`jaxtool.data.hub`), what the files mean.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from jaxtool.core.files import one_line

# What a tokenizer and a model's configuration are made of.
TEXT_FILES = ("*.json", "*.jinja", "tokenizer.model", "merges.txt")


def endpoint() -> str:
    """Address of the hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def hub_snapshot(repository: str, revision: str | None, patterns: Sequence[str], what: str) -> Path:
    """A directory with the files of a repository that fit the patterns; others may be in it as well.

    Args:
      revision: a branch, a tag or a commit; None: main.
      what: what is looked for, in the plural, for messages: "weights".

    Raises:
      OSError: there is no such repository, or it is not on this machine and the hub cannot be reached; one line
        with what to do.
    """
    # Imported where it is used: runs from files need none of it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    name = repository if revision is None else f"{repository}@{revision}"
    try:
        found = snapshot_download(
            repository, revision=revision, allow_patterns=list(patterns), endpoint=endpoint()
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise OSError(
            f"there are no {what} {name}, and no such model on {endpoint()} that may be read here "
            f"({one_line(error, 120)}): mend the name, or `hf auth login` where it is a gated one"
        ) from None
    except Exception as error:  # the hub's libraries raise those of their transports
        raise OSError(
            f"there are no {what} {name}, and {endpoint()} cannot be reached for a model of that name "
            f"({one_line(error, 120)}): run `hf download {repository} --local-dir DIR` where there is a network, "
            "and name DIR"
        ) from None
    return Path(found)
