"""Names of weights: each way leads to its source, a run's steps are those it kept, and what is none is refused in one line."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.loopback_hub import loopback_hub
from helpers.small_runs import MODEL, CountingTool, cold_start, cold_start_of, rl_config, train
from helpers.tiny_models import FAMILIES, random_params
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.cli import convert_weights
from jaxtool.cli.evaluate import named_policies
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.model.hf_weights import save_hf
from jaxtool.model.lora import LoraConfig
from jaxtool.model.sources import GgufFile, HfDirectory, RandomInit
from jaxtool.parallel.axis_rules import single_device
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.rundir.checkpoints import SavedPolicy, save_policy
from jaxtool.rundir.kept_policies import KeepPolicies, kept_policy, kept_steps
from jaxtool.train.hub_model import HubModel
from jaxtool.train.sources import HubTokenizer
from jaxtool.train.weights import check_same_model, default_name, weights_named

QWEN = FAMILIES["qwen3"]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    """A Hugging Face directory, a policy directory, and runs in several states."""
    folder = tmp_path_factory.mktemp("places")
    params = random_params(QWEN)
    save_hf(folder / "hf", QWEN, params, carried={"max_position_embeddings": 64}, dtype="float32")
    write_byte_level(folder / "hf")
    (folder / "model.gguf").touch()
    save_policy(folder / "runs" / "done" / "policy", params, QWEN)
    rows = [{"step": step, "x": 1.0} for step in range(30)]
    (folder / "runs" / "done" / "metrics.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in rows)
    )
    for step in (10, 20):
        save_policy(kept_policy(folder / "runs" / "done", step), params, QWEN)
    begun = folder / "runs" / "begun"
    begun.mkdir()
    (begun / "run.json").touch()
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("smollm2", GgufFile()),
        ("model.gguf", GgufFile(path="model.gguf")),
        ("hf", HfDirectory(path="hf")),
        ("runs/done", SavedPolicy(path="runs/done/policy")),
        ("runs/done/policy", SavedPolicy(path="runs/done/policy")),
        ("runs/done@10", SavedPolicy(path="runs/done/policies/10")),
        (
            "runs/done@30",
            SavedPolicy(path="runs/done/policy"),
        ),  # the last step is the policy itself
        ("runs/done/policies/20", SavedPolicy(path="runs/done/policies/20")),
        ("org/name", HubModel(repository="org/name")),
        ("org/name@v1.0", HubModel(repository="org/name", revision="v1.0")),
    ],
)
def test_each_way_to_name_weights(places: Path, monkeypatch, name: str, source):
    monkeypatch.chdir(places)
    assert weights_named(name) == weights_named(Path(name)) == source


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/done@15", "has not kept its policy of step 15: there are runs/done@10, runs/done@20, runs/done@30"),
        ("runs/done@last", "a step is a number, as in runs/done@100, or best; there are runs/done@10"),
        ("runs/begun", "the run runs/begun holds no saved policy yet, that of its last step; none was kept"),
        ("runs/done@best", "the run runs/done has kept no best policy: KeepPolicies.best keeps it"),
        ("runs/begun@5", "RlConfig.keep_policies keeps some"),
        ("runs", "runs holds no saved policy and no weights; runs/done has a policy"),
        ("adapter", "is an adapter without its model: merge it by experiments.convert_weights --adapter"),
        ("none.gguf", "there are no weights none.gguf: name a Hugging Face directory, a .gguf file, a run"),
        ("runs/none/policy", "there are no weights runs/none/policy"),
        ("smolm2", "there are no weights smolm2"),
    ],
)  # fmt: skip
def test_what_are_no_weights_is_refused_with_what_there_is(
    places: Path, monkeypatch, name, message
):
    monkeypatch.chdir(places)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)) as caught:
        weights_named(name)
    assert "\n" not in str(caught.value)


def test_files_get_the_options_of_the_runs_own_source(places: Path):
    like = HfDirectory(path="x", compute_dtype="bfloat16", remat="block", attention_block=256)
    found = weights_named(places / "hf", like)
    assert found == dataclasses.replace(like, path=str(places / "hf"))
    random = RandomInit(config=dataclasses.replace(QWEN, compute_dtype="bfloat16"))
    assert weights_named(places / "hf", random).model_config().compute_dtype == "bfloat16"
    policy = places / "runs" / "done"
    assert weights_named(policy, like).model_config() == QWEN  # a policy says them itself


def test_policies_are_called_by_their_runs_unless_they_are_named():
    assert [default_name(n) for n in ("runs/grpo/policy", "runs/grpo", "runs/grpo@100", "org/name", "m.gguf")] == [
        "grpo", "grpo", "grpo@100", "name", "m.gguf",
    ]  # fmt: skip
    given = ["base=hf/x=1", "runs/a", "runs/lr=1e-5"]
    wanted = {"base": "hf/x=1", "a": "runs/a", "lr=1e-5": "runs/lr=1e-5"}
    assert named_policies(given) == wanted
    with pytest.raises(ValueError, match="two policies are called 'a': say which is which"):
        named_policies(["runs/a", "other/a"])


def test_policies_of_two_models_are_not_compared():
    other = dataclasses.replace(QWEN, compute_dtype="bfloat16", remat="block")
    check_same_model("b", other, "a", QWEN)
    with pytest.raises(
        ValueError, match=r"policy 'b' is another model than 'a': d_ff=128 instead of"
    ):
        check_same_model("b", dataclasses.replace(QWEN, d_ff=128), "a", QWEN)


def test_a_model_on_the_hub_is_downloaded_when_it_is_needed(
    places: Path, monkeypatch, tmp_path: Path
):
    import huggingface_hub.constants

    files = {path.name: path.read_bytes() for path in (places / "hf").iterdir()}
    with loopback_hub({"someone/tiny": files}) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        source = weights_named("someone/tiny", HfDirectory(path="x", remat="block"))
        assert source.model_config() == dataclasses.replace(QWEN, remat="block")
        assert not any("safetensors" in asked for asked in hub.asked if "/resolve/" in asked)
        _, params = source.load(single_device(), 0)
        for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(random_params(QWEN)), strict=True):
            np.testing.assert_array_equal(x, y)
        tokenizer = HubTokenizer(repository="someone/tiny").load()
        assert tokenizer.encode("<code>") == tokenizer_from_dir(places / "hf").encode("<code>")
        target = tmp_path / "target"
        arguments = ["--source", "someone/tiny", "--target", str(target), "--dtype", "float32"]
        written = convert_weights.convert(convert_weights.parse(arguments))
        assert written["source"] == "someone/tiny"
        assert (target / "tokenizer.json").is_file()
        with pytest.raises(
            OSError, match=r"no weights no/such, and no such model on http://127"
        ) as caught:
            weights_named("no/such").model_config()
        assert "\n" not in str(caught.value)


def params_of(name: str | Path) -> list:
    return jax.tree.leaves(weights_named(name).load(single_device(), 0)[1])


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory) -> Path:
    """Four steps, every second one kept."""
    folder = tmp_path_factory.mktemp("kept")
    config = dataclasses.replace(rl_config(folder), keep_policies=KeepPolicies(every=2))
    train(config, workdir=folder / "run", seed=1, tool=CountingTool())
    return folder / "run"


def test_a_run_keeps_the_policies_of_the_steps_it_was_told(kept_run: Path, tmp_path: Path):
    """The kept one is that of the same run ended there, bit by bit; step 4 is the policy itself."""
    assert kept_steps(kept_run) == [2]
    assert weights_named(f"{kept_run}@4") == SavedPolicy(path=str(kept_run / "policy"))
    config = rl_config(tmp_path)
    short = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, steps=2))
    train(short, workdir=tmp_path / "run", seed=1, tool=CountingTool())
    for x, y, last in zip(
        params_of(f"{kept_run}@2"), params_of(tmp_path / "run"), params_of(kept_run), strict=True
    ):
        np.testing.assert_array_equal(x, y)
        assert not np.array_equal(x, last)


def test_a_run_starts_from_a_step_of_another(kept_run: Path, tmp_path: Path):
    config = rl_config(tmp_path)
    short = dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, steps=1),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=1e-9),
    )
    train(
        short,
        workdir=tmp_path / "run",
        seed=1,
        tool=CountingTool(),
        init_from=Path(f"{kept_run}@2"),
    )
    for x, y in zip(params_of(tmp_path / "run"), params_of(f"{kept_run}@2"), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-7)


def test_a_cold_start_with_an_adapter_keeps_merged_policies(tmp_path: Path):
    """The kept one is the policy of the same run ended there."""
    row = {
        "messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2!!"}]
    }
    (tmp_path / "demos.jsonl").write_text(json.dumps(row))
    demonstrations = DemonstrationFile(path=str(tmp_path / "demos.jsonl"))
    fields = {"lora": LoraConfig(rank=2), "keep_policies": KeepPolicies(every=1)}
    whole = cold_start_of(rl_config(tmp_path), [2], demonstrations, **fields)
    cold_start(whole, workdir=tmp_path / "two", seed=1)
    cold_start(dataclasses.replace(whole, steps=1), workdir=tmp_path / "one", seed=1)
    assert kept_steps(tmp_path / "two") == [1]
    for x, y in zip(params_of(f"{tmp_path}/two@1"), params_of(tmp_path / "one"), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
    cold_start(
        whole, workdir=tmp_path / "one", seed=1
    )  # goes on, and its last policy was one to keep
    assert kept_steps(tmp_path / "one") == [1]


def test_the_newest_so_many_are_kept(tmp_path: Path):
    run, params = tmp_path / "run", random_params(MODEL)
    keep = KeepPolicies(every=10, last=2)
    assert [keep.is_kept(step) for step in (5, 10, 11, 20)] == [False, True, False, True]
    for step in (10, 20, 100):
        save_policy(kept_policy(run, step), params, MODEL)
        keep.prune(run)
    assert kept_steps(run) == [20, 100]
    KeepPolicies(every=10).prune(run)
    assert kept_steps(run) == [20, 100]
    for fields in ({"every": 0}, {"every": 1, "last": 0}, {}, {"best": True, "last": 2}):
        with pytest.raises(ValueError, match="KeepPolicies"):
            KeepPolicies(**fields)
