"""SmolLM2-135M-Instruct for tests marked real_model."""

from pathlib import Path

import pytest

from jaxtool.core.gguf_file import find_smollm2


def smollm2_or_skip() -> Path:
    """Path of the GGUF file; skips the test where the wheel is not installed."""
    try:
        return find_smollm2()
    except FileNotFoundError as error:
        pytest.skip(str(error))
