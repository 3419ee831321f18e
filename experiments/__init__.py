"""Doors of a checkout: `python -m experiments.train` is the command `train` of `jaxtool.cli`, and so on."""
