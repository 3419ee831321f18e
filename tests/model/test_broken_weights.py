"""Weight files that are damaged, not there or not of this directory are refused by file and name."""

import json

import ml_dtypes
import numpy as np
import pytest
from helpers.tiny_files import write_gguf
from helpers.tiny_models import FAMILIES, random_params
from safetensors.numpy import load_file, save_file

from jaxtool.model.gguf_weights import check_gguf_header, load_gguf
from jaxtool.model.hf_weights import check_hf_header, load_hf, save_hf
from jaxtool.model.safetensors_file import SafeTensors
from jaxtool.model.sources import HfDirectory
from jaxtool.model.weight_layout import check_finite
from jaxtool.parallel.axis_rules import single_device

MODEL = FAMILIES["qwen2"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n"
INDEX = "model.safetensors.index.json"
NORM = "model.layers.1.input_layernorm.weight"


def write_hf(path, *, dtype="float32", shards=False):
    most = 20_000 if shards else 1 << 30
    carried = {"max_position_embeddings": 64}
    save_hf(path, MODEL, random_params(MODEL), carried=carried, dtype=dtype, max_shard_bytes=most)
    return path


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return write_hf(tmp_path_factory.mktemp("weights") / "sharded", shards=True)


@pytest.fixture
def index(sharded, tmp_path):
    """A copy's index; change it by `write_index`."""
    for file in sharded.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return json.loads((tmp_path / INDEX).read_text())["weight_map"]


def write_index(path, weight_map):
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


BROKEN = {
    "empty": (lambda whole: b"", "is empty: copy or download it again"),
    "pointer": (lambda whole: POINTER, "run `git lfs pull`"),
    "page": (lambda whole: b"<html>401</html>", "or is cut short|no JSON"),
    "header cut": (lambda whole: whole[:50], "is cut short|not JSON"),
    "data cut": (lambda whole: whole[:-8], "is cut short|not JSON"),
    "zeros": (lambda whole: bytes(len(whole)), "is cut short|not JSON"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["model-00002-of-00005.safetensors", INDEX, "config.json"])
def test_a_broken_file_is_named_before_a_tensor_is_read(tmp_path, index, name, kind):
    change, message = BROKEN[kind]
    assert (tmp_path / name).is_file()
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        check_hf_header(tmp_path)
    assert str(error.value).startswith(repr(str(tmp_path / name)))


@pytest.mark.parametrize(
    "kind", ["empty", "pointer", "header cut", "data cut", "fields cut", "many fields"]
)
def test_a_broken_gguf_file_is_named(tmp_path, kind):
    path = tmp_path / "model.gguf"
    write_gguf(path, "qwen2", MODEL, random_params(MODEL))
    whole = path.read_bytes()
    if kind == "fields cut":
        path.write_bytes(whole[:200])
    elif kind == "many fields":  # the count of fields, 2^40
        path.write_bytes(whole[:16] + (2**40).to_bytes(8, "little") + whole[24:])
    else:
        path.write_bytes(BROKEN[kind][0](whole))
    message = r"is empty|run `git lfs pull`|is cut short, or no GGUF file"
    with pytest.raises(ValueError, match=message) as error:
        check_gguf_header(path)
    assert str(error.value).startswith(repr(str(path)))


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "sub/model.safetensors",
        "..",
        ".",
        "",
        "a\\b",
        3,
        None,
        ["a"],
        "link",
    ],
)
def test_an_index_names_files_of_its_directory_only(tmp_path, index, name):
    outside = tmp_path.parent / "model.safetensors"
    shard = tmp_path / index[NORM]
    outside.write_bytes(shard.read_bytes())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "model.safetensors").write_bytes(shard.read_bytes())
    (tmp_path / "link").symlink_to(outside)
    write_index(tmp_path, index | {NORM: name})
    with pytest.raises(ValueError, match="which is no file of this directory") as error:
        SafeTensors(tmp_path)
    for part in (repr(str(tmp_path / INDEX)), repr(NORM), repr(name)):
        assert part in str(error.value)


def test_an_absolute_path_in_an_index_is_refused(tmp_path, index):
    write_index(tmp_path, index | {NORM: str(tmp_path / index[NORM])})
    with pytest.raises(ValueError, match="which is no file of this directory"):
        SafeTensors(tmp_path)


