"""Settings of every test: CPU only, 8 virtual devices, and no silent broadcasting over ranks."""

import os
from importlib.metadata import version

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"  # a test reads XLA's warnings
# Tests compile hundreds of small programs and run each a few times: compiling is what they wait for.
# The older fusions halve it; jax after 0.10 has them no more and ends at a flag that it does not know.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    # Programs are small: to cut one into parts that are compiled side by side costs more than it saves.
    + " --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false"
    * version("jax").startswith("0.10."),
)

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Shapes and dtypes in these signatures are checked at every call; must come before their import.
install_import_hook(
    [
        "jaxtool.core.masked",
        "jaxtool.algos.advantages",
        "jaxtool.algos.aggregation",
        "jaxtool.algos.gae",
        "jaxtool.algos.kl",
        "jaxtool.algos.off_policy",
        "jaxtool.algos.policy_loss",
        "jaxtool.algos.ratios",
        "jaxtool.algos.value_loss",
    ],
    "beartype.beartype",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with a slow test first; each stays whole, since its tests share what is compiled.

    What is marked `nightly` is skipped, and says so, unless it is asked for with -m nightly.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    if "nightly" not in (config.option.markexpr or ""):
        for item in items:
            if item.get_closest_marker("nightly"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: pytest -m nightly runs it"))
    items.sort(key=lambda item: item.path not in slow)
