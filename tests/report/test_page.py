"""The report: one file that loads nothing, shows untrusted text as text, and is rebuilt from files."""

import dataclasses
import html.parser
import json
import math
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from jaxtool.core.types import (
    FinishReason,
    Origin,
    Problem,
    Sample,
    Score,
    ToolCall,
    ToolResult,
    ToolStatus,
    Trajectory,
)
from jaxtool.report import page
from jaxtool.report.__main__ import main
from jaxtool.rundir import metrics, trajectory_log
from jaxtool.rundir.trajectory_log import TrajectoryLog, logged_views, trajectory_view

HOSTILE = "</script><script>document.title='owned'</script><!--<img src=x onerror=alert(1)>{{data}}"
PIECES = ["Q", ":", "I", " think", " x", "=1", "\n", "</code>", HOSTILE, "so", " 1"]
ORIGINS = [Origin.PROMPT] * 2 + [Origin.POLICY] * 6 + [Origin.TOOL] + [Origin.POLICY] * 2


def make_trajectory(code: str = "x=1\n") -> Trajectory:
    origins = np.array(ORIGINS, np.int8)
    is_policy = origins == Origin.POLICY
    result = ToolResult(status=ToolStatus.ERROR, error_type="NameError", wall_ms=12)
    call = ToolCall(
        tool="python",
        arguments={"code": code},
        result=result,
        start=2,
        stop=8,
        observation_stop=9,
    )
    trajectory = Trajectory(
        problem=Problem(problem_id="p<7>", question=HOSTILE, answer="1", level="one"),
        sample=3,
        ids=np.arange(100, 111, dtype=np.int32),
        origins=origins,
        behaviour_logprobs=np.where(is_policy, np.float32(-0.5), np.float32(0)),
        policy_versions=np.where(is_policy, 4, -1).astype(np.int32),
        tool_calls=(call,),
        finish_reason=FinishReason.LENGTH,
    )
    trajectory.check()
    return trajectory


def make_view(variant="grpo", step=5, code: str = "x=1\n", **changes):
    view = trajectory_view(
        make_trajectory(code),
        Score(reward=-1.0, is_correct=False, tool_coefficient=0.9),
        variant=variant,
        step=step,
        token_texts=PIECES,
        advantages=np.linspace(0.0, 1.0, 11),
    )
    return dataclasses.replace(view, **changes)


def origins_of(view):
    return [token.origin for token in view.tokens]


def test_a_view_marks_the_executed_code_and_keeps_figures_of_policy_tokens_only():
    view = make_view()
    assert origins_of(view) == [
        *["prompt"] * 2,
        *["policy"] * 2,  # " think" comes before the code
        *["code"] * 2,
        *["policy"] * 2,
        "tool",
        *["policy"] * 2,
    ]
    assert view.tokens[4].text == " x"
    assert view.tokens[4].token_id == 104
    assert view.tokens[4].logprob == -0.5
    assert view.tokens[4].advantage == pytest.approx(0.4)
    for place in (0, 8):
        assert view.tokens[place].logprob is None
        assert view.tokens[place].advantage is None
    assert view.advantage == pytest.approx(np.mean([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0]))
    assert view.tool_calls[0].error_type == "NameError"
    assert (view.finish_reason, view.sample, view.tool_coefficient) == ("length", 3, 0.9)


def test_the_token_before_the_code_is_not_code():
    assert origins_of(make_view(code="=1"))[2:8] == ["policy"] * 3 + ["code"] + ["policy"] * 2


def test_code_that_the_thoughts_quote_before_is_marked_where_it_was_executed():
    pieces = ["Q", ":", "x", "=1", " x", "=1", *PIECES[6:]]
    score = Score(reward=1.0, is_correct=True)
    view = trajectory_view(make_trajectory(), score, variant="a", step=0, token_texts=pieces)
    assert origins_of(view)[2:8] == ["policy"] * 2 + ["code"] * 2 + ["policy"] * 2


@pytest.mark.parametrize("code", ["not in the pieces", ""])
def test_where_the_code_is_not_found_the_whole_segment_is_code(code):
    assert origins_of(make_view(code=code))[2:8] == ["code"] * 6


def test_views_need_one_text_and_advantage_per_token():
    trajectory, score = make_trajectory(), Score(reward=1.0, is_correct=True)
    with pytest.raises(ValueError, match="token_texts has 2 entries, the ledger 11"):
        trajectory_view(trajectory, score, variant="a", step=0, token_texts=["a", "b"])
    with pytest.raises(ValueError, match="advantages has 1 entries, the ledger 11"):
        trajectory_view(
            trajectory, score, variant="a", step=0, token_texts=PIECES, advantages=np.zeros(1)
        )
    view = trajectory_view(trajectory, score, variant="a", step=0, token_texts=PIECES)
    assert view.advantage is None


