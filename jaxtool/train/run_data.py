"""A run with the data sets that its command line names (`jaxtool.data.named_sets`)."""

import dataclasses
from collections.abc import Sequence

from jaxtool.data.named_sets import evaluation_data, mixed_data
from jaxtool.train.rl_config import RlConfig


def with_data(config: RlConfig, texts: Sequence[str], mix: str | None = None) -> RlConfig:
    """The run with the problems of `--data NAME[=FILE]`, several of them mixed; none: as it is.

    Args:
      mix: their weights, `--mix`.

    Raises:
      ValueError: there is no such layout, its set holds nothing to train on, or the weights do not fit.
    """
    if not texts:
        if mix is not None:
            raise ValueError(f"--mix {mix}: weights are of several sets: name them by --data")
        return config
    return dataclasses.replace(config, task=mixed_data(texts, mix))


def with_test_data(config: RlConfig, texts: Sequence[str]) -> RlConfig:
    """The run with these test sets in place of its task's test split; none: as it is."""
    return dataclasses.replace(config, task=evaluation_data(texts)) if texts else config
