"""Where an evaluation's settings come from: gin files, a policy's own run, or a model's own files."""

import dataclasses
import json

import pytest
from helpers.tiny_hf import write_shape
from helpers.tiny_tokenizers import CHAT_TEMPLATE, write_byte_level

from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.text_judges import ExactMatch
from jaxtool.model.config import tiny
from jaxtool.study import evaluation_config
from jaxtool.study.evaluation_config import evaluated_config, run_file
from jaxtool.train import plain_config
from jaxtool.train.sources import HfTokenizerDirectory

RUN = "gin_configs/runs/quickstart_grpo.gin"
HEADER = "# target: jaxtool.train.rl_config.RlConfig\n"
NO_CHOICE = {"problems": None, "seed": 0, "response_tokens": None}


def questions(path, *rows):
    path.write_text(
        "".join(json.dumps(dict(zip(("question", "answer"), r, strict=True))) + "\n" for r in rows)
    )
    return f"plain={path}"


@pytest.fixture
def model(tmp_path):
    """A Hugging Face directory without weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_byte_level(folder)
    return write_shape(folder, tiny(512), context=4096)


def test_gin_files_win(model):
    config, files = evaluated_config([RUN], [], {"base": str(model)}, [], **NO_CHOICE)
    assert (config.renderer, files) == ("arithmetic_tools", (RUN,))


def test_a_run_brings_its_own_settings(tmp_path, model, monkeypatch):
    run = tmp_path / "mine"
    (run / "policies" / "100").mkdir(parents=True)
    (run / "policy").mkdir()
    (run / "operative_config.gin").write_text(HEADER)
    for name in (run, f"{run}@100", run / "policy"):
        assert run_file(str(name)) == run / "operative_config.gin"
    assert run_file(str(model)) is None
    assert run_file("org/name") is None
    monkeypatch.setattr(
        evaluation_config.run_files, "run_target", lambda _: evaluation_config.RlConfig
    )
    loaded = evaluation_config.run_files.load_rl_run([RUN])
    monkeypatch.setattr(evaluation_config.run_files, "load_rl_run", lambda *_: loaded)
    policies = {"base": str(model), "s100": f"{run}@100"}
    config, files = evaluated_config([], [], policies, [], **NO_CHOICE)
    assert files == (str(run / "operative_config.gin"),)
    assert config == loaded


def test_another_response_moves_the_shapes_with_it():
    plain, _ = evaluated_config([RUN], [], {}, [], **NO_CHOICE)
    longer, _ = evaluated_config([RUN], [], {}, [], **NO_CHOICE | {"response_tokens": 1000})
    more = 1000 - plain.rollout.max_response_tokens
    assert longer.rollout.max_response_tokens == 1000
    assert longer.engine.max_tokens == plain.engine.max_tokens + more
    assert longer.pack.row_tokens >= longer.engine.max_tokens


def test_a_model_alone_is_asked_by_defaults_that_fit_it(tmp_path, model, capsys):
    data = questions(tmp_path / "sums.jsonl", ("1 + 1", "2"), ("What is 20 + 3?" * 9, "23"))
    config, files = evaluated_config(
        [], [], {"base": str(model)}, [data], **NO_CHOICE | {"response_tokens": 50}
    )
    assert files == ()
    assert config.tokenizer == HfTokenizerDirectory(path=str(model))
    assert (config.renderer, config.judge) == ("retool", Mathematics(reports_lenient=True))
    assert config.rollout.max_response_tokens == 50
    # The longest prompt fits: plans check it with `fitting`.
    assert config.engine.max_tokens > 50
    assert "renderer retool, judge Mathematics" in capsys.readouterr().out


def test_words_are_judged_as_words(tmp_path, model):
    data = questions(tmp_path / "facts.jsonl", ("Where is it?", "in Oslo"), ("Who?", "the mayor"))
    config, _ = evaluated_config([], [], {"base": str(model)}, [data], **NO_CHOICE)
    assert config.judge == ExactMatch()


@dataclasses.dataclass
class Template:
    """A tokenizer of which only the chat template is asked."""

    text: str
    with_tools: str = ""

    def render_chat(self, messages, tools=()):
        del messages
        if not self.text:
            raise ValueError("no chat template")
        return self.text + (self.with_tools if tools else "")


@pytest.mark.parametrize(
    ("template", "renderer"),
    [
        (Template(""), "torl"),
        (Template(CHAT_TEMPLATE), "retool"),
        (Template(CHAT_TEMPLATE, "<tool_call>"), "hermes"),
        (Template(CHAT_TEMPLATE, "<tool_call><function=x>"), "qwen3_coder"),
    ],
    ids=["no_template", "no_tools", "json", "xml"],
)
def test_the_renderer_is_what_the_chat_template_can_write(template, renderer):
    assert plain_config.default_renderer(template) == renderer


def test_without_any_of_these_there_is_one_line(tmp_path, model):
    with pytest.raises(ValueError, match=r"which questions are meant\?.*--data aime24"):
        evaluated_config([], [], {"base": str(model)}, [], **NO_CHOICE)
    with pytest.raises(ValueError, match=r"--gin_param needs a run to change"):
        evaluated_config([], ["Schedule.steps = 1"], {"base": str(model)}, [], **NO_CHOICE)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "model_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"how are these policies asked\?.*--gin_file"):
        evaluated_config([], [], {"old": str(saved)}, [], **NO_CHOICE)
