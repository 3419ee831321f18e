"""Files in buckets are read through copies that stay true; nothing is written to what is no local directory."""

import re
from pathlib import Path

import pytest
from helpers.loopback_bucket import BUCKET, loopback_bucket

from jaxtool.core.bucket_files import check_access, local_copy
from jaxtool.core.bucket_names import bucket_url, check_local

OBJECTS = {
    "data/train.jsonl": b'{"a": 1}\n',
    "model/config.json": b"{}",
    "model/weights.safetensors": b"weights",
    "model/deep/array/0": b"\x00\x01",
    "model/": b"",  # what the console makes for an empty folder
}


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GCE_METADATA_ROOT", "127.0.0.1:9")  # no machine gives credentials
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with loopback_bucket(OBJECTS) as server:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("gs://b/a", "gs://b/a"),
        (Path("gs://b/a"), "gs://b/a"),
        ("S3://b/a", "s3://b/a"),
        (Path("hdfs://host/a"), "hdfs://host/a"),
        ("runs/mine", None),
        ("/runs/a:b", None),
        ("runs/mine@100", None),
        ("C:/runs", None),  # a drive of Windows
        ("org/name:config", None),
    ],
    ids=str,
)
def test_a_url_is_told_from_a_path_also_after_pathlib(path, url):
    assert bucket_url(path) == url


def test_what_is_written_must_be_local():
    check_local("runs/mine", "--workdir")
    with pytest.raises(
        ValueError, match=r"--workdir gs://b/run: .* mount the bucket, with gcsfuse"
    ):
        check_local(Path("gs://b/run"), "--workdir")


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_file_is_copied_once_and_again_when_it_has_changed(bucket, scheme):
    url = f"{scheme}://{BUCKET}/data/train.jsonl"
    assert local_copy(url).read_bytes() == OBJECTS["data/train.jsonl"]
    assert local_copy(Path(url)).read_bytes() == OBJECTS["data/train.jsonl"]
    assert bucket.read == ["data/train.jsonl"]
    bucket.objects["data/train.jsonl"] = b"other"
    assert local_copy(url).read_bytes() == b"other"
    assert bucket.read == ["data/train.jsonl"] * 2


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_directory_is_copied_and_what_left_the_bucket_leaves_the_copy(bucket, scheme):
    url = f"{scheme}://{BUCKET}/model/"
    folder = local_copy(url, ("*.json",))
    assert [file.name for file in folder.rglob("*") if file.is_file()] == ["config.json"]
    assert local_copy(url) == folder
    assert (folder / "deep/array/0").read_bytes() == b"\x00\x01"
    assert (folder / "weights.safetensors").read_bytes() == b"weights"
    del bucket.objects["model/deep/array/0"]
    local_copy(url)
    assert not (folder / "deep/array/0").exists()
    assert bucket.read.count("model/config.json") == 1


def test_a_copy_that_was_deleted_is_made_again(bucket):
    copy = local_copy(f"gs://{BUCKET}/data/train.jsonl")
    copy.unlink()
    assert local_copy(f"gs://{BUCKET}/data/train.jsonl").read_bytes() == OBJECTS["data/train.jsonl"]


def test_a_local_path_stays_what_it_is(tmp_path):
    assert local_copy(tmp_path / "none") == tmp_path / "none"
    assert local_copy("data/a.jsonl") == Path("data/a.jsonl")


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        (f"gs://{BUCKET}/none", FileNotFoundError, "there is nothing in gs://loopback/none: see `gcloud storage ls"),
        ("hdfs://host/a", ValueError, "only gs://BUCKET/PATH and s3://BUCKET/PATH are read"),
        ("file:///tmp/a", ValueError, "only gs://BUCKET/PATH"),
        ("gs://B!/a", OSError, "gs://B! cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(bucket, url, error, message):
    with pytest.raises(error, match=re.escape(message)) as raised:
        local_copy(url)
    assert "\n" not in str(raised.value)


def test_a_bucket_that_forbids_says_how_to_log_in(bucket):
    bucket.forbids = True
    with pytest.raises(OSError, match=r"cannot be read .* gcloud auth application-default login"):
        local_copy(f"gs://{BUCKET}/data/train.jsonl")


def test_a_name_that_leads_out_of_the_cache_is_refused(bucket):
    bucket.objects["model/../../../escaped"] = b"x"
    with pytest.raises(ValueError, match="must not lead out of its folder"):
        local_copy(f"gs://{BUCKET}/model")


def test_access_is_tried_by_a_small_object_that_goes_again(bucket):
    assert "4 objects; one was written, read and deleted" in check_access(f"gs://{BUCKET}")
    assert set(bucket.objects) == set(OBJECTS)
    bucket.forbids = True
    with pytest.raises(OSError, match="cannot be read"):
        check_access(f"gs://{BUCKET}")
