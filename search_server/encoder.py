"""Encoders: texts to vectors. A function of yours, or a directory in the layout of sentence-transformers.

A function is named `module:function`; it takes a list of texts and gives float32 [n, d], of any length. A directory holds a
model that transformers reads; `1_Pooling/config.json` in it says whether the mean of the tokens or the first token is taken
(the mean without one). Vectors are scaled to length 1 here, so scores are cosines.
"""

import importlib
import json
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from search_server.corpus import BadCorpus, clean

Encode = Callable[[list[str]], Any]
_MOST_TOKENS = 512


class Encoder:
    """Checks what an encoder gives. One call at a time: encoders use threads of their own."""

    def __init__(self, name: str):
        self._name = name
        self._lock = threading.Lock()
        self._encode = (
            _directory(pathlib.Path(name)) if pathlib.Path(name).is_dir() else _function(name)
        )
        try:
            self.width = self.vectors(["a passage"]).shape[1]
        except Exception as error:
            raise BadCorpus(f"--encoder {name}: {type(error).__name__}: {error!s:.300}") from error

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 [n, d], of length 1 each; raises ValueError where the encoder gives something else."""
        with self._lock:
            given = np.asarray(self._encode([clean(text) for text in texts]), np.float32)
        if given.ndim != 2 or given.shape[0] != len(texts) or given.shape[1] == 0:
            raise ValueError(f"gives shape {given.shape} for {len(texts)} texts, not [n, d]")
        if not np.isfinite(given).all():
            raise ValueError("gives numbers that are not finite")
        return given / np.maximum(np.linalg.norm(given, axis=1, keepdims=True), 1e-12)


def _function(name: str) -> Encode:
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute.isidentifier():
        raise BadCorpus(
            f"--encoder {name}: neither a directory nor module:function, such as my_encoder:encode"
        )
    try:
        found = vars(importlib.import_module(module)).get(attribute)
    except ImportError as error:
        raise BadCorpus(f"--encoder {name}: {error}; is it on PYTHONPATH?") from error
    if not callable(found):
        raise BadCorpus(f"--encoder {name}: {module} has no function {attribute}")
    return found


def _directory(folder: pathlib.Path) -> Encode:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BadCorpus(f"--encoder {folder}: pip install '.[search-dense]': {error}") from error
    file = folder / "1_Pooling" / "config.json"
    pooling = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    takes_first = bool(pooling.get("pooling_mode_cls_token"))
    if not takes_first and pooling.get("pooling_mode_mean_tokens") is False:
        raise BadCorpus(f"{file}: only the mean of tokens or the first token can be taken")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise BadCorpus(f"--encoder {folder}: {str(error).splitlines()[0]:.300}") from error
    limit = min(_MOST_TOKENS, int(tokenizer.model_max_length))

    def encode(texts: list[str]) -> np.ndarray:
        tokens = tokenizer(
            texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )
        with torch.inference_mode():
            states = model(**tokens).last_hidden_state.float()
        if takes_first:
            return states[:, 0].numpy()
        mask = tokens["attention_mask"][..., None].float()
        return ((states * mask).sum(1) / mask.sum(1).clamp(min=1)).numpy()

    return encode
