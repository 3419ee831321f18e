"""The search run files before their first step: what is right passes a dry run, what is wrong is one line."""

import json
import re
from pathlib import Path

import pytest
from helpers.search_runs import SearchWorld, write_world
from helpers.search_serving import serving, write_rows
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.config.loader import ConfigError
from jaxtool.model.sources import HfDirectory
from jaxtool.train import run_files
from jaxtool.train.dry_run import dry_run
from jaxtool.train.rl_loop import train

RUNS = ("search_r1_ppo", "search_r1_grpo", "otc_ppo_search", "otc_grpo_search")
RUN = "gin_configs/runs/otc_ppo_search.gin"  # includes the three others' parts
NOBODY = ("127.0.0.1:1",)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> SearchWorld:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def address(world) -> str:
    with serving("--corpus", str(world.corpus)) as server:
        yield server.address


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
    def load(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr(HfDirectory, "load", load)


@pytest.mark.parametrize("run", RUNS)
def test_a_dry_run_passes_on_the_files_own_mesh(world, address, run):
    """Eight devices stand for the slice: tensor-parallel by 4."""
    params = [*world.params((address,)), "Schedule.problems_per_step = 8"]
    found = list(dry_run(run_files.load_rl_run([f"gin_configs/runs/{run}.gin"], params)))
    texts = {check.name: check.text for check in found}
    assert "tensor=4" in texts["mesh"]
    assert texts["tools"] == "search(query)"
    assert texts["sandbox"] == "none: no tool of the run uses it"
    assert found[-1].name == "tools"


def refusals(config, workdir: Path) -> list[str]:
    """What the run and its dry run say."""
    said = []
    for start in (lambda: list(dry_run(config)), lambda: train(config, workdir=workdir, seed=0)):
        with pytest.raises((ValueError, OSError, RuntimeError)) as error:
            start()
        said.append(str(error.value))
    return said


def check_refused(world, tmp_path, addresses, *lines, message: str) -> None:
    params = [*world.params(addresses), "Schedule.problems_per_step = 8", *lines]
    for said in refusals(run_files.load_rl_run([RUN], params), tmp_path / "run"):
        assert re.search(message, said), said
        assert "\n" not in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("DATA = 'absent.jsonl'", "there is no problem file absent.jsonl"),
        ("TEST_DATA = 'absent.jsonl'", "there is no problem file absent.jsonl"),
        ("Schedule.problems_per_step = 1000", "144 training problems are fewer than"),
        ("MODEL_DIR = 'absent'", "absent"),
        ("RlConfig.renderer = 'retool'", "renderer 'retool' cannot call the tool 'search'"),
        ("EngineConfig.max_tokens = 450", "raise it to"),
    ],
)
def test_what_is_wrong_with_files_is_one_line(world, tmp_path, line, message):
    check_refused(world, tmp_path, NOBODY, line, message=message)


def test_a_row_without_its_set_is_named(world, tmp_path):
    rows = [{"question": "q", "golden_answers": ["a"], "data_source": "nq"}, {"question": "r"}]
    path = write_rows(tmp_path / "train.jsonl", rows)
    check_refused(
        world,
        tmp_path,
        NOBODY,
        f"DATA = {str(path)!r}",
        message=r"train\.jsonl:2: .*golden_answers",
    )


def test_a_wrong_tokenizer_is_named(world, tmp_path):
    """One without a chat template, as some base models have, and one of another model."""
    folder = write_byte_level(tmp_path / "other", vocab_size=900, text=[str(world.model)] * 9)
    lines = [f"w{i} x{i}" for i in range(400)]
    big = write_byte_level(tmp_path / "big", vocab_size=2000, text=lines, plain=lines)
    line = f"HfTokenizerDirectory.path = {str(big)!r}"
    check_refused(world, tmp_path, NOBODY, line, message="do not belong together")
    config = folder / "tokenizer_config.json"
    fields = json.loads(config.read_text())
    del fields["chat_template"]
    config.write_text(json.dumps(fields))
    line = f"HfTokenizerDirectory.path = {str(folder)!r}"
    check_refused(world, tmp_path, NOBODY, line, message="chat template")


def test_servers_that_are_not_there_or_know_too_little_are_named(world, address, tmp_path):
    check_refused(
        world,
        tmp_path,
        NOBODY,
        message=r"tool 'search': ToolUnavailable: .*127\.0\.0\.1:1/retrieve",
    )
    check_refused(
        world, tmp_path, (address,),
        "Search.known = (('capital of Norway', 'Bergen'),)",
        message=r"the passages of 'capital of Norway' lack 'Bergen': 'Doc 1\(Title: Oslo\)",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "0", "contents": '"A"\ntext'}, {"id": "1", "title": "B"}],
         r"wiki\.jsonl:2: needs 'contents', or 'text' and 'title'"),
        (None, r"wiki\.jsonl': there is no such file"),
    ],
)  # fmt: skip
def test_a_corpus_that_cannot_be_served_is_named(world, tmp_path, rows, message):
    corpus = tmp_path / "wiki.jsonl"
    if rows is not None:
        write_rows(corpus, rows)
    line = f"Search.corpus = {str(corpus)!r}"
    check_refused(world, tmp_path, (), line, message=f"Search.corpus = .*{message}")


@pytest.mark.parametrize("lines", [["SEARCH = ()"], ["Search.corpus = 'wiki.jsonl'"]])
def test_a_search_without_servers_and_corpus_or_with_both_is_refused(world, lines):
    with pytest.raises(ConfigError, match=r"Search\.addresses.*give one of them") as error:
        run_files.load_rl_run([RUN], [*world.params(NOBODY), *lines])
    assert "\n" not in str(error.value)
