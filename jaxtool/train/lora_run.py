"""What a run with LoRA keeps besides its checkpoints: proof of its base, and its results.

A checkpoint holds the adapter and its optimizer state. The base is not in it: it is loaded again from
where it came from, and a sum of all its bits says whether it is the same.
"""

from pathlib import Path
from typing import Any

import jax

from jaxtool.core.trees import bit_sum
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import LoraBase, joined, merged, merged_in_place
from jaxtool.model.peft import save_peft
from jaxtool.model.sources import HfDirectory, PolicySource
from jaxtool.model.transformer import Params
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_arrays import fetch
from jaxtool.rundir.checkpoints import save_policy


def base_record(base: LoraBase | None) -> dict[str, Any]:
    """The part of a checkpoint's JSON that names the base; empty without LoRA."""
    return {} if base is None else {"base": int(fetch(bit_sum(base.params)))}


def check_base(base: LoraBase | None, meta: dict[str, Any]) -> None:
    """Raises ValueError if a checkpoint's adapter belongs to other parameters than `base`."""
    now = base_record(base)
    if now and meta["base"] != now["base"]:
        raise ValueError(
            f"the policy that this run began with has changed (bit sum {meta['base']} in the "
            f"checkpoint, {now['base']} now): put it back, or start over in another --workdir"
        )


def save_result(
    workdir: Path,
    trained: Params,
    base: LoraBase | None,
    model: ModelConfig,
    sharding: Sharding,
    source: PolicySource,
) -> None:
    """Saves the policy in WORKDIR/policy; with LoRA merged, and the adapter alone in WORKDIR/adapter.

    Several hosts call it together. The base may be gone afterwards: a run needs no second one at its end.
    """
    policy = joined(trained, base)
    if base is not None:
        adapter = jax.tree.map(fetch, trained)
        name = source.path if isinstance(source, HfDirectory) else None
        hosts.agree(lambda: save_peft(workdir / "adapter", adapter, base.config, base_model=name))
        # A bfloat16 model has multiplied by just the numbers that a bfloat16 base gives.
        if base.config.base_dtype in ("float32", model.compute_dtype):
            policy = merged_in_place(base, trained, sharding)
        else:
            policy = merged(policy, sharding)
    save_policy(workdir / "policy", policy, model)
