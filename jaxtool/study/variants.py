"""The two suites of the study: a tiny policy on arithmetic, whose optimum is known, and SmolLM2 on calculations.

The second is the first one smaller, on a real pretrained policy: "prompted" stands where the first has no variant,
since a chat model can call the tool before any training.
"""

from jaxtool.study.suite import RECIPE, Suite, Variant


def _run(name: str, what: str, start: str = "cold_start") -> Variant:
    return Variant(name=name, files=(f"{name}.gin",), start=start, what=what)


def _over(run: str, name: str, what: str, *params: str, file: str = "", start: str = "") -> Variant:
    """`run` with bindings or a file of gin_configs/algos over it."""
    layer = (f"gin_configs/algos/{file}",) if file else ()
    return Variant(
        name=name,
        files=(f"{run}.gin", *layer),
        params=params,
        start=start or "cold_start",
        what=what,
    )


_C, _LR = "OtcGrpoReward.c", "OptimizerConfig.learning_rate"
_SEQUENCE_MEAN = "@jaxtool.learn.aggregation_choices.SequenceMean()"

_DEFAULT = (
    Variant(
        name="base",
        files=("base.gin",),
        start=None,
        renderer="arithmetic_text",
        what="easy arithmetic by heart, no tool",
    ),
    Variant(
        name="cold_start_half",
        files=("cold_start.gin",),
        start="base",
        renderer="arithmetic_lookup",
        what="the first 400 steps of the cold start",
    ),
    # 400 steps alone leave the copying of a question into a program to the luck of the seed.
    Variant(
        name="cold_start",
        files=("cold_start.gin",),
        params=("STEPS = 200",),
        start="cold_start_half",
        renderer="arithmetic_lookup",
        what="the cold start alone (ReTool, section 2.2)",
    ),
    _run("retool_grpo", "ReTool's reward, GRPO"),
    _run("otc_grpo", "OTC-GRPO of the paper"),
    # Learn the tool first, then save calls. The first 20 steps take needed calls away with the others:
    # 120 steps win them back, 60 do not in every seed.
    _over(
        "otc_no_std",
        "otc_after_grpo",
        "no std, 120 steps from ReTool-GRPO",
        "STEPS = 120",
        start="retool_grpo",
    ),
    _run("text_rl", "RL without a tool, from the base", start="base"),
    _run("torl", "RL with the tool, no cold start", start="base"),
    _run("retool_ppo", "ReTool's reward, PPO with a critic"),
    _run("otc_ppo", "OTC-PPO"),
)


def _cold_start(name: str, what: str, *params: str) -> Variant:
    return Variant(
        name=name,
        files=("cold_start.gin",),
        params=params,
        start="base",
        renderer="arithmetic_lookup",
        what=what,
    )