def test_links_of_the_hugging_face_cache_are_followed(tmp_path, sharded):
    snapshot, blobs = tmp_path / "snapshots" / "rev", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in sharded.iterdir():
        (blobs / f"sha-{file.name}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/sha-{file.name}")
    assert check_hf_header(snapshot) == check_hf_header(sharded)


@pytest.mark.parametrize("weight_map", [None, {}, [], "model.safetensors"])
def test_an_index_without_a_map_is_refused(tmp_path, index, weight_map):
    write_index(tmp_path, weight_map)
    with pytest.raises(ValueError, match=rf"{INDEX}': weight_map must give a file"):
        SafeTensors(tmp_path)


def test_weights_that_are_there_twice_are_refused(tmp_path, index):
    first, second = sorted(set(index.values()))[:2]
    both = load_file(tmp_path / first) | load_file(tmp_path / second)
    save_file(both, tmp_path / second)
    with pytest.raises(ValueError, match=rf"is in .*{first}' and in .*{second}'"):
        SafeTensors(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / first).read_bytes())
    with pytest.raises(ValueError, match=f"holds model.safetensors and {INDEX}"):
        SafeTensors(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [NORM, "model.embed_tokens.weight"])
def test_numbers_that_are_not_finite_are_refused_by_tensor_and_file(tmp_path, dtype, number, name):
    file = write_hf(tmp_path, dtype=dtype) / "model.safetensors"
    tensors = load_file(file)
    tensors[name].flat[-1] = number
    save_file(tensors, file)
    check_hf_header(tmp_path)  # reads no tensor
    with pytest.raises(ValueError, match=r"has NaN or infinite numbers \(1 of the") as error:
        load_hf(tmp_path, sharding=single_device())
    assert str(error.value).startswith(f"{str(file)!r}: tensor {name!r}")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_of_a_gguf_file_that_are_not_finite_are_refused(tmp_path, number):
    params = random_params(MODEL)
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    params["layers"]["mlp"]["up"]["kernel"] = kernel.at[1, 2, 3].set(number)
    write_gguf(tmp_path / "model.gguf", "qwen2", MODEL, params)
    with pytest.raises(ValueError, match=r"model.gguf': tensor 'blk.1.ffn_up.weight' has NaN or"):
        load_gguf(tmp_path / "model.gguf", sharding=single_device())


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_finite_number_of_a_float_type_passes_and_no_other(dtype):
    """The check reads bits: all 65,536 of the short types, and the borders of the long one."""
    kind = np.uint32 if dtype is np.float32 else np.uint16
    bits = np.arange(2**16, dtype=np.uint32)
    numbers = (bits << 16 if kind is np.uint32 else bits).astype(kind).view(dtype)
    with np.errstate(invalid="ignore"):  # ml_dtypes goes through float32
        finite = np.isfinite(numbers)
    check_finite(numbers[finite], "x", "f")
    check_finite(numbers[finite].reshape(1, -1)[:, ::2], "x", "f")
    check_finite(numbers[:0], "x", "f")
    assert 0 < np.count_nonzero(~finite) < 2**12
    with pytest.raises(ValueError, match=rf"\({np.count_nonzero(~finite)} of the 65536"):
        check_finite(numbers, "x", "f")


def test_a_missing_and_an_unexpected_tensor_are_named_with_the_place(tmp_path):
    file = write_hf(tmp_path) / "model.safetensors"
    tensors = load_file(file)
    save_file({name: x for name, x in tensors.items() if name != NORM}, file)
    with pytest.raises(ValueError, match=f"lack tensor '{NORM}'") as error:
        check_hf_header(tmp_path)
    assert repr(str(tmp_path)) in str(error.value)
    save_file(tensors | {"model.layers.0.self_attn.q_proj.lora_A": tensors[NORM]}, file)
    with pytest.raises(ValueError, match=r"hold 1 tensors .*'model.layers.0.*lora_A'") as error:
        check_hf_header(tmp_path)
    assert repr(str(tmp_path)) in str(error.value)


def test_a_field_of_a_config_is_refused_with_its_file(tmp_path):
    file = write_hf(tmp_path) / "config.json"
    nested = {"sliding_attention": {"rope_theta": 1e4}, "full_attention": {"rope_theta": 1e6}}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_parameters": nested}))
    for check in (check_hf_header, lambda path: HfDirectory(path=str(path)).model_config()):
        with pytest.raises(ValueError, match="rope_parameters has entries for") as error:
            check(tmp_path)
        assert str(error.value).startswith(repr(str(file)))
