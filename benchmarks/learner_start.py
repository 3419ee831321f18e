"""Worker of benchmarks/learner.py: how long a process takes from its launch to the end of a first step.

`python -m benchmarks.learner_start FOLDER SHAPE` begins a run, or resumes the one that it finds a checkpoint
of in FOLDER, and prints one line of JSON: seconds of each part, `ready_at` (of the clock) and the
bandwidth of saving or restoring.
"""

import json
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks.learner_setup import make_batch, make_setup, random_state
from benchmarks.peers import START_SHAPES
from experiments import launch
from jaxtool.core import rng
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.engine import DecodeEngine, Placement
from jaxtool.decode.sampling import Sampling
from jaxtool.learn import grpo
from jaxtool.run.checkpoints import Checkpoints


def main(folder: pathlib.Path, shape: str) -> None:
    """Parameters (made or restored), decoder's programs, one window, one update; prints its times."""
    record: dict[str, float] = {}
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        record[name], last = time.perf_counter() - last, time.perf_counter()

    setup = make_setup(START_SHAPES[shape], "float32", 1, 256)
    state = jax.block_until_ready(random_state(setup))
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    lap("init_s")
    with Checkpoints(folder / "checkpoints") as checkpoints:
        if checkpoints.latest_step is not None:
            state, _ = checkpoints.restore(state)
            jax.block_until_ready(state)
            lap("restore_s")
            record["restore_gb_per_s"] = size / record["restore_s"] / 1e9
        config = EngineConfig(slots=4, max_tokens=256, min_view=256, min_prompt_bucket=32)
        engine = _engine(setup, config)
        engine.load(state.params)
        lap("publish_s")
        engine.compile([Sampling()])
        lap("compile_decoder_s")
        _sample_once(engine)
        lap("window_s")
        batch = make_batch(setup.model.vocab_size, 1, 256)
        state, metrics = grpo.update(state, None, batch, setup)
        jax.block_until_ready((state, metrics))
        lap("first_update_s")
        record["ready_at"] = time.time()
        if checkpoints.latest_step is None:
            checkpoints.save(1, state, {})
    if "restore_s" not in record:
        lap("save_s")
        record["save_gb_per_s"] = size / record["save_s"] / 1e9
    print(json.dumps(record))


def _engine(setup: Any, config: Any) -> Any:
    is_stop = np.zeros(setup.model.vocab_size, bool)
    return DecodeEngine(model=setup.model, config=config, sharding=setup.sharding, is_stop=is_stop)


def _sample_once(engine: Any) -> None:
    [prompt] = engine.prefill([range(3, 20)])
    slot = engine.take_slot()
    engine.place([Placement(slot=slot, prompt=prompt, row_key=rng.row_key(0, 0), limit=64)])
    engine.fetch(engine.dispatch_window())


if __name__ == "__main__":
    launch.prepare()
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
