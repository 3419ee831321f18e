"""A run whose weights, tokenizer and data are in a bucket reads what it would read from files; it writes to none."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.loopback_bucket import BUCKET, loopback_bucket
from helpers.tiny_models import FAMILIES, random_params
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.core.files import begin_directory, write_text
from jaxtool.data.problems import ProblemFile
from jaxtool.data.rows import read_rows, stem_of
from jaxtool.model.hf_weights import save_hf
from jaxtool.model.sources import GgufFile, HfDirectory
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rundir.checkpoints import SavedPolicy, save_policy
from jaxtool.rundir.jsonl import open_for_append
from jaxtool.rundir.kept_policies import kept_policy
from jaxtool.rundir.workdir import hold_workdir
from jaxtool.tools.search import Search
from jaxtool.train.sources import HfTokenizerDirectory
from jaxtool.train.weights import local_weights, weights_named

QWEN = FAMILIES["qwen3"]
URL = f"gs://{BUCKET}"
ROWS = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What is put into the bucket."""
    root = tmp_path_factory.mktemp("bucket")
    params = random_params(QWEN)
    save_hf(root / "hf", QWEN, params, carried={"max_position_embeddings": 64}, dtype="float32")
    write_byte_level(root / "hf")
    save_policy(root / "runs/mine/policy", params, QWEN)
    save_policy(kept_policy(root / "runs/mine", 20), params, QWEN)
    for number, half in enumerate((ROWS[:20], ROWS[20:])):
        lines = "".join(json.dumps(row) + "\n" for row in half)
        (root / f"train-{number}.jsonl").write_text(lines)
    (root / "model.gguf").write_bytes(b"GGUF")
    return root


@pytest.fixture
def bucket(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GCE_METADATA_ROOT", "127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    files = [path for path in folder.rglob("*") if path.is_file()]
    objects = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    with loopback_bucket(objects) as server:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        yield server
    assert not Path("gs:").exists()


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("hf", HfDirectory(path=f"{URL}/hf")),
        ("hf/", HfDirectory(path=f"{URL}/hf")),
        ("model.gguf", GgufFile(path=f"{URL}/model.gguf")),
        ("runs/mine", SavedPolicy(path=f"{URL}/runs/mine/policy")),
        ("runs/mine/policy", SavedPolicy(path=f"{URL}/runs/mine/policy")),
        ("runs/mine@20", SavedPolicy(path=f"{URL}/runs/mine/policies/20")),
    ],
)
def test_a_name_in_a_bucket_leads_to_its_source_and_reads_nothing(bucket, name, source):
    assert weights_named(f"{URL}/{name}") == source
    assert weights_named(Path(f"{URL}/{name}")) == source  # as --init_from gives it
    assert bucket.read == []


@pytest.mark.parametrize("name", ["none", "runs/mine@30", "runs"])
def test_what_is_none_is_refused_in_one_line(bucket, name):
    with pytest.raises(FileNotFoundError, match="holds no saved policy and no weights") as refused:
        weights_named(f"{URL}/{name}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["hf", "runs/mine"])
def test_weights_of_a_bucket_are_those_of_the_files(bucket, folder, name):
    sharding = single_device()
    config, params = weights_named(f"{URL}/{name}").load(sharding, 0)
    wanted_config, wanted = weights_named(folder / name).load(sharding, 0)
    assert config == wanted_config
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    assert Path(local_weights(f"{URL}/{name}", is_read=True)).is_dir()


def test_a_check_of_the_header_copies_no_weights(bucket):
    source = weights_named(f"{URL}/hf")
    assert (
        source.check_header() == f"1 safetensors files in {URL}/hf, copied here when the run begins"
    )
    assert source.model_config().num_layers == QWEN.num_layers
    assert not [name for name in bucket.read if name.endswith(".safetensors")]


def test_a_plan_asks_no_bucket_and_a_run_compares_what_it_copies(bucket):
    other = HfDirectory(path=f"{URL}/hf", expected=FAMILIES["llama"])
    assert other.model_config().num_layers == FAMILIES["llama"].num_layers
    assert bucket.asked == []
    with pytest.raises(ValueError, match="holds another model than"):
        other.load(single_device(), 0)


def test_a_tokenizer_of_a_bucket(bucket, folder):
    ours = HfTokenizerDirectory(path=f"{URL}/hf").load()
    theirs = HfTokenizerDirectory(path=str(folder / "hf")).load()
    assert ours.encode("1 + 1 = 2") == theirs.encode("1 + 1 = 2")
    assert "hf/config.json" in bucket.read
    assert not [name for name in bucket.read if name.endswith(".safetensors")]


def test_problems_of_one_file_and_of_all_that_fit(bucket, folder):
    assert len(list(read_rows(f"{URL}/train-0.jsonl"))) == 20
    rows = [row.values for row in read_rows(f"{URL}/train-*.jsonl")]
    assert rows == ROWS
    assert stem_of(f"{URL}/train-0.jsonl") == "train-0"
    ours = ProblemFile(path=f"{URL}/train-1.jsonl").problems("train", 5, 0)
    assert ours == ProblemFile(path=str(folder / "train-1.jsonl")).problems("train", 5, 0)
    with pytest.raises(FileNotFoundError, match="there is nothing in"):
        list(read_rows(f"{URL}/none.jsonl"))


def test_a_corpus_that_is_not_there_is_said_before_a_server_starts(bucket):
    with pytest.raises(FileNotFoundError, match=f"there is nothing in {URL}/wiki.jsonl"):
        Search(corpus=f"{URL}/wiki.jsonl").open()


def test_nothing_is_written_to_a_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Path("gs://bucket/run")
    with pytest.raises(ValueError, match="--workdir gs://bucket/run: only places on this machine"):
        hold_workdir(place).__enter__()
    for write in (
        lambda: write_text(place / "a", "x"),
        lambda: begin_directory(place),
        lambda: open_for_append(place / "metrics.jsonl", None),
        lambda: save_hf(place, QWEN, random_params(QWEN), carried={}, dtype="float32"),
    ):
        with pytest.raises(ValueError, match=r"gs://bucket/run.*: only places on this machine"):
            write()
    assert list(tmp_path.iterdir()) == []
