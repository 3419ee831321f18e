"""The task of facts: the world is one world, the fewest calls are as the table says, splits share nothing."""

import json

import pytest

from jaxtool.data import facts
from jaxtool.data.facts import FEWEST_CALLS, LEVELS, FactTask, Step
from jaxtool.data.tokenizer import decode

EVENLY = FactTask(
    known=0.2, one_hop=0.2, known_hop=0.1, two_hop=0.2, product=0.1, look_product=0.1, square=0.1
)


def test_the_world_has_a_fact_of_each_kind_for_each_place():
    found = facts.facts()
    assert len(found) == 3 * facts.NUM_PLACES + 899  # with the squares of 101 to 999
    names = [facts.place(i) for i in range(facts.NUM_PLACES)]
    assert len(set(names)) == facts.NUM_PLACES
    capitals = [found[f"capital of {name}"] for name in names]
    assert len(set(capitals)) == facts.NUM_PLACES
    assert not set(capitals) & set(names)
    assert all(f"river of {capital}" in found for capital in capitals)
    assert all(101 <= int(found[f"number of {name}"]) < 1000 for name in names)


def test_steps_by_hand():
    name = facts.place(100)
    capital = facts.facts()[f"capital of {name}"]
    river = facts.facts()[f"river of {capital}"]
    number = facts.facts()[f"number of {name}"]
    first = Step(tool="search", asked=f"capital of {name}", told=capital)
    assert facts.steps_of(f"capital of {name}") == (first,)
    second = Step(tool="search", asked=f"river of {capital}", told=river)
    assert facts.steps_of(f"river of capital of {name}") == (first, second)
    assert facts.steps_of("square of 473") == (Step(tool="python", asked="473*473", told="223729"),)
    assert facts.search_step("square of 473") == Step(
        tool="search", asked="square of 473", told="223729"
    )
    assert facts.steps_of("473*281") == (Step(tool="python", asked="473*281", told="132913"),)
    assert facts.steps_of(f"number of {name}*281") == (
        Step(tool="search", asked=f"number of {name}", told=number),
        Step(tool="python", asked=f"{number}*281", told=str(int(number) * 281)),
    )
    for wrong in (
        "",
        "capital of nowhere",
        "square of 4",
        "river of capital of nowhere",
        f"height of {name}",
    ):
        with pytest.raises(ValueError, match="is no question of the task of facts"):
            facts.steps_of(wrong)


def test_each_level_takes_the_calls_of_the_table():
    """Steps whose facts are known by heart need no call."""
    seen = set()
    for problem in EVENLY.problems("train", 400, seed=0):
        steps = facts.steps_of(problem.question)
        needed = [step for step in steps if step.tool == "python" or not facts.is_known(step.asked)]
        searches = sum(step.tool == "search" for step in needed)
        assert (searches, len(needed) - searches) == FEWEST_CALLS[problem.level]
        assert problem.answer == steps[-1].told
        seen.add(problem.level)
    assert seen == set(LEVELS)


def test_splits_share_no_question_but_those_known_by_heart():
    of = {
        split: {p.question for p in EVENLY.problems(split, 2000, seed=1) if p.level != "known"}
        for split in ("train", "validation", "test")
    }
    assert not of["train"] & of["test"]
    assert not of["train"] & of["validation"]
    assert not of["validation"] & of["test"]
    known = {p.question for p in EVENLY.problems("test", 2000, seed=1) if p.level == "known"}
    assert len(known) == facts.KNOWN_PLACES


def test_shares_and_seeds():
    levels = [p.level for p in FactTask().problems("train", 100, seed=0)]
    assert [levels.count(level) for level in LEVELS] == [30, 30, 10, 30, 0, 0, 0]
    assert FactTask().problems("train", 50, seed=0) == FactTask().problems("train", 50, seed=0)
    assert FactTask().problems("train", 50, seed=0) != FactTask().problems("train", 50, seed=1)
    with pytest.raises(ValueError, match="the shares of the levels must sum to 1"):
        FactTask(known=0.5)


def test_the_corpus_has_each_fact_once(tmp_path):
    facts.write_corpus(tmp_path / "corpus.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    assert rows == list(facts.corpus())
    assert len({row["id"] for row in rows}) == len(rows) == len(facts.facts())
    name = facts.place(0)
    capital = facts.facts()[f"capital of {name}"]
    assert rows[0]["contents"] == f'"{name}"\ncapital of {name} is {capital}'
    assert rows[-1]["contents"] == '"999"\nsquare of 999 is 998001'


def test_the_command_writes_the_corpus_and_leaves_one_that_is_right_alone(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "new" / "corpus.jsonl"
    monkeypatch.setattr("sys.argv", ["facts", str(path)])
    facts.main()
    assert capsys.readouterr().out == f"{path}: 12,899 passages\n"
    written = path.stat().st_mtime_ns
    facts.main()
    assert path.stat().st_mtime_ns == written
    path.write_text("{}\n")
    facts.main()
    assert len(path.read_text().splitlines()) == 12_899


def test_a_name_is_three_tokens_and_a_passage_sixteen_at_most():
    tokenizer = facts.facts_tokenizer()
    assert len(tokenizer.encode(facts.place(100))) == 3
    passages = [row["contents"].partition("\n") for row in facts.corpus()]
    texts = [f"Doc 1(Title: {title[1:-1]}) {text}" for title, _, text in passages]
    ids = [tokenizer.encode(text) for text in texts]
    assert max(map(len, ids)) == 16
    assert [decode(tokenizer, each) for each in ids] == texts
