"""`experiments.evaluate --suite`: rows are listed without weights, asked under the suite's condition, and gone on with."""

import json
import re

import pytest

from jaxtool.cli import evaluate
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rundir.answer_files import Condition, read_answers, read_settings
from jaxtool.rundir.checkpoints import save_policy
from jaxtool.study import suite_rows
from jaxtool.study.suite_files import load_suite
from jaxtool.train import run_files

RUN = "gin_configs/runs/quickstart_grpo.gin"
SUITE = """
title = "Sums"
paper = "none"
notes = ["a note"]

[sets.easy]
layout = "plain"

[sets.other]
layout = "plain"

[[tables]]
name = "main"
caption = "Sums"
citation = "none, table 1"
sets = ["easy"]
figures = ["accuracy", "tc"]
unit = "percent"
samples = 2
temperature = 0.9
top_p = 0.8
gin_files = ["gin_configs/runs/quickstart_grpo.gin", "gin_configs/mesh/any.gin"]
gin_params = ["RolloutConfig.max_response_tokens = 16", "EngineConfig.decode_rows = 8", "EngineConfig.cache_rows = 8"]

[[tables.rows]]
name = "tools"
method = "prompted"
model = "tiny"
tools = true
calls = 1
weights = "runs/tiny"
paper.accuracy = { easy = 40.0 }

[[tables.rows]]
name = "text"
method = "prompted"
model = "tiny"
tools = false
weights = "runs/tiny"

[[tables]]
name = "elsewhere"
caption = "Elsewhere"
citation = "none, table 2"
sets = ["other"]
figures = ["accuracy"]
unit = "fraction"
samples = 1
temperature = 0
gin_files = ["gin_configs/runs/quickstart_grpo.gin"]

[[tables.rows]]
name = "closed"
method = "prompted"
model = "closed"
tools = false
why = "nobody has it"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A suite, a policy that knows nothing, and a set of three questions."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "sums.toml").write_text(SUITE)
    rows = [{"question": f"{n}+{n}", "answer": str(2 * n)} for n in (1, 2, 3)]
    (folder / "easy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = run_files.load_rl_run([RUN]).policy
    assert isinstance(source, RandomInit)
    model, params = source.load(single_device(), 0)
    save_policy(folder / "tiny", params, model)
    return folder


def run(monkeypatch, place, *flags):
    monkeypatch.setattr("sys.argv", ["evaluate", "--suite", str(place / "sums.toml"), *flags])
    evaluate.main()


def asked_rows(place, name, workdir):
    data = ("--data", f"easy={place / 'easy.jsonl'}")
    return ("--policy", f"{name}={place / 'tiny'}", *data, "--workdir", str(workdir))


def test_a_list_reads_no_weights_and_no_data(monkeypatch, place, tmp_path, capsys):
    monkeypatch.setattr(suite_rows, "plan_rows", lambda *_: pytest.fail("a row was planned"))
    run(monkeypatch, place, "--list", "--json", str(tmp_path / "list.json"))
    printed = capsys.readouterr().out
    assert "closed: prompted, closed\n  none: nobody has it" in printed
    assert re.search(
        r"python -m experiments.evaluate --suite \S+sums.toml --policy tools=runs/tiny", printed
    )
    found = json.loads((tmp_path / "list.json").read_text())
    assert [row["answers"] for table in found["tables"] for row in table["rows"]] == [None] * 3


def test_rows_are_asked_as_the_suite_says_one_after_the_other(monkeypatch, place, tmp_path, capsys):
    """Two commands with one work directory; the second shows both rows, and asks the first one's questions not again."""
    workdir = tmp_path / "eval"
    run(monkeypatch, place, *asked_rows(place, "text", workdir))
    printed = capsys.readouterr().out
    assert "tools: prompted, tiny\n  python -m experiments.evaluate" in printed
    assert "text: prompted" not in printed
    settings = read_settings(workdir / "main" / "text")
    assert settings.conditions == (
        Condition(sampling="sampled", has_tools=False, max_tool_calls=0),
    )
    assert (settings.samples, settings.temperature, settings.top_p) == (2, 0.9, 0.8)
    assert settings.suite == "sums"
    records = read_answers(workdir / "main" / "text")
    assert [record.problem_id.partition("/")[0] for record in records] == ["easy"] * 6
    file = tmp_path / "both.json"
    both = ("--json", str(file), *asked_rows(place, "tools", workdir))
    run(monkeypatch, place, "--policy", f"text={place / 'tiny'}", *both)
    assert "text: prompted" not in capsys.readouterr().out
    tools, text = json.loads(file.read_text())["tables"][0]["rows"]
    assert (tools["answers"], text["answers"]) == (6, 6)
    [accuracy, _] = tools["figures"]
    assert accuracy["paper"] == 40.0
    right = [record.is_correct for record in read_answers(workdir / "main" / "tools")]
    assert accuracy["ours"]["value"] == pytest.approx(100 * sum(right) / 6)
    [with_tools] = read_settings(workdir / "main" / "tools").conditions
    assert with_tools == Condition(sampling="sampled", has_tools=True, max_tool_calls=1)
    assert read_answers(workdir / "main" / "text") == records


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--policy", "tool=x"), "the suite sums has no row 'tool': did you mean 'tools'?"),
        (("--policy", "closed=x"), "asks the set other, and it is not known where that is published: name its file, as --data other=FILE"),
        (("--policy", "text=x"), "the suite sums asks the set easy"),
        (("--policy", "text=x", "--data", "esy=f"), "has no set 'esy': its sets are easy, other"),
        (("--policy", "text=x", "--data", "easy"), "--data easy: name the file of the set, as --data easy=FILE"),
        (("--policy", "text=x", "--data", "easy=none.jsonl"), "the set easy of the suite sums: "),
        (("--policy", "text=none/x/y", "--data", "easy={place}/easy.jsonl"), "row text of sums, main: there are no weights none/x/y"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line_before_any_weight_is_read(
    monkeypatch, place, tmp_path, flags, message
):
    monkeypatch.setattr(suite_rows, "run_evaluation", lambda *_, **__: pytest.fail("it was asked"))
    flags = [flag.format(place=place) for flag in flags]
    with pytest.raises((ValueError, OSError), match=re.escape(message)) as caught:
        run(monkeypatch, place, *flags, "--workdir", str(tmp_path / "eval"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--policy", "text=x"), "--suite needs --workdir"),
        (("--workdir", "w"), "--policy is required"),
        (("--policy", "text=x", "--workdir", "w", "--samples", "4"), "--samples beside --suite: how rows are asked is the suite's"),
        (("--policy", "text=x", "--workdir", "w", "--tools", "on"), "--tools beside --suite"),
    ],
)  # fmt: skip
def test_flags_that_the_suite_says_are_refused(monkeypatch, place, capsys, flags, message):
    with pytest.raises(SystemExit):
        run(monkeypatch, place, *flags)
    assert message in capsys.readouterr().err


def test_a_list_of_no_suite_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluate", "--list"])
    with pytest.raises(SystemExit):
        evaluate.main()
    assert "--list is for a suite" in capsys.readouterr().err


def test_one_file_in_a_layout_gives_all_its_sets():
    """Search-R1's merged file holds all seven; a set of its own may be named beside it."""
    suite = load_suite("search_r1")
    data = ("search_r1=merged.parquet", "nq=own.parquet")
    files = suite_rows.files_of_sets(suite, data, set(suite.sets))
    assert files == dict.fromkeys(suite.sets, "merged.parquet") | {"nq": "own.parquet"}
    published = suite_rows.files_of_sets(suite, (), {"popqa"})
    assert published == {"popqa": "PeterJinGo/nq_hotpotqa_train@test"}