_ABLATIONS = (
    _run("otc_no_std", "OTC-GRPO, advantages keep the rewards' scale"),
    _over("otc_no_std", "otc_after_grpo_60", "no std, 60 steps from GRPO", start="retool_grpo"),
    _over(
        "otc_no_std",
        "otc_after_grpo_kl",
        "the same, KL 0.03 to GRPO's policy",
        "GrpoConfig.kl_coef = 0.03",
        start="retool_grpo",
    ),
    _over(
        "otc_no_std",
        "otc_after_grpo_c9",
        "60 steps from GRPO, c = 9",
        f"{_C} = 9.0",
        start="retool_grpo",
    ),
    _over("otc_shaping", "otc_shaping_after_grpo", "shaping, from GRPO", start="retool_grpo"),
    _over("adatir", "adatir_after_grpo", "AdaTIR, from GRPO", start="retool_grpo"),
    _run("otc_shaping", "bounded advantage shaping in place of a scaled reward"),
    _run("otc_easy_only", "OTC-GRPO where half of the group is right"),
    _run("adatir", "AdaTIR: a penalty on problems mostly solved"),
    _over("otc_shaping", "otc_shaping_strong", "shaping, floor 0.3", "ClippedShaping.floor = 0.3"),
    _over("retool_grpo", "retool_grpo_longer", "GRPO, 120 steps in two legs", start="retool_grpo"),
    _over(
        "retool_grpo",
        "retool_grpo_180",
        "GRPO, 180 steps in two legs",
        "STEPS = 120",
        start="retool_grpo",
    ),
    _over("otc_grpo", "otc_paper_after_grpo", "OTC-GRPO, from ReTool-GRPO", start="retool_grpo"),
    _over("otc_grpo", "otc_c1", "c = 1", f"{_C} = 1.0"),
    _over("otc_grpo", "otc_c9", "c = 9", f"{_C} = 9.0"),
    _over("otc_no_std", "otc_no_std_c1", "no std, c = 1", f"{_C} = 1.0"),
    _over("otc_no_std", "otc_no_std_c9", "no std, c = 9", f"{_C} = 9.0"),
    _over("otc_no_std", "otc_no_std_alpha3", "no std, alpha = 3", "OtcGrpoReward.alpha = 3.0"),
    _over("otc_grpo", "otc_alpha3", "alpha = 3", "OtcGrpoReward.alpha = 3.0"),
    _over("otc_ppo", "otc_ppo_alpha3", "OTC-PPO, alpha = 3", "OtcPpoReward.alpha = 3.0"),
    _over("otc_grpo", "otc_group_minimum", "n of the group alone", file="otc_group_minimum.gin"),
    _over("otc_grpo", "otc_quantile", "n is the lowest tenth", file="otc_quantile.gin"),
    _over("otc_grpo", "otc_k_successes", "n needs two successes", file="otc_k_successes.gin"),
    _over("otc_grpo", "otc_ppo_reward", "GRPO, OTC-PPO's reward", file="otc_ppo_reward.gin"),
    _over("otc_grpo", "otc_linear", "linear decay", file="otc_linear.gin"),
    _over("otc_grpo", "otc_exponential", "exponential decay", file="otc_exponential.gin"),
    _over("otc_grpo", "otc_kl", "KL 0.03 to the cold start", "GrpoConfig.kl_coef = 0.03"),
    _over("retool_grpo", "retool_kl", "GRPO, KL 0.03", "GrpoConfig.kl_coef = 0.03"),
    _over(
        "retool_grpo",
        "retool_sequence_mean",
        "GRPO, every answer weighs the same",
        f"GrpoConfig.aggregation = {_SEQUENCE_MEAN}",
    ),
    _over(
        "otc_grpo",
        "otc_sequence_mean",
        "OTC-GRPO, every answer weighs the same",
        f"GrpoConfig.aggregation = {_SEQUENCE_MEAN}",
    ),
    _over(
        "retool_grpo", "turn_penalty", "0.1 off per call, right or wrong", file="turn_penalty.gin"
    ),
    _over("retool_grpo", "tool_bonus", "tool bonus of public recipes", file="tool_bonus.gin"),
    _over("text_rl", "text_rl_low_rate", "text-only RL, 2e-5", f"{_LR} = 2e-5", start="base"),
    _over("retool_grpo", "retool_low_rate", "GRPO, 3e-5", f"{_LR} = 3e-5"),
    _over("retool_grpo", "retool_high_rate", "GRPO, 3e-4", f"{_LR} = 3e-4"),
    _over("retool_grpo", "retool_top_rate", "GRPO, 1e-3", f"{_LR} = 1e-3"),
    _over("otc_grpo", "otc_low_rate", "OTC-GRPO, 3e-5", f"{_LR} = 3e-5"),
    _over("otc_grpo", "otc_high_rate", "OTC-GRPO, 3e-4", f"{_LR} = 3e-4"),
    _over("otc_grpo", "otc_top_rate", "OTC-GRPO, 1e-3", f"{_LR} = 1e-3"),
    _cold_start("cold_start_200", "a cold start of 200 steps", "STEPS = 200"),
    _over("retool_grpo", "retool_from_200", "GRPO from 200 steps", start="cold_start_200"),
    _over("otc_grpo", "otc_from_200", "OTC-GRPO from 200 steps", start="cold_start_200"),
    # Three of five hard questions answered at once: whether to call at all is what RL has to learn.
    _cold_start(
        "cold_start_unsure",
        "traces that call for two of five hard questions",
        "tools/ArithmeticDemonstrations.calls_when_hard = (0.6, 0.25, 0.15)",
    ),
    _over("retool_grpo", "retool_from_unsure", "GRPO from it", start="cold_start_unsure"),
    _over("otc_grpo", "otc_from_unsure", "OTC-GRPO from it", start="cold_start_unsure"),
    _over("otc_no_std", "otc_no_std_from_unsure", "without std", start="cold_start_unsure"),
    _over("otc_shaping", "otc_shaping_from_unsure", "shaping", start="cold_start_unsure"),
    _over("otc_easy_only", "otc_easy_only_from_unsure", "easy only", start="cold_start_unsure"),
    _over("otc_ppo", "otc_ppo_from_unsure", "OTC-PPO from it", start="cold_start_unsure"),
)

