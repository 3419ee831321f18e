"""Programs of a plan that nobody compiled, and what stays in memory beside them."""

from helpers.small_runs import cold_start_of, rl_config

from jaxtool.learn.sft import SftConfig
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.plan.chips import CHIPS, GIB
from jaxtool.plan.compiled import ProgramPlan
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.train.sft_loop import SftRunConfig

V5E = CHIPS["v5e"]
RESIDENT = {
    "parameters": 2.0 * GIB,
    "optimizer state": 4.0 * GIB,
    "reference": 0.0,
    "gradients": 2.0 * GIB,
    "published copy": 1.0 * GIB,
    "KV cache": 8.0 * GIB,
}
HOST = {"data": 2, "fsdp": 1, "context": 1, "tensor": 2}


def program(name, gib, **fields) -> ProgramPlan:
    return ProgramPlan(name=name, shape="", temporaries=gib * GIB, **fields)


def config_of(tmp_path, **fields):
    """2 x 8 answers of up to 24 tokens, 8 cache rows, windows of 8 steps, blocks of 4 rows of 32 tokens."""
    return rl_config(tmp_path, **fields)


def small_cold_start(tmp_path) -> SftRunConfig:
    """5 + 3 demonstrations a step, blocks of 4 rows of 32 tokens."""
    plain = config_of(tmp_path, mesh=MeshConfig(fsdp=2, tensor=2))
    sft = SftConfig(micro_batch_rows=4, lm_head_chunk=256)
    return cold_start_of(plain, [5, 3], DemonstrationFile(path="none"), sft=sft)
