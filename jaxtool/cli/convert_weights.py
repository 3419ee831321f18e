"""Converts a GGUF file, a Hugging Face directory or a run's policy into a Hugging Face directory.

  python -m experiments.convert_weights --source smollm2 --target smollm2_hf
  python -m experiments.convert_weights --source model.gguf --target model_hf --dtype float32
  python -m experiments.convert_weights --source Qwen3-8B --adapter runs/mine/adapter --target merged
  python -m experiments.convert_weights --source runs/mine --like Qwen3-8B --target trained

The result holds config.json, safetensors and the tokenizer, so that transformers, vLLM and SGLang
serve it. One shard at a time is in memory, of a run's policy the whole in float32; no accelerator is used.
A run's policy holds no tokenizer and no maximum length: --like names the weights that the run came from, which do.
--adapter merges a LoRA adapter in PEFT's files, such as a run with RlConfig.lora leaves in WORKDIR/adapter. --json
PATH writes what is printed: {"source", "like" (null without), "adapter" (null without), "target", "architecture",
"parameters", "dtype", "bytes", "seconds", "files": [...]}.
Not covered: WORKDIR/checkpoints, which hold optimizer states too; torch .bin files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtool.cli import entry

if TYPE_CHECKING:  # imported where they are used: the flags need no jax
    from jaxtool.model.config import ModelConfig
    from jaxtool.model.weight_layout import Leaf

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
_VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
)  # a tokenizer has one of them


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        required=True,
        help="a .gguf file, a Hugging Face directory, org/name on the hub, smollm2, a run such as runs/mine, or a "
        "step such as runs/mine@100",
    )
    parser.add_argument(
        "--like",
        help="where a run's weights came from: a .gguf file, a Hugging Face directory, org/name on the hub, or "
        "smollm2",
    )
    parser.add_argument(
        "--target", required=True, type=entry.local_path, help="a directory without weights"
    )
    parser.add_argument("--adapter", type=entry.input_path, help="a PEFT adapter to merge in")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--max_shard_gib", type=float, default=4.0, help="size of one file")
    parser.add_argument(
        "--ignored_field",
        action="append",
        default=[],
        help="a field of config.json known to change nothing, may be repeated",
    )
    entry.add_json_flag(parser, "write what is printed here as well")
    return parser.parse_args(arguments)


def convert(arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes the target and returns what was written.

    Raises:
      FileNotFoundError: no weights at `source`, or no config or tokenizer at `like`.
      ValueError: a run's policy without `like`, or one of another model than `like`, naming the fields.
    """
    from jaxtool.model import hf_weights
    from jaxtool.model.weight_layout import leaves
    from jaxtool.rundir.checkpoints import is_policy

    start = time.monotonic()
    found = _on_this_machine(arguments)
    source = Path(found.source)
    if is_policy(source):
        config, files = _from_policy(source, found)
    elif arguments.like is not None:
        raise ValueError(
            f"--like is for the policy of a run, which {arguments.source!r} is not: leave it out, or name a run"
        )
    else:
        config, files = _from_weights(source, found)
    return {
        "source": arguments.source,
        "like": arguments.like,
        "adapter": None if arguments.adapter is None else str(arguments.adapter),
        "target": str(arguments.target),
        "architecture": hf_weights.read_config(arguments.target)["architectures"][0],
        "parameters": sum(leaf.size for leaf in leaves(config)),
        "dtype": arguments.dtype,
        "bytes": sum(file.stat().st_size for file in files),
        "seconds": round(time.monotonic() - start, 1),
        "files": [file.name for file in files],
    }


def _on_this_machine(arguments: argparse.Namespace) -> argparse.Namespace:
    """The same with paths in place of names; a model on the hub is downloaded."""
    from jaxtool.train.weights import local_weights

    like = None if arguments.like is None else local_weights(arguments.like, is_read=False)
    paths = {"source": local_weights(arguments.source, is_read=True), "like": like}
    return argparse.Namespace(**(vars(arguments) | paths))


def _from_weights(source: Path, arguments: argparse.Namespace) -> tuple[ModelConfig, list[Path]]:
    """A GGUF file or a Hugging Face directory, tensor by tensor."""
    import numpy as np

    from jaxtool.core.gguf_file import open_gguf
    from jaxtool.model import gguf_weights, hf_weights, peft
    from jaxtool.model.weight_layout import check_tensors, whole_from_file

    config, carried = _described(arguments.source, arguments.ignored_field)

    def write(file: Any) -> list[Path]:
        check_tensors(config, file)
        adapter = peft.load_peft(arguments.adapter, config) if arguments.adapter else None

        def tensor_of(leaf: Leaf, layer: int | None) -> np.ndarray:
            x = whole_from_file(leaf, layer, file)
            return x if adapter is None else adapter.added_to(leaf, layer, x)

        return hf_weights.write_hf(
            arguments.target,
            config,
            tensor_of,
            carried=carried,
            dtype=arguments.dtype,
            max_shard_bytes=_shard_bytes(arguments),
        )

    if source.is_dir():
        with hf_weights.SafeTensors(source) as file:
            if config.ties_embeddings:
                file.drop_tied_head()
            files = write(file)
    else:
        files = write(gguf_weights.GgufTensors(open_gguf(_gguf(arguments.source))))
    return config, files + _write_tokenizer(arguments.source, arguments.target)


