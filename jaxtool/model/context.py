"""How many tokens a model's positions reach to, as its files say it. `ModelConfig` computes any number and does not."""

from typing import Any

from jaxtool.core.gguf_file import find_smollm2, open_gguf
from jaxtool.model.config import ModelConfig, YarnScaling
from jaxtool.model.gguf_weights import GgufTensors, config_from_gguf
from jaxtool.model.hf_weights import read_config, read_model_config
from jaxtool.model.sources import GgufFile, HfDirectory, PolicySource


def context_tokens(source: PolicySource) -> int | None:
    """`max_position_embeddings` of a Hugging Face directory, `context_length` of a GGUF file; None: it is not said.

    With YaRN it is factor · original length where that is more: the recipe of Qwen3's authors leaves
    max_position_embeddings at the length before.

    Raises:
      FileNotFoundError, ValueError: the files cannot be read, or are of a model that is not supported.
    """
    if isinstance(source, HfDirectory):
        said = read_config(source.path).get("max_position_embeddings")
        return _reach(said, read_model_config(source.path, source.ignored_fields))
    if isinstance(source, GgufFile):
        file = GgufTensors(open_gguf(source.path or find_smollm2()))
        said = file.fields.get(f"{file.architecture}.context_length")
        return _reach(said, config_from_gguf(file))
    return None


def _reach(said: Any, config: ModelConfig) -> int | None:
    scaling = config.rope_scaling
    told = int(said) if isinstance(said, int) and said > 0 else None
    if not isinstance(scaling, YarnScaling):
        return told
    return max(told or 0, int(scaling.factor * scaling.original_max_position))
