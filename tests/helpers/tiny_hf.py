"""A Hugging Face directory with a random policy of a hundred thousand parameters, and files in GSM8K's shape."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.model.config import ModelConfig, tiny
from jaxtool.model.hf_config import config_to_hf
from jaxtool.model.hf_weights import save_hf
from jaxtool.model.param_axes import param_shapes
from jaxtool.renderers.renderer import load_renderer

VOCAB = 640  # rows of the embedding; the tokenizer has fewer
MODEL = dataclasses.replace(tiny(VOCAB), d_model=64, d_ff=128, num_heads=8, num_kv_heads=8)
CONTEXT = 4096


def write_model(path: Path, *, context: int = CONTEXT, has_template: bool = True) -> Path:
    """Tokenizer, configuration and weights. ReTool's prompt is in the tokenizer's merges, so that it is short."""
    text = load_renderer("retool").messages[0][1]
    write_byte_level(path, text=[text] * 4, vocab_size=600)
    if not has_template:
        file = path / "tokenizer_config.json"
        config = json.loads(file.read_text())
        del config["chat_template"]
        file.write_text(json.dumps(config))
    numbers = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.05 * numbers.standard_normal(leaf.shape), jnp.float32),
        param_shapes(MODEL),
    )
    save_hf(path, MODEL, params, carried={"max_position_embeddings": context}, dtype="float32")
    return path


def write_shape(path: Path, config: ModelConfig, context: int) -> Path:
    """A directory that says what a model is and has no weights: enough to plan a run."""
    write_byte_level(path)
    fields = config_to_hf(config, {"max_position_embeddings": context})
    (path / "config.json").write_text(json.dumps(fields))
    return path


def write_gsm8k(path: Path, rows: int = 120) -> Path:
    """Rows as GSM8K has them: a question in words, a solution that ends in `#### 7`."""
    lines = [
        {
            "question": f"Ann has {i} apples and buys {i % 7} more. How many has she?",
            "answer": f"She has {i}+{i % 7}=<<{i}+{i % 7}={i + i % 7}>>{i + i % 7} apples.\n#### {i + i % 7}",
        }
        for i in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_demonstrations(path: Path, rows: int = 12) -> Path:
    """Rows as ReTool-SFT has them, in the renderer's tags."""
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"*user question:* What is {i} + 1?"},
                {
                    "role": "assistant",
                    "content": f"<code>\n```python\nprint({i} + 1)\n```\n</code>\n<interpreter>\n{i + 1}\n"
                    f"</interpreter>\n\n<answer>\\boxed{{{i + 1}}}</answer>",
                },
            ]
        }
        for i in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
