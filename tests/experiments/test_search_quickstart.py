"""The quickstart with the search server: one step of every stage ends with its lines; wrong flags are one line."""

import json

import pytest
from test_any_machine import SMALL
from test_entry_points import params, refusal, start

from jaxtool.cli import quickstart
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.train.rollout_worker import load_text
from jaxtool.train.run_files import load_rl_run


@pytest.fixture(scope="module")
def small_search_quickstart(tmp_path_factory):
    """Every stage of `--tool search`, one step each."""
    workdir = tmp_path_factory.mktemp("search")
    done = start(
        "experiments.quickstart",
        *("--tool", "search", "--workdir", workdir, "--steps", 1, "--problems", 8),
        *params(*SMALL),
    )
    return workdir, done.stdout


@pytest.mark.nightly
@pytest.mark.slow
def test_a_small_search_quickstart_ends_with_its_lines(small_search_quickstart):
    workdir, said = small_search_quickstart
    assert "Searches beyond those needed / missing, an answer, greedy" in said
    assert "OTC-GRPO against GRPO, greedy: " in said
    assert "; the questions need " in said
    assert "docs/experiments.md, 'The search quickstart'." in said
    results = json.loads((workdir / "results.json").read_text())
    assert results["tool"] == "search"
    # Of 8 questions 2 or 3 of each level but known_hop, which has 1 or none.
    assert 0.6 < results["calls_needed"] < 1.4
    for variant in ("cold_start", "grpo", "otc_grpo"):
        part = results["variants"][variant]["sampled"]
        assert (part["answers"], part["lost"]) == (8, 0)
        assert results["call_use"][variant]["sampled"]["all"]["answers"] == 8
    for stage in ("pretrain", "cold_start", "grpo", "otc_grpo"):
        rows = (workdir / stage / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in rows] == [0]
    row = json.loads((workdir / "otc_grpo" / "metrics.jsonl").read_text())
    assert row["tokens/reprefilled_total"] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--steps", 0), "--steps 0 must be >= 1"),
        (("--gin_param", "Search.addreses = ('a:1',)"), "addreses"),
        (("--gin_param", "FactTask.known = 0.9"), "the shares of the levels must sum to 1"),
        (("--gin_param", "Search.addresses = ('a:1',)"), "give one of them"),
    ],
)
def test_wrong_flags_of_the_search_quickstart_end_in_one_line(
    flags, message, tmp_path, monkeypatch
):
    workdir = ("--workdir", tmp_path / "q")
    said = refusal(monkeypatch, quickstart.main, "--tool", "search", *workdir, *flags)
    assert message in said
    assert not (tmp_path / "q").exists()


def test_a_tool_that_there_is_not_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["quickstart", "--tool", "my_tools:convert"])
    with pytest.raises(SystemExit, match="2"):
        quickstart.main()
    assert "invalid choice: 'my_tools:convert'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", quickstart.KINDS.values(), ids=lambda kind: kind.name)
def test_every_stage_of_a_kind_has_its_run_file(kind):
    assert all(kind.file(stage).is_file() for stage in kind.stages)
    assert kind.parent("pretrain") is None
    assert kind.variants[:3] == ("cold_start", "grpo", "otc_grpo")


@pytest.mark.parametrize("name", ["search", "two_tools"])
def test_renderer_tools_prices_and_budgets_of_the_run_files_go_together(name):
    kind = quickstart.KINDS[name]
    for stage in kind.variants[1:]:
        config = load_rl_run([kind.file(stage)])
        renderer, tokenizer = load_text(config)
        wanted = {"search"} | ({"python"} if kind.uses_sandbox else set())
        assert {spec.name for spec in renderer.tools} == wanted
        assert tokenizer.vocab_size == config.policy.model_config().vocab_size
        prices = dict(config.call_cost.per_tool)
        if stage.startswith("cheap_"):
            cheap = stage.removeprefix("cheap_")
            assert min(prices, key=prices.get) == cheap
        else:
            assert set(prices.values()) <= {1.0}


@pytest.mark.parametrize("kind", quickstart.KINDS.values(), ids=lambda kind: kind.name)
def test_the_section_that_a_quickstart_names_is_there(kind):
    page = (REPOSITORY_ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert f"# {kind.section}\n" in page
