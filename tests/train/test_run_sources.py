"""What gin binds of a run's sources: options reach tokenizers and the sandbox, and the record builds the same."""

import asyncio
import contextlib
import json

import pytest
from helpers.tiny_tokenizers import write_byte_level, write_sentencepiece

from jaxtool.config import loader
from jaxtool.tools.preflight import PreflightError
from jaxtool.train import sources
from jaxtool.train.sources import HfTokenizerDirectory, SentencePieceModel

MESSAGES = [{"role": "user", "content": "Hi"}]
HEADER = "from __gin__ import dynamic_registration\nfrom jaxtool.train import sources\n"


def load(target, folder, text):
    """What the file builds; its record must build the same."""
    file = folder / "source.gin"
    file.write_text(HEADER + text)
    config = loader.load(target, files=[file])
    record = loader.write_operative_config(folder / "record", config)
    assert loader.load(target, files=[record]) == config
    return config


def test_template_variables_reach_the_template(tmp_path):
    path = write_byte_level(tmp_path / "model")
    settings = json.loads((path / "tokenizer_config.json").read_text())
    template = "{% if enable_thinking is false %}quick{% else %}slow{% endif %} {{ level }}"
    settings["chat_template"] = template
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    bound = f"sources.HfTokenizerDirectory.path = {str(path)!r}\n"
    assert load(HfTokenizerDirectory, tmp_path, bound).load().render_chat(MESSAGES) == "slow "
    bound += (
        "sources.HfTokenizerDirectory.template_variables = "
        "(('enable_thinking', False), ('level', 2))\n"
    )
    source = load(HfTokenizerDirectory, tmp_path, bound)
    assert source.template_variables == (("enable_thinking", False), ("level", 2))
    assert source.template_variables[0][1] is False  # not 0, which this template takes for a yes
    assert source.load().render_chat(MESSAGES) == "quick 2"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ((("tokenize", True),), "template_variables: 'tokenize' is set by this code"),
        ((("a", 1), ("a", 2)), "template_variables: 'a' is there twice"),
    ],
)
def test_variables_that_cannot_be_passed_are_refused(variables, message):
    with pytest.raises(ValueError, match=message):
        HfTokenizerDirectory(path="x", template_variables=variables)


def test_a_sentencepiece_model_with_its_template(tmp_path):
    path = write_sentencepiece(tmp_path / "tiny.model")
    bound = f"sources.SentencePieceModel.path = {str(path)!r}\n"
    tokenizer = load(SentencePieceModel, tmp_path, bound).load()
    ids = tokenizer.encode("[INST]the fox")
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == b"the fox"
    with pytest.raises(ValueError, match="has no chat template"):
        tokenizer.render_chat(MESSAGES)
    template = "{% for m in messages %}[INST] {{ m['content'] }}{% endfor %}{{ eos_token }}"
    bound += f"sources.SentencePieceModel.chat_template = {template!r}\n"
    tokenizer = load(SentencePieceModel, tmp_path, bound).load()
    assert tokenizer.render_chat(MESSAGES) == "[INST] Hi</s>"


def test_a_missing_sentencepiece_model_is_named(tmp_path):
    source = SentencePieceModel(path=str(tmp_path / "absent.model"))
    with pytest.raises(FileNotFoundError, match=r"no SentencePiece model at .*absent\.model"):
        source.load()


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, ()),
        ({"packages": ("pandas", "networkx")}, ("--packages", "pandas,networkx")),
        (
            {"packages": ("pandas",), "isolation": "landlock"},
            ("--isolation", "landlock", "--packages", "pandas"),
        ),
    ],
)
def test_a_run_asks_its_own_server_for_packages(settings, flags, monkeypatch):
    started = []

    @contextlib.contextmanager
    def start(*, flags):
        started.append(flags)
        yield "unix:/nowhere"

    async def check(addresses, config):
        assert addresses == ("unix:/nowhere",)

    monkeypatch.setattr(sources, "start_local_server", start)
    monkeypatch.setattr(sources, "_check", check)
    with (
        asyncio.Runner() as runner,
        sources.open_sandbox(sources.Sandbox(**settings), runner),
    ):
        assert started == [flags]


def test_a_server_that_lacks_a_package_of_the_run_is_refused_by_name():
    loaded = {"one:1": ("numpy", "pandas", "networkx"), "two:2": ("numpy", "pandas")}
    sources.check_packages(("pandas",), loaded)
    sources.check_packages((), {})
    with pytest.raises(PreflightError) as caught:
        sources.check_packages(("pandas", "networkx"), loaded)
    assert str(caught.value) == (
        "the sandbox server at two:2 has not loaded networkx, which Sandbox.packages asks for: "
        "start it with --packages pandas,networkx"
    )
