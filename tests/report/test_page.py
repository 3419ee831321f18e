"""The report: one file that loads nothing, shows untrusted text as text, and is rebuilt from files."""

import base64
import dataclasses
import gzip
import html.parser
import json
import math
import re

import numpy as np
import pytest

from jaxtool.core.types import (
    FinishReason,
    Origin,
    Problem,
    Sample,
    SampleTimes,
    Score,
    Span,
    ToolCall,
    ToolResult,
    ToolStatus,
    Trajectory,
)
from jaxtool.report import page
from jaxtool.rundir import trajectory_log
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
    [of_tokens] = logged_views(
        [sample],
        1,
        variant="a",
        step=3,
        token_text=str,
        control_tokens={},
        advantages=[np.linspace(0, 1, 11)],
    )
    assert of_tokens.tokens[4].advantage == pytest.approx(0.4)


def sample_of(problem_id: str, sample: int, **changes) -> Sample:
    trajectory = make_trajectory()
    problem = dataclasses.replace(trajectory.problem, problem_id=problem_id)
    trajectory = dataclasses.replace(trajectory, problem=problem, sample=sample)
    return Sample(trajectory=trajectory, score=Score(reward=1.0, is_correct=True), **changes)


@pytest.mark.parametrize(
    ("count", "step", "groups"),
    [(4, 0, "ac"), (4, 1, "bd"), (1, 2, "c"), (2, 5, "b"), (100, 0, "abcd"), (5, 0, "ac")],
)
def test_whole_groups_are_kept_and_others_in_the_next_step(count, step, groups):
    samples = [sample_of(name, sample) for name in "abcd" for sample in range(2)]
    views = logged_views(
        samples,
        count,
        variant="a",
        step=step,
        token_text=str,
        control_tokens={},
        advantages=np.arange(8.0),
    )
    kept = [(name, sample) for name in groups for sample in range(2)]
    assert [(view.problem_id, view.sample) for view in views] == kept
    assert views[0].advantage == 2.0 * "abcd".index(groups[0])


def test_a_masked_answer_is_there_with_no_reward_and_no_advantage():
    lost = dataclasses.replace(make_trajectory(), finish_reason=FinishReason.INFRASTRUCTURE)
    times = SampleTimes(left_queue_s=5.0, spans=()).with_spans([("generate", 5.0, 5.25)])
    [view] = logged_views(
        [Sample(trajectory=lost, times=times)],
        1,
        variant="a",
        step=3,
        token_text=str,
        control_tokens={},
        advantages=[0.0],
    )
    assert view.is_masked
    assert not view.is_correct
    assert math.isnan(view.reward)
    assert view.advantage is None
    assert view.spans == (Span(kind="generate", start_ms=0, stop_ms=250),)
    again = trajectory_log.view_from_row(trajectory_log.view_to_row(view))
    assert dataclasses.replace(again, reward=0) == dataclasses.replace(view, reward=0)


def test_times_are_in_no_comparison_and_are_left_out_of_what_must_repeat():
    times = SampleTimes(left_queue_s=0.0, spans=()).with_spans([("tool", 0.001, 0.0105)])
    trajectory = make_trajectory()
    assert Sample(trajectory=trajectory, times=times) == Sample(trajectory=trajectory)
    row = trajectory_log.view_to_row(make_view(spans=times.spans))
    assert row["spans"] == [{"kind": "tool", "start_ms": 1, "stop_ms": 10}]
    without = trajectory_log.without_times(row)
    assert without["spans"] == []
    assert without["tool_calls"][0]["wall_ms"] == 0
    assert row["tool_calls"][0]["wall_ms"] == 12


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


def unpacked(content: str):
    return json.loads(gzip.decompress(base64.b64decode(content)))


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
    assert [tag for tag, _ in page.elements if tag in ("script", "img")] == ["script"] * 4
    data = json.loads(page.scripts[0])
    assert data["answers"]["questions"][0]["text"] == HOSTILE
    assert data["title"] == f"A run {HOSTILE}"
    for content in page.scripts[1:3]:  # text and figures of the answers
        assert re.fullmatch("[A-Za-z0-9+/]+=*", content.strip())
    parts = unpacked(page.scripts[1])[0]["parts"]
    assert "".join(part["x"] for part in parts) == "".join(PIECES)
    assert unpacked(page.scripts[2])[0]["id"] == list(range(100, 111))
    assert page_text.count("</script>") == 4
    assert "<!--" not in page_text


def test_the_page_loads_nothing_and_allows_only_its_own_script(page_text):
    page = Page(page_text)
    assert [a for tag, a in page.elements if tag == "script" and "src" in a] == []
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    without_names = page_text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://", without_names)
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}=';", policy)


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


def test_a_log_names_the_tool_of_each_call_and_one_of_an_earlier_version_is_still_read():
    row = trajectory_log.view_to_row(make_view())
    assert row["tool_calls"][0]["tool"] == "python"
    for call in row["tool_calls"]:
        del call["tool"]
    assert [call.tool for call in trajectory_log.view_from_row(row).tool_calls] == [""]


def test_a_call_whose_arguments_are_not_found_as_they_stand_counts_from_its_first_token():
    view = make_view(code='x = "\\n"')
    assert [token.origin for token in view.tokens[2:8]] == ["code"] * 6
