"""Studies of two suites, as tests plan them; nothing is trained."""

from pathlib import Path

from jaxtool.study import runner
from jaxtool.study.variants import ARITHMETIC


def study_of(suite, workdir="/nowhere", **fields):
    return runner.Study(
        workdir=Path(workdir), suite=suite, variants=suite.select([], "all"), **fields
    )


def small_study(tmp_path, names="otc_grpo,otc_after_grpo,text_rl,torl", seeds=(0, 1)):
    variants = ARITHMETIC.select([*names.split(","), "retool_grpo"])
    return runner.Study(workdir=tmp_path, suite=ARITHMETIC, variants=variants, seeds=seeds)
