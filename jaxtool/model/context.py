"""How many tokens a model's positions reach to, as its files say it. `ModelConfig` computes any number and does not."""

from jaxtool.core.gguf_file import find_smollm2, gguf_fields, open_gguf
from jaxtool.model.hf_weights import read_config
from jaxtool.model.sources import GgufFile, HfDirectory, PolicySource


def context_tokens(source: PolicySource) -> int | None:
    """`max_position_embeddings` of a Hugging Face directory, `context_length` of a GGUF file; None: it is not said.

    Raises:
      FileNotFoundError, ValueError: the files cannot be read.
    """
    said = None
    if isinstance(source, HfDirectory):
        said = read_config(source.path).get("max_position_embeddings")
    if isinstance(source, GgufFile):
        fields = gguf_fields(open_gguf(source.path or find_smollm2()))
        said = fields.get(f"{fields.get('general.architecture')}.context_length")
    return int(said) if isinstance(said, int) and said > 0 else None
