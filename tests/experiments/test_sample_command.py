"""experiments.sample: one question, its answer as it is written; by a run, by a gin file, by a model alone."""

import asyncio
import json

import pytest
from helpers.tiny_hf import write_model

from jaxtool.cli import entry, sample
from jaxtool.core.types import Origin, Problem
from jaxtool.train import one_answer
from jaxtool.train.one_answer import Follower


def run(monkeypatch, *flags):
    monkeypatch.setattr(entry, "prepare", lambda: None)
    monkeypatch.setattr("sys.argv", ["sample", *map(str, flags)])
    sample.main()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("sample") / "model")


def test_answers_of_a_model_are_shown_judged_and_written(model, tmp_path, monkeypatch, capsys):
    record = tmp_path / "out.json"
    run(
        monkeypatch,
        *("--policy", model, "--tools", "off", "--samples", 2, "--response_tokens", 12),
        *("--answer", "4", "--json", record, "What is 2 + 2?"),
    )
    out = capsys.readouterr().out
    found = json.loads(record.read_text())
    assert (found["renderer"], found["question"]) == ("retool_text", "What is 2 + 2?")
    assert len(found["samples"]) == 2
    assert "⟨|im_start|⟩user" in out  # control tokens are framed
    assert out.count("Problem: What is 2 + 2?") == 1  # the prompt once
    for number, one in enumerate(found["samples"], start=1):
        assert f"answer {number}: {one['tokens']['policy']} tokens of the policy" in out
        assert one["verdict"] == {"is_correct": False, "answer": None, "how": "no answer"}
        assert one["tokens"]["policy"] <= 12


class Done:
    def __init__(self, ids, origins):
        import numpy as np

        self.ids, self.origins = np.asarray(ids), np.asarray(origins)


class Live:
    def __init__(self, job, number, ids, origins):
        self.job, self.sample, self.ids, self.origins = job, number, ids, origins


class Watched:
    """A job and a collector whose rows the test writes."""

    def __init__(self):
        self.done, self.rows = {}, {}

    def trajectory(self, index, number):
        assert index == 0
        return self.done.get(number)

    @property
    def live(self):
        return [Live(self, number, *row) for number, row in self.rows.items()]


def test_one_sample_is_followed_after_the_other_and_no_token_twice():
    prompt, policy, tool = int(Origin.PROMPT), int(Origin.POLICY), int(Origin.TOOL)
    said = []
    follow, watched = Follower(lambda *new: said.append(new), 2), Watched()
    watched.rows = {0: ([1, 2], [prompt, policy]), 1: ([1, 7], [prompt, policy])}
    follow.look(watched, watched)
    assert said == [(0, [1], Origin.PROMPT), (0, [2], Origin.POLICY)]
    # The second is ready first and waits; the first goes on through a tool's output.
    watched.rows = {0: ([1, 2, 3, 4], [prompt, policy, policy, tool])}
    watched.done = {1: Done([1, 7, 8], [prompt, policy, policy])}
    said.clear()
    follow.look(watched, watched)
    assert said == [(0, [3], Origin.POLICY), (0, [4], Origin.TOOL)]
    watched.rows = {}
    watched.done[0] = Done([1, 2, 3, 4, 5], [prompt, policy, policy, tool, policy])
    said.clear()
    follow.look(watched, watched)
    assert said == [
        (0, [5], Origin.POLICY),
        (1, [1], Origin.PROMPT),
        (1, [7, 8], Origin.POLICY),
    ]
    follow.look(watched, watched)
    assert len(said) == 3


class Interrupted:
    """A collector that is stopped by Ctrl-C in its second window."""

    def __init__(self):
        self.windows, self.is_abandoned, self.live = 0, False, ()

    def begin(self, problems, **more):
        del more
        self.job = Watched()
        self.job.is_done, self.job.groups = False, list
        assert len(problems) == 1
        return self.job

    async def advance(self, version):
        self.windows += 1
        if self.windows == 2:
            raise asyncio.CancelledError

    async def abandon(self):
        self.is_abandoned = True


def test_ctrl_c_leaves_no_row_behind():
    collector = Interrupted()
    problem = Problem(problem_id="sample", question="?", answer="0")
    answers = one_answer._answers(collector, problem, 1, None, 0, Follower(lambda *new: None, 1))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(answers)
    assert collector.is_abandoned


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--policy", "nowhere", "q"], "there are no weights nowhere"),
        (["--policy", "MODEL", "--gin_param", "STEPS = 1", "q"], "--gin_param changes a gin file"),
        (["--policy", "MODEL", "--response_tokens", "5000", "q"], "positions reach to 4096 tokens"),
        (["--policy", "MODEL", "--renderer", "retol", "q"], "no renderer template 'retol'"),
    ],
    ids=["policy", "param", "length", "renderer"],
)
def test_bad_input_is_one_line(flags, said, model, monkeypatch):
    flags = [str(model) if flag == "MODEL" else flag for flag in flags]
    monkeypatch.setattr("jaxtool.model.sources.HfDirectory.load", None)  # no weight is read
    with pytest.raises((ValueError, OSError), match=said) as caught:
        run(monkeypatch, *flags)
    assert "\n" not in str(caught.value)
