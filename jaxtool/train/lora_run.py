"""What a run with LoRA keeps besides its checkpoints: proof of its frozen policy, and its results.

A checkpoint holds the adapter and its optimizer state. The frozen policy is not in it: it is loaded again
from where it came from, and a sum of all its bits says whether it is the same.
"""

from pathlib import Path
from typing import Any

import jax

from jaxtool.core.trees import bit_sum
from jaxtool.learn.policy_view import PolicyView
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import FrozenPolicy, merged, merged_in_place
from jaxtool.model.peft import save_peft
from jaxtool.model.sources import HfDirectory, PolicySource
from jaxtool.model.transformer import Params
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_arrays import fetch
from jaxtool.rundir.best_policy import best_folder, is_new_best, prune_best
from jaxtool.rundir.checkpoints import check_can_save, save_policy
from jaxtool.rundir.kept_policies import KeepPolicies, kept_policy

_BIT_SUM = "base"  # its key in checkpoints


def frozen_record(frozen: FrozenPolicy | None) -> dict[str, Any]:
    """The part of a checkpoint's JSON that names the frozen policy; empty without LoRA."""
    return {} if frozen is None else {_BIT_SUM: int(fetch(bit_sum(frozen.params)))}


def check_frozen(frozen: FrozenPolicy | None, meta: dict[str, Any]) -> None:
    """Raises ValueError if a checkpoint's adapter belongs to other parameters than `frozen`."""
    now = frozen_record(frozen)
    if now and meta[_BIT_SUM] != now[_BIT_SUM]:
        raise ValueError(
            f"the policy that this run began with has changed (bit sum {meta[_BIT_SUM]} in the "
            f"checkpoint, {now[_BIT_SUM]} now): put it back, or start over in another --workdir"
        )


def save_kept(
    workdir: Path,
    step: int,
    steps: int,
    keep: KeepPolicies | None,
    trained: Params,
    view: PolicyView,
    model: ModelConfig,
    sharding: Sharding,
    *,
    may_be_best: bool = False,
) -> None:
    """Saves the policy after `step` of `steps` steps if it is one to keep, with LoRA merged.

    By its number into WORKDIR/policies/STEP: the first is none, and the last is the run's own. As the best into
    WORKDIR/policies/best_STEP (`best_policy`), after its row of metrics. A run that is resumed calls this again
    before its first step. `trained` stays as it is.
    Several hosts call it together. While it is written, a policy with LoRA needs the memory of a second one.

    Args:
      may_be_best: the step was validated, or the run was resumed after it.
    """
    if keep is None:
        return
    looks_for_best = keep.best and may_be_best
    folders: list[Path] = []
    if step not in (0, steps) and keep.is_kept(step):
        folders.append(kept_policy(workdir, step))
    if looks_for_best and hosts.agree(lambda: is_new_best(workdir, step)):
        folders.append(best_folder(workdir, step))
    if folders:
        policy = view.full(trained)
        whole = policy if view.frozen is None else merged(policy, sharding)
        for folder in folders:
            save_policy(folder, whole, model)
        keep.prune(workdir)
    if looks_for_best:
        hosts.agree(lambda: prune_best(workdir, step))


def save_result(
    workdir: Path,
    trained: Params,
    view: PolicyView,
    model: ModelConfig,
    sharding: Sharding,
    source: PolicySource,
) -> None:
    """Saves the policy in WORKDIR/policy; with LoRA merged, and the adapter alone in WORKDIR/adapter.

    Several hosts call it together. The frozen policy may be gone afterwards: a run needs no second one
    at its end.
    """
    policy, frozen = view.full(trained), view.frozen
    check_can_save(trained, f"the policy of {workdir}")
    if frozen is not None:
        adapter = jax.tree.map(fetch, trained)
        name = source.path if isinstance(source, HfDirectory) else None
        hosts.agree(lambda: save_peft(workdir / "adapter", adapter, frozen.config, base_model=name))
        # A bfloat16 model has multiplied by just the numbers that frozen bfloat16 weights give.
        if frozen.config.frozen_dtype in ("float32", model.compute_dtype):
            policy = merged_in_place(frozen, trained, sharding)
        else:
            policy = merged(policy, sharding)
    save_policy(workdir / "policy", policy, model)
