"""Gin files for the tests of the loader and of the record, and how they are loaded."""

import pytest
from gin_samples import RunConfig

from jaxtool.config import loader

HEADER = "from __gin__ import dynamic_registration\nimport gin_samples as s\n"
MINIMAL = "s.RunConfig.model = @s.ModelConfig()\ns.ModelConfig.width = 8\n"


FULL = """
WIDTH = 16
RATE = 3  # an int, for a float

s.RunConfig:
    model = @s.ModelConfig()
    reference = @frozen/s.ModelConfig()
    optimizer = @s.AdamConfig()
    dataset = @s.ListDataset()
    mode = 'shaped'
    kind = 'SECOND'
    aggregation = 'sequence'
    levels = ['one',
              'two']
    weights = [1, 2.5]
    data = 'folder/file.txt'
    schedule = @s.linear
    hooks = (@s.constant, @other/s.constant)
s.ModelConfig.width = %WIDTH
s.ModelConfig.rope_scaling = {'factor': 8,
                              'low': 1.0}
frozen/s.ModelConfig.depth = 4
s.AdamConfig.learning_rate = %RATE
s.AdamConfig.betas = [0, 0.99]
s.ListDataset.size = 7
s.linear.slope = -2
other/s.constant.value = 5.0
"""


def load(file: str, *params: str) -> RunConfig:
    return loader.load(RunConfig, files=[file], params=params)


def error_of(file: str, *params: str) -> str:
    with pytest.raises(loader.ConfigError) as caught:
        load(file, *params)
    message = str(caught.value)
    assert "\n" not in message
    return message
