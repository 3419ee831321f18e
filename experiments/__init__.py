"""Entry points: flags and gin, nothing else."""
