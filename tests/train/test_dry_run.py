"""The dry run: everything before the first step, with the run's own checks."""

import contextlib
import json

import pytest
from rich.console import Console

from jaxtool.config.loader import ConfigError
from jaxtool.core.types import Origin
from jaxtool.train import dry_run, run_files

RL = "gin_configs/runs/quickstart_grpo.gin"
SFT = "gin_configs/runs/quickstart_cold_start.gin"
# The tests have eight devices; without the tool nothing waits for a sandbox.
OVER = {
    RL: ("MeshConfig.fsdp = 8", "RlConfig.renderer = 'arithmetic_text'"),
    SFT: ("SftConfig.micro_batch_rows = 16", "SftConfig.last_block_rows = None"),
}


def test_an_rl_run_is_checked_in_the_runs_own_order_and_writes_nothing(tmp_path, monkeypatch):
    config = run_files.load_run([RL], OVER[RL])
    monkeypatch.chdir(tmp_path)
    found = list(dry_run.dry_run(config))
    assert [check.name for check in found] == [
        *("tokenizer", "mesh", "weights", "vocabulary", "memory"),
        *("trained", "learner state", "learner"),
        *("judge", "prompts", "question", "sandbox"),
    ]
    texts = {check.name: check.text for check in found}
    assert "569,216 parameters, 0.002 GiB" in texts["weights"]
    assert "128 rows of 128 tokens" in texts["memory"]
    assert texts["trained"] == "all 569,216 parameters"
    # On eight devices: parameters, two moments and gradients are 4 x 4 x 569,216 / 8 bytes.
    assert texts["learner state"].startswith("0.001 GiB a device (parameters 0.000, optimizer")
    assert texts["sandbox"].startswith("none")
    question = next(check for check in found if check.name == "question")
    assert question.shown is not None
    assert {origin for _, origin in question.shown.tokens} == {Origin.PROMPT}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", [RL, SFT])
def test_it_says_how_much_an_adapter_trains_and_refuses_a_target_that_no_parameter_has(file):
    owner = "RlConfig" if file == RL else "SftRunConfig"
    rule = "OptimizerConfig.rule = @jaxtool.learn.optimizer.AdamW()"  # a cold start's is Muon
    params = [*OVER[file], f"{owner}.lora = @jaxtool.model.lora.LoraConfig()", rule]

    def load(targets):
        names = [*params, "LoraConfig.rank = 2", f"LoraConfig.targets = {targets}"]
        return run_files.load_run([file], names)

    found = {check.name: check.text for check in dry_run.dry_run(load("('q', 'down')"))}
    model = load("('q',)").policy.config
    inputs = (model.d_model, model.num_heads * model.head_dim, model.d_ff, model.d_model)
    trained = 2 * model.num_layers * sum(inputs)
    assert found["trained"] == f"{trained:,} in an adapter, 569,216 stay frozen"
    with pytest.raises(ConfigError, match=r"LoraConfig.targets.*'q' or 'k'.*got 'q_proj'"):
        load("('q', 'q_proj')")


def test_a_cold_start_shows_a_demonstration_of_each_stream():
    found = list(dry_run.dry_run(run_files.load_run([SFT], OVER[SFT])))
    assert [check.name for check in found][-3:] == ["demonstrations", *["demonstration"] * 2]
    assert "112 of the first step in" in found[-3].text
    for check in found[-2:]:
        assert check.shown is not None
        origins = [origin for _, origin in check.shown.tokens]
        assert origins[0] is Origin.PROMPT
        assert origins[-1] is Origin.POLICY
        learned = origins.count(Origin.POLICY)
        assert check.text.endswith(f"of which {learned} are learned")


@pytest.mark.parametrize(
    ("file", "params", "message", "last"),
    [
        (RL, ["ModelConfig.vocab_size = 100"], "do not belong together", "weights"),
        (RL, ["EngineConfig.max_tokens = 100"], "raise it to", "learner"),
        (RL, ["MeshConfig.tensor = 3"], "does not divide", "tokenizer"),
        (RL, ["EngineConfig.memory_gib = 0.001"], "rows fit into 90%", "vocabulary"),
        (RL, ["Schedule.pool = 16", "Schedule.problems_per_step = 16"], None, "sandbox"),
        (SFT, ["ModelConfig.num_layers = 100_000_000"], "learner's state takes", "trained"),
        (SFT, ["ModelConfig.vocab_size = 100"], "do not belong together", "tokenizer"),
        (SFT, ["PackConfig.row_tokens = 8"], "8", "learner state"),
    ],
)
def test_it_ends_at_the_first_mistake_as_the_run_would(file, params, message, last):
    config = run_files.load_run([file], [*OVER[file], *params])
    found = []
    expected = pytest.raises(ValueError, match=message) if message else contextlib.nullcontext()
    with expected:
        found.extend(dry_run.dry_run(config))
    assert (found[-1].name if found else None) == last


def test_tokens_are_marked_by_writer_where_there_is_no_terminal(tmp_path):
    shown = dry_run.Shown(
        tokens=(
            ("1+", Origin.PROMPT),
            ("1=", Origin.PROMPT),
            ("[b]", Origin.POLICY),
            ("2", Origin.TOOL),
        )
    )
    check = dry_run.Check(name="demonstration", text="of [it]", shown=shown)
    with (tmp_path / "plain.txt").open("w") as file:
        dry_run.print_check(check, Console(file=file))
    lines = (tmp_path / "plain.txt").read_text().splitlines()
    assert lines == ["demonstration  of [it]", "[prompt]1+1=[policy][b][tool]2"]
    with (tmp_path / "colour.txt").open("w") as file:
        dry_run.print_check(check, Console(file=file, force_terminal=True, color_system="standard"))
    text = (tmp_path / "colour.txt").read_text()
    assert "\x1b[36m1+\x1b[0m\x1b[4;36m1=" in text  # cyan; every other token is underlined
    row = dry_run.as_row(check)
    assert json.loads(json.dumps(row))["tokens"][2] == ["[b]", "policy"]