def test_control_tokens_are_marked_by_their_id_and_shown_as_they_are_spelled():
    """The tool's text holds the same characters; it is no control token."""
    trajectory, score = make_trajectory(), Score(reward=1.0, is_correct=True)
    pieces = [*PIECES[:8], "<|im_end|>", "", " 1"]
    view = trajectory_view(
        trajectory,
        score,
        variant="a",
        step=None,
        token_texts=pieces,
        control_tokens={109: "<|im_end|>", 999: "<|pad|>"},
    )
    assert [t.text for t in view.tokens if t.is_control] == ["<|im_end|>"]
    assert [t.is_control for t in view.tokens[8:]] == [False, True, False]
    assert [t.text for t in view.tokens[8:]] == ["<|im_end|>", "<|im_end|>", " 1"]
    assert origins_of(view)[4:6] == ["code"] * 2
    assert trajectory_log.view_from_row(trajectory_log.view_to_row(view)) == view


def test_views_of_a_finished_policy_claim_no_step_and_no_advantage():
    sample = Sample(trajectory=make_trajectory(), score=Score(reward=1.0, is_correct=True))
    [view] = logged_views(
        [sample],
        1,
        variant="a",
        step=None,
        token_text=str,
        control_tokens={100: "<s>"},
        advantages=None,
    )
    assert (view.step, view.advantage) == (None, None)
    assert view.tokens[0].text == "<s>"
    assert all(token.advantage is None for token in view.tokens)
    [learned] = logged_views(
        [sample], 1, variant="a", step=3, token_text=str, control_tokens={}, advantages=[0.5]
    )
    assert (learned.step, learned.advantage) == (3, 0.5)


def test_the_log_reads_back_and_resumes_without_repeats(tmp_path):
    with TrajectoryLog(tmp_path) as log:
        log.write([make_view(step=step) for step in (1, 1, 2)])
    with TrajectoryLog(tmp_path, resume_step=1) as log:
        log.write([make_view(step=2, reward=0.25), make_view(step=3, reward=math.inf)])
    views = trajectory_log.read_trajectories(tmp_path / trajectory_log.TRAJECTORIES_NAME)
    assert [view.step for view in views] == [1, 1, 2, 3]
    assert views[0].tokens[8].text == HOSTILE
    assert views[0] == make_view(step=1)
    assert views[2].reward == 0.25
    assert math.isnan(views[3].reward)


def with_control(view, at: int):
    token = dataclasses.replace(view.tokens[at], is_control=True)
    return dataclasses.replace(view, tokens=(*view.tokens[:at], token, *view.tokens[at + 1 :]))


def make_report() -> page.Report:
    series = page.Series(name="grpo", xs=[0, 1, 2], ys=[0.5, None, math.nan], stderr=[0.1] * 3)
    return page.Report(
        title=f"A run {HOSTILE}",
        subtitle=HOSTILE,
        variants=("grpo", "otc"),
        headlines=(page.Headline(label="calls", value="−70 %"),),
        sections=(
            page.Section(
                title="accuracy by level",
                tables=(
                    page.Table(
                        title="Variants",
                        columns=("Variant", "Accuracy", HOSTILE),
                        rows=(("grpo", 0.5, HOSTILE), ("otc", None, "0.1 ± 0.2")),
                    ),
                ),
                curves=(page.Curve(title="one", x_label="step", y_label="", series=(series,)),),
            ),
        ),
        trajectories=(
            with_control(make_view(), 9),
            make_view(variant="otc", step=6, is_correct=True),
        ),
        config=f"# {HOSTILE}\nx.y = 1\n",
    )


