"""Where a policy comes from: random weights, a GGUF file, or a Hugging Face directory.

Each source is a frozen dataclass that loads its weights, or says their shape alone. Not covered: Orbax checkpoints of a run,
which jaxtool.rundir restores over what a source gives the shape of.
"""

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import jax

from jaxtool.core import rng
from jaxtool.core.bucket_files import local_copy, names_below
from jaxtool.core.bucket_names import bucket_url
from jaxtool.core.gguf_file import find_smollm2, open_gguf
from jaxtool.core.hub_files import TEXT_FILES
from jaxtool.model.config import AttentionBackend, DeviceSums, Dtype, ModelConfig, Remat
from jaxtool.model.gguf_weights import GgufTensors, check_gguf_header, config_from_gguf, load_gguf
from jaxtool.model.hf_weights import check_hf_header, load_hf, read_model_config
from jaxtool.model.param_axes import check_divides, param_axes, param_shapes
from jaxtool.model.transformer import Params, init_params
from jaxtool.parallel.axis_rules import Sharding


class PolicySource(Protocol):
    """Gives parameters, placed by `sharding`, and the config they belong to."""

    def load(
        self, sharding: Sharding, seed: int, dtype: Dtype = "float32"
    ) -> tuple[ModelConfig, Params]:
        """Parameters of `dtype`: float32 to train them, bfloat16 where adapters leave them as they are."""
        ...

    def model_config(self) -> ModelConfig:
        """Without reading a weight: what `load` would give first."""
        ...

    def check_header(self) -> str:
        """Checks what the files say of themselves against the model, and reads no tensor.

        Returns:
          One line for people: where the weights are, and how many tensors.
        """
        ...


class RunOptions(Protocol):
    """What `run_options` reads; sources of files and ModelConfig have it."""

    @property
    def compute_dtype(self) -> Dtype: ...
    @property
    def remat(self) -> Remat: ...
    @property
    def attention(self) -> AttentionBackend: ...
    @property
    def scans_layers(self) -> bool: ...
    @property
    def attention_block(self) -> int | None: ...
    @property
    def device_sums(self) -> DeviceSums: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomInit:
    """A policy from scratch."""

    config: ModelConfig

    def load(
        self, sharding: Sharding, seed: int, dtype: Dtype = "float32"
    ) -> tuple[ModelConfig, Params]:
        """The same numbers on every mesh: they depend on `seed` only."""
        check_divides(self.config, sharding)
        placed = sharding.tree(param_axes(param_shapes(self.config)))
        init = jax.jit(_random_params, static_argnums=(0, 1), out_shardings=placed)
        return self.config, init(self.config, dtype, rng.key(seed, "params"))

    def model_config(self) -> ModelConfig:
        return self.config

    def check_header(self) -> str:
        return "random numbers, drawn at the start"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GgufFile:
    """A llama.cpp file."""

    path: str | None = None  # None: SmolLM2-135M-Instruct out of its wheel
    compute_dtype: Dtype = "float32"  # the files do not say
    remat: Remat = "none"  # "block" saves memory, costs a third more time
    attention: AttentionBackend = "auto"  # of the learner
    scans_layers: bool = True  # see ModelConfig
    attention_block: int | None = None  # see ModelConfig; 256 for rows of 16k tokens
    device_sums: DeviceSums = "float32"  # see ModelConfig; of the learner

    def load(
        self, sharding: Sharding, seed: int, dtype: Dtype = "float32"
    ) -> tuple[ModelConfig, Params]:
        """`seed` is not used: every number is in the file."""
        config, params = load_gguf(self._path, sharding=sharding, dtype=dtype)
        return _with_run_options(config, self), params

    def model_config(self) -> ModelConfig:
        return _with_run_options(config_from_gguf(GgufTensors(open_gguf(self._path))), self)

    def check_header(self) -> str:
        return f"{check_gguf_header(self._path)} tensors in {self.path or self._path}"

    @property
    def _path(self) -> str | Path:
        return find_smollm2() if self.path is None else local_copy(self.path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HfDirectory:
    """config.json and safetensors, as Hugging Face stores a model."""

    path: str
    compute_dtype: Dtype = "float32"  # bfloat16 on accelerators
    remat: Remat = "none"  # "block" saves memory, costs a third more time
    attention: AttentionBackend = "auto"  # of the learner
    scans_layers: bool = True  # see ModelConfig
    attention_block: int | None = None  # see ModelConfig; 256 for rows of 16k tokens
    device_sums: DeviceSums = "float32"  # see ModelConfig; of the learner
    ignored_fields: tuple[str, ...] = ()  # fields of config.json known to change nothing
    # What the directory must hold; its run options are not read. With it a run can be planned on a
    # machine that has no weights.
    expected: ModelConfig | None = None

    def load(
        self, sharding: Sharding, seed: int, dtype: Dtype = "float32"
    ) -> tuple[ModelConfig, Params]:
        """`seed` is not used: every number is in the files."""
        path = local_copy(self.path)
        self._config_in(path)  # another model than expected is refused before its weights are read
        config, params = load_hf(
            path, sharding=sharding, ignored_fields=self.ignored_fields, dtype=dtype
        )
        return _with_run_options(config, self), params

    def model_config(self) -> ModelConfig:
        """Of config.json, or of `expected` where there is no directory; a bucket is not asked for it then.

        Raises:
          ValueError: both are there and differ; the message names the fields.
        """
        is_away = bucket_url(self.path) is not None or not Path(self.path).exists()
        if self.expected is not None and is_away:
            return _with_run_options(self.expected, self)
        return self._config_in(local_copy(self.path, TEXT_FILES))

    def _config_in(self, path: Path) -> ModelConfig:
        """Of the directory's config.json, which must agree with `expected`."""
        config = read_model_config(path, self.ignored_fields)
        config = _with_run_options(config, self)
        if self.expected is not None:
            _check_expected(config, _with_run_options(self.expected, self), self.path)
        return config

    def check_header(self) -> str:
        """In a bucket nothing of the weights is looked at: they are copied when the run begins."""
        if (url := bucket_url(self.path)) is not None:
            self._config_in(local_copy(self.path, TEXT_FILES))
            count = sum(name.endswith(".safetensors") for name in names_below(url))
            return f"{count} safetensors files in {self.path}, copied here when the run begins"
        return f"{check_hf_header(self.path, self.ignored_fields)} tensors in {self.path}"


def _random_params(config: ModelConfig, dtype: Dtype, key: jax.Array) -> Params:
    return jax.tree.map(lambda x: x.astype(dtype), init_params(config, key))


def _check_expected(found: ModelConfig, expected: ModelConfig, path: str) -> None:
    wanted = dataclasses.asdict(expected)
    other = {k: v for k, v in dataclasses.asdict(found).items() if v != wanted[k]}
    if other:
        raise ValueError(
            f"{path!r} holds another model than HfDirectory.expected: "
            + ", ".join(
                f"{name}={value} instead of {wanted[name]}" for name, value in other.items()
            )
        )


def run_options(source: RunOptions) -> dict[str, Any]:
    """How the model is computed, by field name: what weights do not say, and what differs from run to run."""
    names = (
        *("compute_dtype", "remat", "attention", "scans_layers", "attention_block"),
        "device_sums",
    )
    return {name: getattr(source, name) for name in names}


def _with_run_options(config: ModelConfig, source: GgufFile | HfDirectory) -> ModelConfig:
    return dataclasses.replace(config, **run_options(source))
