"""Demonstrations for the task of facts: their strategies, and that their observations are the servers' own."""

import asyncio
import collections

import pytest

from jaxtool.core.calls import PYTHON, Call
from jaxtool.core.types import Origin, Problem
from jaxtool.data import facts
from jaxtool.data.facts import FEWEST_CALLS, FactTask
from jaxtool.renderers.demonstrations import FactDemonstrations
from jaxtool.renderers.ledgers import split_response
from jaxtool.renderers.renderer import load_renderer, observation_ids
from jaxtool.tools.local_server import run_local_search, start_local_server
from jaxtool.tools.menu import Menu
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig
from jaxtool.tools.search import Search
from jaxtool.tools.search_client import SearchClientConfig

TOKENIZER = facts.facts_tokenizer()
ALL_LEVELS = FactTask(
    known=0.1, one_hop=0.1, known_hop=0.2, two_hop=0.2, product=0.1, look_product=0.1, square=0.2
)
ONE_EACH = (0.0, 1.0, 0.0)
FEWEST = FactDemonstrations(
    task=ALL_LEVELS,
    calls_when_easy=(1.0, 0.0, 0.0),
    calls_when_hard=ONE_EACH,
    searches_known_hop=0.0,
    searches_square=0.0,
)


def take(source, count=100, renderer="facts_two_tools"):
    return source.take(
        count, seed=0, index=0, renderer=load_renderer(renderer), tokenizer=TOKENIZER
    )


def calls_of(demonstration, renderer):
    """(call, ids of its observation) as a rollout would read them, and the text behind the last one."""
    pieces = split_response(demonstration.response_text, renderer)
    assert [origin for _, origin in pieces] == [Origin.POLICY, Origin.TOOL] * (len(pieces) // 2) + [
        Origin.POLICY
    ]
    found = []
    for number in range(0, len(pieces) - 1, 2):
        reader = renderer.reader(is_first=number == 0)
        reader.feed(pieces[number][0].encode())
        stop = reader.next_stop()
        assert isinstance(stop.call, Call)
        found.append((stop.call, TOKENIZER.encode(pieces[number + 1][0])))
    return found, pieces[-1][0]


def test_the_shortest_strategy_makes_the_fewest_calls_of_each_level():
    renderer = load_renderer("facts_two_tools")
    seen = set()
    for demonstration in take(FEWEST):
        demonstration.check()
        calls, last = calls_of(demonstration, renderer)
        made = collections.Counter(call.tool for call, _ in calls)
        problem = demonstration.problem
        assert (made["search"], made[PYTHON]) == FEWEST_CALLS[problem.level]
        assert last == f"<answer>{problem.answer}</answer>"
        seen.add(problem.level)
    assert seen == set(facts.LEVELS)


@pytest.mark.parametrize(
    ("level", "changes", "counts"),
    [
        ("known", {"calls_when_easy": (0.5, 0.0, 0.5)}, {(0, 0), (2, 0)}),
        ("known_hop", {"searches_known_hop": 0.5}, {(1, 0), (2, 0)}),
        ("two_hop", {"calls_when_hard": (0.3, 0.3, 0.4)}, {(1, 0), (2, 0), (3, 0)}),
        ("square", {"searches_square": 0.5}, {(1, 0), (0, 1)}),
        ("look_product", {"calls_when_hard": (0.0, 0.0, 1.0)}, {(1, 2)}),
    ],
)
def test_other_strategies_are_planted_by_their_chances(level, changes, counts):
    shares = dict.fromkeys(facts.LEVELS, 0.0) | {level: 1.0}
    chances = {"searches_known_hop": 0.0, "searches_square": 0.0, "calls_when_hard": ONE_EACH}
    source = FactDemonstrations(task=FactTask(**shares), **chances | changes)
    renderer = load_renderer("facts_two_tools")
    found = set()
    for demonstration in take(source, 40):
        made = collections.Counter(call.tool for call, _ in calls_of(demonstration, renderer)[0])
        found.add((made["search"], made[PYTHON]))
    assert found == counts


def test_without_a_tool_the_answer_comes_at_once_or_is_unknown():
    for demonstration in take(FactDemonstrations(), 20, "facts_text"):
        problem = demonstration.problem
        answer = problem.answer if problem.level == "known" else "?"
        assert demonstration.response_text == f"<answer>{answer}</answer>"


def test_wrong_chances_are_refused():
    with pytest.raises(ValueError, match="calls_when_easy must be three chances that sum to 1"):
        FactDemonstrations(calls_when_easy=(0.5, 0.4, 0.0))
    with pytest.raises(ValueError, match="searches_square"):
        FactDemonstrations(searches_square=1.5)


def test_demonstrated_observations_are_the_ids_that_the_real_servers_give(tmp_path):
    """Of 315 facts besides the passage that fits best is the fact's own."""
    renderer = load_renderer("facts_two_tools")
    wanted = [
        pair
        for demonstration in take(FactDemonstrations(task=ALL_LEVELS))
        for pair in calls_of(demonstration, renderer)[0]
    ]
    assert {call.tool for call, _ in wanted} == {"search", PYTHON}
    for fact in list(facts.facts())[::41]:
        title = fact.rpartition(" ")[2]
        text = f"<information>Doc 1(Title: {title}) {fact} is {facts.facts()[fact]}</information>"
        call = Call(tool="search", arguments={"query": fact})
        wanted.append((call, TOKENIZER.encode(text)))

    async def ask(sandbox, search):
        client = SandboxClient((sandbox,), SandboxClientConfig())
        source = Search(
            addresses=(search,), client=SearchClientConfig(topk=1), max_observation_tokens=24
        )
        menu = Menu([source.open(), PythonSandbox().open(client)])
        sessions = menu.sessions(Problem(problem_id="p", question="q", answer="a"), "key")
        try:
            return await asyncio.gather(*(sessions.call(call) for call, _ in wanted))
        finally:
            await menu.close()
            await client.close()

    corpus = tmp_path / "corpus.jsonl"
    facts.write_corpus(corpus)
    flags = ("--corpus", str(corpus))
    with (
        run_local_search(flags=flags, start_timeout_s=60) as search,
        start_local_server() as sandbox,
    ):
        results = asyncio.run(ask(sandbox, search.address))
    for (call, ids), result in zip(wanted, results, strict=True):
        limit = 24 if call.tool == "search" else None
        got = observation_ids(TOKENIZER, result, renderer, tool=call.tool, max_tokens=limit)
        assert got == ids, call
