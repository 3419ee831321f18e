"""A run with the data sets that its command line names (`jaxtool.data.named_sets`)."""

import dataclasses
from collections.abc import Sequence

from jaxtool.data.named_sets import evaluation_data, training_data
from jaxtool.train.rl_config import RlConfig


def with_data(config: RlConfig, text: str | None) -> RlConfig:
    """The run with the problems of `--data NAME[=FILE]`; None: as it is.

    Raises:
      ValueError: there is no such layout, or its set holds nothing to train on.
    """
    return config if text is None else dataclasses.replace(config, task=training_data(text))


def with_test_data(config: RlConfig, texts: Sequence[str]) -> RlConfig:
    """The run with these test sets in place of its task's test split; none: as it is."""
    return dataclasses.replace(config, task=evaluation_data(texts)) if texts else config
