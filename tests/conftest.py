"""Settings of every test: CPU only, 8 virtual devices, and no silent broadcasting over ranks."""

import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile hundreds of small programs and run each a few times: compiling is what they wait for.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

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


_SLOWEST_FIRST = ("parallel", "experiments", "run", "decode", "learn", "model", "rollout", "tools")


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist would begin with the files that hold the most tests, and end with the slow ones.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow folders come first, so that no process is left alone with a slow file at the end."""
    order = {name: index for index, name in enumerate(_SLOWEST_FIRST)}
    folders = pathlib.Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(folders).parts[0]
        return order.get(folder, len(order))

    items.sort(key=rank)
