"""Gin bindings that give a run file another number of steps. Knows no loop."""

from collections.abc import Sequence
from pathlib import Path

from jaxtool.train import run_files


def steps_bindings(files: Sequence[Path], params: Sequence[str], steps: int) -> list[str]:
    """Bindings for a run of `steps` steps; its warm-up ends before its last step.

    Example: 3 steps of a run that warms up for 20 give STEPS = 3 and OptimizerConfig.warmup_steps = 2.

    Args:
      files: gin files of the run, which take their length from the macro STEPS.
      params: bindings that it has besides.

    Raises:
      ValueError: `steps` is below 1.
      ConfigError: the run does not load.
    """
    if steps < 1:
        raise ValueError(f"--steps {steps} must be >= 1")
    config = run_files.load_run(files, params)
    bindings = [f"STEPS = {steps}"]
    if config.optimizer.warmup_steps >= steps:
        bindings.append(f"OptimizerConfig.warmup_steps = {steps - 1}")
    return bindings
