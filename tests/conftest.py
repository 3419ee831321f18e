"""Settings of every test: CPU only, 8 virtual devices, and no silent broadcasting over ranks."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Shapes and dtypes in these signatures are checked at every call; must come before their import.
install_import_hook(
    ["jaxtool.core.masked", "jaxtool.algos.advantages", "jaxtool.algos.policy_loss"],
    "beartype.beartype",
)