class Page(html.parser.HTMLParser):
    """Elements of a page with their attributes, and the text of each script."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


@pytest.fixture
def page_text(tmp_path):
    return page.write_report(tmp_path / "deep" / "report.html", make_report()).read_text()


def test_hostile_text_is_data_and_nothing_else(page_text):
    page = Page(page_text)
    assert [tag for tag, _ in page.elements if tag in ("script", "img")] == ["script", "script"]
    data = json.loads(page.scripts[0])
    assert data["trajectories"][0]["tokens"]["text"] == PIECES
    assert data["trajectories"][0]["tokens"]["control"] == [9]
    assert data["trajectories"][0]["question"] == HOSTILE
    assert data["title"] == f"A run {HOSTILE}"
    assert page_text.count("</script>") == 2
    assert "<!--" not in page_text


def test_the_page_loads_nothing_and_allows_only_its_own_script(page_text):
    page = Page(page_text)
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    without_names = page_text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://", without_names)
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}='", policy)


def test_missing_values_are_null_in_the_page(page_text):
    data = json.loads(Page(page_text).scripts[0])
    assert data["sections"][0]["curves"][0]["series"][0]["ys"] == [0.5, None, None]
    assert "NaN" not in Page(page_text).scripts[0]


def test_lengths_that_do_not_agree_are_refused(tmp_path):
    table = page.Table(title="T", columns=("a", "b"), rows=((1,),))
    curve = page.Curve(
        title="C", x_label="", y_label="", series=(page.Series(name="s", xs=[1], ys=[]),)
    )
    for section in (
        page.Section(title="x", tables=(table,)),
        page.Section(title="x", curves=(curve,)),
    ):
        with pytest.raises(ValueError, match=r"table 'T': 2 columns|curve 'C', series 's'"):
            page.write_report(tmp_path / "r.html", page.Report(title="t", sections=(section,)))
    assert not (tmp_path / "r.html").exists()


def write_run(folder, values, level_names=("one",)):
    with metrics.MetricsWriter(folder) as writer:
        for step, value in enumerate(values):
            levels = {f"eval/accuracy/{level}": value for level in level_names}
            writer.write(step, {"reward/mean": value, **levels})
    (folder / "operative_config.gin").write_text(f"# of {folder.name}\n")


def test_one_run_is_rebuilt_from_its_directory(tmp_path, capsys):
    write_run(tmp_path / "grpo", [0.0, math.nan, 1.0], level_names=("one", "two"))
    with TrajectoryLog(tmp_path / "grpo") as log:
        log.write([make_view(step=1)])
    main([str(tmp_path / "grpo")])
    path = tmp_path / "grpo" / page.REPORT_NAME
    assert capsys.readouterr().out.strip() == str(path)
    assert len(json.loads(Page(path.read_text()).scripts[0])["trajectories"]) == 1
    rebuilt = page.report_of_workdir(tmp_path / "grpo")
    sections = {section.title: section for section in rebuilt.sections}
    assert list(sections) == ["eval", "metrics", "reward"]
    (accuracy,) = sections["eval"].curves
    assert [series.name for series in accuracy.series] == ["one", "two"]
    assert sections["reward"].curves[0].series[0].ys == [0.0, None, 1.0]
    assert "# of grpo" in rebuilt.config


def test_runs_of_a_directory_are_compared_variant_by_variant(tmp_path):
    write_run(tmp_path / "grpo", [0.0, 1.0], level_names=("one", "two"))
    write_run(tmp_path / "otc", [0.5], level_names=("one",))
    rebuilt = page.report_of_workdir(tmp_path)
    assert rebuilt.variants == ("grpo", "otc")
    curves = {curve.title: curve for s in rebuilt.sections for curve in s.curves}
    assert [series.name for series in curves["accuracy · one"].series] == ["grpo", "otc"]
    assert [series.name for series in curves["accuracy · two"].series] == ["grpo"]


def test_long_series_are_thinned_to_means(monkeypatch):
    monkeypatch.setattr(page, "MAX_POINTS", 2)
    rows = [{"step": step, "a/x": y} for step, y in enumerate([1.0, 3.0, math.nan, math.nan])]
    (section,) = page.metric_sections({"run": rows})
    series = section.curves[0].series[0]
    assert (series.xs, series.ys) == ([1, 3], [2.0, None])


def test_a_directory_without_runs_is_a_one_line_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "holds no metrics.jsonl" in capsys.readouterr().err


@pytest.mark.slow
def test_a_browser_draws_the_page(tmp_path, page_text):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine: the page's script is not run")
    path = tmp_path / "page.html"
    path.write_text(page_text)
    command = [browser, "--headless", "--disable-gpu", "--no-first-run", "--dump-dom"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    page = Page(done.stdout)
    classes = [attributes.get("class") or "" for _, attributes in page.elements]
    assert sum(name.split()[:1] == ["t"] for name in classes) == len(PIECES)
    assert sum("control" in name.split() for name in classes) == 1
    assert sum(name == "item" for name in classes) == 2
    assert sum(name == "series" for name in classes) == 1
    assert [tag for tag, _ in page.elements].count("table") == 1
    assert [tag for tag, _ in page.elements].count("img") == 0
    assert "<title>owned" not in done.stdout


def test_a_log_names_the_tool_of_each_call_and_one_of_an_earlier_version_is_still_read():
    row = trajectory_log.view_to_row(make_view())
    assert row["tool_calls"][0]["tool"] == "python"
    for call in row["tool_calls"]:
        del call["tool"]
    assert [call.tool for call in trajectory_log.view_from_row(row).tool_calls] == [""]


def test_a_call_whose_arguments_are_not_found_as_they_stand_counts_from_its_first_token():
    view = make_view(code='x = "\\n"')
    assert [token.origin for token in view.tokens[2:8]] == ["code"] * 6
