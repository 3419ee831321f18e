"""A model on the Hugging Face hub as a source of weights: downloaded once, then read as a directory.

Before a run loads its weights only config.json is downloaded.
Not covered: data sets (`jaxtool.data.hub`), the tokenizer (`jaxtool.train.sources.HubTokenizer`).
"""

import dataclasses
from pathlib import Path

from jaxtool.core.hub_files import TEXT_FILES, endpoint, hub_snapshot
from jaxtool.model.config import AttentionBackend, DeviceSums, Dtype, ModelConfig, Remat
from jaxtool.model.sources import HfDirectory, run_options
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubModel:
    """config.json and safetensors of a repository."""

    repository: str  # org/name
    revision: str | None = None  # a branch, a tag or a commit; None: main
    compute_dtype: Dtype = "float32"  # bfloat16 on accelerators
    remat: Remat = "none"  # "block" saves memory, costs a third more time
    attention: AttentionBackend = "auto"  # of the learner
    scans_layers: bool = True  # see ModelConfig
    attention_block: int | None = None  # see ModelConfig; 256 for rows of 16k tokens
    device_sums: DeviceSums = "float32"  # see ModelConfig; of the learner
    ignored_fields: tuple[str, ...] = ()  # fields of config.json known to change nothing

    def load(
        self, sharding: Sharding, seed: int, dtype: Dtype = "float32"
    ) -> tuple[ModelConfig, Params]:
        """Downloads what is not here yet; `seed` is not used."""
        return self._directory(self.download()).load(sharding, seed, dtype)

    def model_config(self) -> ModelConfig:
        """Of config.json, which alone is downloaded.

        Raises:
          OSError: the repository is not on this machine and cannot be had; one line with what to do.
        """
        return self._directory(self._snapshot(("config.json",))).model_config()

    def check_header(self) -> str:
        """Nothing of the weights is looked at: they may not be here yet."""
        return f"{self} on {endpoint()}, downloaded when the run begins"

    def download(self) -> Path:
        """The directory with config, weights and tokenizer."""
        found = self._snapshot(TEXT_FILES + _WEIGHTS)
        if not any(found.glob("*.safetensors")):
            raise OSError(
                f"{self} has no safetensors on {endpoint()}, or they are not on this machine and there is no "
                f"network: run `hf download {self.repository} --local-dir DIR` where there is one, and name DIR"
            )
        return found

    def download_text(self) -> Path:
        """The directory with config and tokenizer; weights may be there as well."""
        return self._snapshot(TEXT_FILES)

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    def _directory(self, path: Path) -> HfDirectory:
        return HfDirectory(
            path=str(path),
            ignored_fields=self.ignored_fields,
            **run_options(self),
        )

    def _snapshot(self, patterns: tuple[str, ...]) -> Path:
        found = hub_snapshot(self.repository, self.revision, patterns, "weights")
        if not (found / "config.json").is_file():
            raise OSError(
                f"{self} on {endpoint()} has no config.json: it is no model in these files"
            )
        return found
