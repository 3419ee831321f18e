"""A tiny world for the search run files: questions, passages, and a checkpoint whose policy searches and answers.

The checkpoint is a real Hugging Face directory. Its weights hold a Markov chain: attention and MLP write nothing,
so the next token depends on the last one alone. A row therefore searches or answers at once and after each
observation, with the probabilities below, and every token is sampled by the real decoder.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from helpers.search_serving import write_rows
from helpers.tiny_models import random_params
from helpers.tiny_tokenizers import write_byte_level
from tokenizers import Tokenizer

from jaxtool.model.config import ModelConfig
from jaxtool.model.hf_weights import save_hf
from jaxtool.renderers.renderer import load_renderer

PASSAGES = [
    {"id": "0", "contents": '"Oslo"\nOslo is the capital of Norway.'},
    {"id": "1", "contents": '"Rome"\nRome is the capital of Italy.'},
    {"id": "2", "contents": '"Norway"\nNorway is a kingdom.'},
    {"id": "3", "contents": '"Italy"\nItaly is a republic.'},
]
WORDS = ("Norway", "Italy", "Oslo", "Rome")
TAGS = ("<search>", "</search>", "<answer>", "</answer>")
# The last token -> the next one. Behind any other token OTHERWISE holds: at the start, after an observation.
CHAIN = {
    "<search>": {"Norway": 0.6, "Italy": 0.4},
    "Norway": {"</search>": 1.0},
    "Italy": {"</search>": 1.0},
    "<answer>": {"Oslo": 0.6, "Rome": 0.4},
    "Oslo": {"</answer>": 1.0},
    "Rome": {"</answer>": 1.0},
}
OTHERWISE = {"<search>": 0.8, "<answer>": 0.2}
_NEVER = -30.0  # log-probability of all else, before normalisation


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchWorld:
    """Files of a run: what the macros of a search run file name."""

    model_dir: Path
    data: Path
    test_data: Path
    corpus: Path
    model: ModelConfig

    def params(self, addresses: tuple[str, ...]) -> list[str]:
        """gin lines that make a search run file small: this world's files, and shapes that fit them."""
        sizes = ("vocab_size", "d_model", "d_ff", "num_layers", "num_heads", "num_kv_heads")
        return [
            f"MODEL_DIR = {str(self.model_dir)!r}",
            f"DATA = {str(self.data)!r}",
            f"TEST_DATA = {str(self.test_data)!r}",
            f"SEARCH = {addresses!r}",
            "STEPS = 1",
            "ROW_TOKENS = 640",
            *(f"ModelConfig.{name} = {getattr(self.model, name)}" for name in sizes),
            f"ModelConfig.head_dim = {self.model.head_dim}",
            f"ModelConfig.rope_theta = {self.model.rope_theta}",
            "Schedule.eval_problems = 8",
            "RolloutConfig.max_response_tokens = 400",
            "Search.max_observation_tokens = 40",
            "EngineConfig.decode_rows = 32",
            "EngineConfig.window_steps = 8",
            "EngineConfig.min_prompt_bucket = 240",
            "EngineConfig.forced_tokens = 32",
            # What a CPU compiles and computes sooner.
            "HfDirectory.compute_dtype = 'float32'",
            "HfDirectory.remat = 'none'",
            "HfDirectory.scans_layers = False",
            "GrpoConfig.micro_batch_rows = 4",
            "GrpoConfig.lm_head_chunk = 64",
        ]


def write_world(folder: Path) -> SearchWorld:
    """Writes all files of a world into `folder`."""
    model_dir = folder / "model"
    model = _write_policy(model_dir)
    rows = [_row(number) for number in range(160)]
    return SearchWorld(
        model_dir=model_dir,
        data=_write_jsonl(folder / "train.jsonl", rows),
        test_data=_write_jsonl(folder / "test.jsonl", [_row(number) for number in range(160, 176)]),
        corpus=write_rows(folder / "wiki.jsonl", PASSAGES),
        model=model,
    )


def _row(number: int) -> dict:
    """A question with one right answer, in Search-R1's layout; sets and answers take turns."""
    country, capital = (("Norway", "Oslo"), ("Italy", "Rome"))[number % 2]
    return {
        "id": f"train_{number}",
        "question": f"capital of {country} in {1800 + number}",
        "golden_answers": [f"{capital}.", capital],
        "data_source": ("nq", "hotpotqa")[number // 2 % 2],
    }


def _write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _write_policy(path: Path) -> ModelConfig:
    renderers = [load_renderer(name) for name in ("search_r1", "otc_search")]
    prompts = [content for renderer in renderers for _, content in renderer.messages]
    write_byte_level(path, text=prompts, vocab_size=700, plain=(*WORDS, *TAGS))
    ids = Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab()
    # Divisible by the tensor axis of the run files' meshes.
    model = ModelConfig(
        vocab_size=math.ceil(len(ids) / 8) * 8,
        d_model=32,
        d_ff=32,
        num_layers=1,
        num_heads=4,
        num_kv_heads=4,
        head_dim=8,
        ties_embeddings=False,
        has_qkv_bias=True,
    )
    save_hf(
        path,
        model,
        _chain_params(model, ids),
        carried={"max_position_embeddings": 640},
        dtype="float32",
    )
    return model


def _chain_params(model: ModelConfig, ids: Mapping[str, int]) -> dict:
    """Embeddings are one-hot by state, and a row of the LM head holds the log-probs that follow a state.

    A one-hot vector of width D has the root mean square 1/√D, so the final norm makes it √D long.
    """
    params = random_params(model)
    root = math.sqrt(model.d_model)
    states = [None, *CHAIN]  # None: any other token
    embedding = np.zeros((model.vocab_size, model.d_model), np.float32)
    embedding[:, 0] = 1.0
    head = np.zeros((model.d_model, model.vocab_size), np.float32)
    for state, token in enumerate(states):
        if token is not None:
            embedding[ids[token]] = np.eye(model.d_model, dtype=np.float32)[state]
        head[state] = _NEVER / root
        for following, probability in (OTHERWISE if token is None else CHAIN[token]).items():
            head[state, ids[following]] = math.log(probability) / root
    layers = params["layers"]
    for norm in (layers["attention_norm"], layers["mlp_norm"]):
        norm["scale"] = jnp.ones_like(norm["scale"])
    for silent in (layers["attention"]["output"], layers["mlp"]["down"]):
        silent["kernel"] = jnp.zeros_like(silent["kernel"])
    ends = {"embedding": embedding, "lm_head": head, "final_norm": np.ones(model.d_model)}
    return params | jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), ends)
