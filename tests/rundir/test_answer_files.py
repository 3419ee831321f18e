import dataclasses
import json

import pytest
from helpers.answers import CONDITION, answer, evaluation_settings, write_evaluation

from jaxtool.rundir.answer_files import (
    GREEDY,
    SAMPLED,
    SETTINGS,
    Condition,
    check_policy_name,
    chunk_path,
    missing_chunks,
    read_answers,
    read_settings,
    split_name,
    write_chunk,
)

NO_TOOLS = Condition(sampling=GREEDY, has_tools=False, max_tool_calls=0)


def test_answers_come_back_in_order_of_policy_question_and_sample(tmp_path) -> None:
    records = [
        answer(policy, question, sample)
        for policy in ("s100", "base")
        for question in range(3)
        for sample in range(2)
    ]
    write_evaluation(tmp_path, records, chunk_questions=2)
    assert read_answers(tmp_path) == records
    assert read_answers(tmp_path, "base") == records[6:]
    names = sorted(path.name for path in (tmp_path / "answers" / "base").glob("*/*"))
    assert names == ["00000.parquet", "00001.parquet"]


def test_settings_come_back_as_they_were_written(tmp_path) -> None:
    settings = evaluation_settings(conditions=(CONDITION, NO_TOOLS), suite="retool")
    settings.write(tmp_path)
    assert read_settings(tmp_path) == settings
    assert [one.name for one in settings.conditions] == ["sampled_calls_2", "greedy_no_tools"]


def test_a_directory_without_an_evaluation_is_refused_in_one_line(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no evaluation.*--workdir"):
        read_answers(tmp_path)


def test_an_unfinished_evaluation_says_what_is_missing(tmp_path) -> None:
    settings = evaluation_settings(questions=5, chunk_questions=2, samples=2)
    settings.write(tmp_path)
    write_chunk(
        tmp_path, "base", CONDITION, 1, [answer("base", q, s) for q in (2, 3) for s in (0, 1)]
    )
    assert missing_chunks(tmp_path, settings, "base", CONDITION) == [0, 2]
    with pytest.raises(ValueError, match=r"6 of 10 answers of base, sampled_calls_2, are missing"):
        read_answers(tmp_path)


def test_another_policy_or_condition_is_refused_with_those_there_are(tmp_path) -> None:
    write_evaluation(tmp_path, [answer("base", 0, 0), answer("s100", 0, 0)])
    with pytest.raises(ValueError, match=r"no policy 'last': it has base, s100"):
        read_answers(tmp_path, "last")
    with pytest.raises(ValueError, match=r"no greedy_no_tools: it has sampled_calls_2"):
        read_answers(tmp_path, None, NO_TOOLS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"policy": "other"}, "answers of 'other'"),
        ({"max_tool_calls": 7}, "sampled answers with 7 calls"),
    ],
    ids=["policy", "budget"],
)
def test_a_file_of_another_evaluation_is_refused(tmp_path, changed, said) -> None:
    write_evaluation(tmp_path, [answer("base", 0, 0)])
    wrong = dataclasses.replace(answer("base", 0, 0), **changed)
    write_chunk(tmp_path, "base", CONDITION, 0, [wrong])
    with pytest.raises(
        ValueError, match=rf"00000.parquet is of another evaluation: it holds {said}"
    ):
        read_answers(tmp_path)


def test_a_chunk_with_too_few_answers_is_refused(tmp_path) -> None:
    write_evaluation(tmp_path, [answer("base", q, 0) for q in (0, 1)])
    write_chunk(tmp_path, "base", CONDITION, 0, [answer("base", 0, 0)])
    with pytest.raises(ValueError, match=r"1 answers, not 2"):
        read_answers(tmp_path)


def test_settings_of_another_version_are_refused(tmp_path) -> None:
    evaluation_settings().write(tmp_path)
    values = json.loads((tmp_path / SETTINGS).read_text()) | {"version": 99}
    (tmp_path / SETTINGS).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"evaluation.json cannot be read.*version 99"):
        read_settings(tmp_path)


def test_a_name_is_a_directory_with_or_without_a_policy(tmp_path) -> None:
    assert split_name("runs/eval:base") == ("runs/eval", "base")
    assert split_name("runs/eval") == ("runs/eval", None)
    assert split_name("a:b/eval") == ("a:b/eval", None)
    odd = tmp_path / "eval:base"
    odd.mkdir()
    evaluation_settings().write(odd)
    assert split_name(str(odd)) == (str(odd), None)
    with pytest.raises(ValueError, match=r"names no evaluation"):
        split_name("runs/eval:")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", " x"])
def test_a_policy_whose_name_is_no_directory_is_refused(name) -> None:
    with pytest.raises(ValueError, match="cannot be called"):
        check_policy_name(name)


def test_the_path_of_a_chunk() -> None:
    path = chunk_path("runs/eval", "mine@100", dataclasses.replace(CONDITION, sampling=SAMPLED), 7)
    assert str(path) == "runs/eval/answers/mine@100/sampled_calls_2/00007.parquet"