ARITHMETIC = Suite(
    folder="gin_configs/study",
    default=_DEFAULT,
    ablations=_ABLATIONS,
    beside=("cold_start", "retool_grpo", "otc_grpo", "otc_after_grpo"),
    equal_steps="retool_grpo_180",
    mental_renderer="arithmetic_mental",
)


def _chat(name: str, what: str, *algorithms: str, start: str = "cold_start") -> Variant:
    """SmolLM2's recipe with files of gin_configs/algos over it."""
    layers = (f"gin_configs/algos/{file}" for file in algorithms)
    return Variant(name=name, files=(RECIPE, *layers), start=start, what=what)


SMOLLM2 = Suite(
    folder="gin_configs/study_smollm2",
    default=(
        Variant(
            name="base",
            files=(RECIPE,),
            start=None,
            is_trained=False,
            renderer="two_shot_text",
            what="the checkpoint, two examples without a tool",
        ),
        Variant(
            name="prompted",
            files=(RECIPE,),
            start="base",
            is_trained=False,
            what="the checkpoint, two examples with the tool",
        ),
        Variant(
            name="cold_start",
            files=("cold_start.gin",),
            start="base",
            renderer="two_shot_code",
            what="the cold start alone (ReTool, section 2.2)",
        ),
        _chat("retool_grpo", "ReTool's reward, GRPO"),
        _chat("otc_grpo", "OTC-GRPO of the paper", "otc_grpo.gin"),
        _chat("otc_after_grpo", "no std, from ReTool-GRPO", "otc_no_std.gin", start="retool_grpo"),
        _run("text_rl", "RL without a tool, from the base", start="base"),
        _run("torl", "RL with the tool, no cold start", start="prompted"),
    ),
    ablations=(
        _run("retool_ppo", "ReTool's reward, PPO with a critic"),
        _run("otc_ppo", "OTC-PPO"),
        _chat("otc_no_std", "OTC-GRPO, advantages keep the rewards' scale", "otc_no_std.gin"),
        _chat("otc_shaping", "bounded advantage shaping", "otc_shaping.gin"),
        _chat("retool_grpo_longer", "GRPO, 200 steps in two legs", start="retool_grpo"),
    ),
    beside=("prompted", "cold_start", "retool_grpo", "otc_grpo", "otc_after_grpo"),
    equal_steps="retool_grpo_longer",
    # Not two_shot_code with the answer begun: half of the right answers then end without a box.
    mental_renderer="two_shot_text",
    mental_problems=128,
    problems=300,
    token_budgets=(100_000, 300_000, 500_000, 700_000),
)
SUITES = {"arithmetic": ARITHMETIC, "smollm2": SMOLLM2}
