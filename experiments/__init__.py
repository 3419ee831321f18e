"""The commands of `jaxtool.cli` under the names that they have in a checkout: `python -m experiments.train`."""

from jaxtool import cli

__path__ = [*__path__, *cli.__path__]