def _from_policy(source: Path, arguments: argparse.Namespace) -> tuple[ModelConfig, list[Path]]:
    """What a run left, with the tokenizer and the carried fields of the weights it came from."""
    from jaxtool.model import hf_weights
    from jaxtool.parallel.axis_rules import single_device
    from jaxtool.rundir.checkpoints import SavedPolicy

    if arguments.like is None:
        raise ValueError(
            f"{arguments.source!r} holds no tokenizer and no maximum length: name the weights that "
            "the run came from by --like (a Hugging Face directory, a .gguf file, or smollm2)"
        )
    if arguments.adapter is not None:
        raise ValueError(
            "--adapter does not go with a run's policy, which is merged already: leave it out"
        )
    policy = SavedPolicy(path=str(source))
    like, carried = _described(arguments.like, arguments.ignored_field)
    _check_same_model(policy.model_config(), like, arguments)
    _check_has_tokenizer(arguments.like)
    config, params = policy.load(single_device(), 0)
    files = hf_weights.save_hf(
        arguments.target,
        config,
        params,
        carried=carried,
        dtype=arguments.dtype,
        max_shard_bytes=_shard_bytes(arguments),
    )
    return config, files + _write_tokenizer(arguments.like, arguments.target)


def _described(name: str, ignored_fields: list[str]) -> tuple[ModelConfig, dict[str, Any]]:
    """Config of a GGUF file or Hugging Face directory, and what of it a server needs besides."""
    from jaxtool.core.gguf_file import open_gguf
    from jaxtool.model import gguf_weights, hf_config, hf_weights

    if Path(name).is_dir():
        fields = hf_weights.read_config(name)
        config = hf_weights.read_model_config(name, tuple(ignored_fields))
        return config, {key: fields[key] for key in hf_config.CARRIED if key in fields}
    tensors = gguf_weights.GgufTensors(open_gguf(_gguf(name)))
    return gguf_weights.config_from_gguf(tensors), gguf_weights.carried_from_gguf(tensors)


def _check_same_model(
    policy: ModelConfig, like: ModelConfig, arguments: argparse.Namespace
) -> None:
    """Raises ValueError where config.json would say something else for the two.

    Run options, such as compute_dtype and remat, are not part of config.json and may differ.
    """
    from jaxtool.model.hf_config import config_to_hf

    any_length = {"max_position_embeddings": 0}
    ours, theirs = (config_to_hf(config, any_length) for config in (policy, like))
    other = [
        f"{name}={ours.get(name)} instead of {theirs.get(name)}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if other:
        raise ValueError(
            f"the policy {arguments.source!r} is another model than --like {arguments.like!r}: "
            f"{', '.join(other)}"
        )


def _check_has_tokenizer(like: str) -> None:
    folder = Path(like)
    if folder.is_dir() and not any((folder / name).is_file() for name in _VOCABULARY_FILES):
        raise FileNotFoundError(
            f"no tokenizer in --like {like!r}: it needs one of {_VOCABULARY_FILES}"
        )


def _write_tokenizer(name: str, target: Path) -> list[Path]:
    from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf

    source = Path(name)
    if source.is_dir():
        found = [file for file in TOKENIZER_FILES if (source / file).is_file()]
        return [Path(shutil.copy(source / file, target / file)) for file in found]
    saved = tokenizer_from_gguf(_gguf(name)).fast.save_pretrained(str(target))
    return [Path(file) for file in saved if Path(file).is_file()]


def _gguf(name: str) -> str | Path:
    from jaxtool.core.gguf_file import find_smollm2

    return find_smollm2() if name == "smollm2" else name


def _shard_bytes(arguments: argparse.Namespace) -> int:
    from jaxtool.model.hf_weights import GIB

    return int(arguments.max_shard_gib * GIB)


def main() -> None:
    arguments = parse()
    # A run's policy is read by jax: into host memory, and an accelerator in use stays alone.
    os.environ["JAX_PLATFORMS"] = "cpu"
    written = convert(arguments)
    for name, value in written.items():
        print(f"{name:13}{', '.join(value) if isinstance(value, list) else value}")
    if arguments.json:
        from jaxtool.core.files import write_text

        write_text(arguments.json, json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    entry.run(main)
