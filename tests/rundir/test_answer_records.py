import numpy as np
import pytest
from helpers.answers import answer

from jaxtool.core.types import (
    FinishReason,
    Origin,
    Problem,
    Sample,
    ToolCall,
    ToolResult,
    ToolStatus,
    Trajectory,
    Verdict,
)
from jaxtool.rundir.answer_records import read_records, record_of, write_records

P, A, T = Origin.PROMPT, Origin.POLICY, Origin.TOOL


def _sample(reason: FinishReason = FinishReason.ANSWER) -> Sample:
    """Prompt of 2 tokens, 3 of the policy, an observation of 1, 1 of the policy."""
    origins = np.asarray([P, P, A, A, A, T, A], np.int8)
    trajectory = Trajectory(
        problem=Problem(problem_id="set/1", question="1 + 1", answer="2", answers=("2", "two")),
        sample=3,
        ids=np.arange(7, dtype=np.int32),
        origins=origins,
        behaviour_logprobs=np.zeros(7, np.float32),
        policy_versions=np.where(origins == A, 5, -1).astype(np.int32),
        tool_calls=(
            ToolCall(
                tool="python",
                arguments={"code": "print(2)\ud800"},
                result=ToolResult(status=ToolStatus.OK, stdout="2\n", wall_ms=7),
                start=2,
                stop=5,
                observation_stop=6,
            ),
        ),
        invalid_calls=1,
        finish_reason=reason,
    )
    verdict = Verdict(score=1.0, is_correct=True, how="numbers", answer="2", is_lenient=True)
    return Sample(trajectory=trajectory, verdict=verdict)


def _record(sample: Sample):
    return record_of(
        sample,
        lambda ids: "".join(f"<{token}>" for token in ids),
        policy="base",
        has_tools=True,
        max_tool_calls=4,
        sampling="sampled",
    )


def test_a_record_counts_from_the_first_token_of_the_response() -> None:
    record = _record(_sample())
    assert [(part.author, part.text, part.tokens) for part in record.parts] == [
        ("policy", "<2><3><4>", 3),
        ("tool", "<5>", 1),
        ("policy", "<6>", 1),
    ]
    assert record.response == "<2><3><4><5><6>"
    assert (record.prompt_tokens, record.policy_tokens, record.tool_tokens) == (2, 4, 1)
    [call] = record.calls
    assert (call.start, call.stop, call.observation_stop) == (0, 3, 4)
    assert record.references == ("2", "two")
    assert (record.is_correct, record.score, record.how, record.final_answer) == (
        *(True, 1.0),
        *("numbers", "2"),
    )


def test_a_lost_answer_is_a_record_and_never_right() -> None:
    record = _record(_sample(FinishReason.INFRASTRUCTURE))
    assert record.is_lost
    assert not record.is_correct
    assert record.score == 0.0


def test_records_come_back_from_their_file_and_lone_surrogates_as_escapes(tmp_path) -> None:
    record = _record(_sample())
    [back] = read_records(write_records(tmp_path / "answers.parquet", [record]))
    assert back.calls[0].code == "print(2)\\ud800"
    assert back.parts == record.parts
    assert back.references == record.references
    assert back.is_lenient is True


def test_other_files_are_refused_by_name(tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"policy": ["a"]}), other)
    with pytest.raises(ValueError, match=r"other\.parquet holds no answers: it has no column "):
        read_records(other)
    other.write_text("no")
    with pytest.raises(ValueError, match=r"other\.parquet is no parquet file of answers"):
        read_records(other)


def test_a_file_of_before_has_no_column_for_what_lost_an_answer(tmp_path):
    import pyarrow.parquet as pq

    path = write_records(tmp_path / "a.parquet", [answer(right=True)])
    pq.write_table(pq.read_table(path).drop_columns(["lost_to"]), path)
    assert read_records(path) == [answer(right=True)]
    pq.write_table(pq.read_table(path).drop_columns(["level"]), path)
    with pytest.raises(ValueError, match="it has no column level"):
        read_records(path)
