"""Worker of benchmarks/learner.py: how long a process takes from its launch to the end of a first step.

`python -m benchmarks.learner_start FOLDER SHAPE [adapter] [no-decoder]` begins a run, or resumes the one that it
finds a checkpoint of in FOLDER, and prints one line of JSON: seconds of each part, `ready_at` (of the clock), the
bandwidth of saving or restoring, and the most memory it held (pages of mapped files are in it).

"adapter" trains a bfloat16 model's adapter of rank 16 over the Hugging Face directory FOLDER/weights, whose
reading is timed as `load_s`; the checkpoint is then the adapter's. "no-decoder" is how a cold start begins.
"""

import json
import pathlib
import resource
import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks.learner_setup import make_batch, make_setup, random_state
from benchmarks.peers import START_SHAPES
from jaxtool.cli import entry
from jaxtool.core import rng
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.engine import DecodeEngine
from jaxtool.decode.pieces import Placement
from jaxtool.decode.sampling import Sampling
from jaxtool.learn.grpo_learner import GrpoLearner, place_batch
from jaxtool.learn.policy_view import PolicyView, split_policy
from jaxtool.learn.state import make_state
from jaxtool.model.hf_weights import write_hf
from jaxtool.model.lora import LoraConfig, source_dtype
from jaxtool.model.sources import HfDirectory
from jaxtool.model.weight_layout import Leaf
from jaxtool.rundir.checkpoints import Checkpoints

_WEIGHTS = "weights"
_TOKENS = 256


def write_random_weights(folder: pathlib.Path, shape: str) -> int:
    """The Hugging Face directory that "adapter" reads; its bytes."""
    model = make_setup(START_SHAPES[shape], "bfloat16", 1, _TOKENS, ties_embeddings=False).model
    numbers = 0.02 * np.random.default_rng(0).standard_normal(1 << 20, np.float32)

    def tensor_of(leaf: Leaf, layer: int | None) -> np.ndarray:
        return np.resize(numbers, leaf.tensor_shape)

    carried = {"max_position_embeddings": _TOKENS}
    files = write_hf(folder / _WEIGHTS, model, tensor_of, carried=carried, dtype="bfloat16")
    return sum(file.stat().st_size for file in files)


def main(folder: pathlib.Path, shape: str, options: list[str]) -> None:
    """Parameters (made, read or restored), decoder's programs, one window, one update; prints its times."""
    record: dict[str, float] = {}
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        record[name], last = time.perf_counter() - last, time.perf_counter()

    view = PolicyView()
    if "adapter" in options:
        lora = LoraConfig(rank=16, frozen_dtype="bfloat16")
        setup = make_setup(START_SHAPES[shape], "bfloat16", 1, _TOKENS, ties_embeddings=False)
        source = HfDirectory(path=str(folder / _WEIGHTS), expected=setup.model)
        _, params = source.load(setup.sharding, 0, source_dtype(lora))
        jax.block_until_ready(params)
        lap("load_s")
        size = sum(x.nbytes for x in jax.tree.leaves(params))
        record["load_gb_per_s"] = size / record["load_s"] / 1e9
        adapter, view = split_policy(params, setup.model, lora, rng.key(0, "lora"), setup.sharding)
        state = make_state(adapter, setup.optimizer, setup.sharding)
    else:
        setup = make_setup(START_SHAPES[shape], "float32", 1, _TOKENS)
        state = random_state(setup)
    jax.block_until_ready(state)
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    lap("init_s")
    with Checkpoints(folder / "checkpoints") as checkpoints:
        step, state, _ = checkpoints.restore_newest(state)
        is_first = step == 0
        if not is_first:
            jax.block_until_ready(state)
            lap("restore_s")
            record["restore_gb_per_s"] = size / record["restore_s"] / 1e9
        if "no-decoder" not in options:
            config = EngineConfig(
                decode_rows=4, max_tokens=_TOKENS, min_view=_TOKENS, min_prompt_bucket=32
            )
            engine = _engine(setup, config)
            engine.load(view.full(state.params))
            lap("publish_s")
            engine.compile([Sampling()])
            lap("compile_decoder_s")
            _sample_once(engine)
            lap("window_s")
        batch = make_batch(setup.model.vocab_size, 1, _TOKENS)
        learner = GrpoLearner(setup=setup, view=view)
        state, metrics = learner.update(state, place_batch(batch, setup))
        jax.block_until_ready((state, metrics))
        lap("first_update_s")
        record["ready_at"] = time.time()
        if is_first:
            checkpoints.save(1, state, {})
    if is_first:
        lap("save_s")
        record["save_gb_per_s"] = size / record["save_s"] / 1e9
    record["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(record))


def _engine(setup: Any, config: Any) -> Any:
    is_stop = np.zeros(setup.model.vocab_size, bool)
    return DecodeEngine(model=setup.model, config=config, sharding=setup.sharding, is_stop=is_stop)


def _sample_once(engine: Any) -> None:
    [prompt] = engine.prefill([range(3, 20)])
    cache_row = engine.take_cache_row()
    engine.place(
        [Placement(cache_row=cache_row, prompt=prompt, row_key=rng.row_key(0, 0), max_length=64)]
    )
    engine.fetch(engine.dispatch_window())


if __name__ == "__main__":
    entry.prepare()
    main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
