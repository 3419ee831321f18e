"""Converts a GGUF file or a Hugging Face directory into a Hugging Face directory.

  python -m experiments.convert_weights --source smollm2 --target smollm2_hf
  python -m experiments.convert_weights --source model.gguf --target model_hf --dtype float32
  python -m experiments.convert_weights --source Qwen3-8B --adapter runs/mine/adapter --target merged

The result holds config.json, safetensors and the tokenizer, so that transformers, vLLM and SGLang
serve it. One shard at a time is in memory, no accelerator is used. --adapter merges a LoRA adapter in
PEFT's files, such as a run with RlConfig.lora leaves in WORKDIR/adapter. --json PATH writes what is printed:
{"source", "adapter" (null without), "target", "architecture", "parameters", "dtype", "bytes", "seconds", "files": [...]}.
Not covered: checkpoints of a run; torch .bin files.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from experiments import launch

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


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", required=True, help="a .gguf file, a Hugging Face directory, or smollm2"
    )
    parser.add_argument("--target", required=True, type=Path, help="a directory without weights")
    parser.add_argument("--adapter", type=Path, help="a PEFT adapter to merge in")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--max_shard_gib", type=float, default=4.0, help="size of one file")
    parser.add_argument(
        "--ignored_field",
        action="append",
        default=[],
        help="a field of config.json known to change nothing, may be repeated",
    )
    parser.add_argument("--json", type=Path, help="write what is printed here as well")
    return parser.parse_args(arguments)


def convert(arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes the target and returns what was written."""
    import numpy as np

    from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf
    from jaxtool.model import gguf_weights, hf_config, hf_weights, peft
    from jaxtool.model.weight_layout import Leaf, check_tensors, leaves, whole_from_file

    start = time.monotonic()
    source = Path(arguments.source)
    target: Path = arguments.target

    def write(config: Any, file: Any, carried: dict[str, Any]) -> list[Path]:
        check_tensors(config, file)
        adapter = peft.load_peft(arguments.adapter, config) if arguments.adapter else None

        def tensor_of(leaf: Leaf, layer: int | None) -> np.ndarray:
            x = whole_from_file(leaf, layer, file)
            return x if adapter is None else adapter.added_to(leaf, layer, x)

        return hf_weights.write_hf(
            target,
            config,
            tensor_of,
            carried=carried,
            dtype=arguments.dtype,
            max_shard_bytes=int(arguments.max_shard_gib * hf_weights.GIB),
        )

    if source.is_dir():
        fields = hf_weights.read_config(source)
        config = hf_config.config_from_hf(fields, tuple(arguments.ignored_field))
        carried = {name: fields[name] for name in hf_config.CARRIED if name in fields}
        with hf_weights.SafeTensors(source) as file:
            if config.ties_embeddings:
                file.drop_tied_head()
            files = write(config, file, carried)
        found = [name for name in TOKENIZER_FILES if (source / name).is_file()]
        files += [Path(shutil.copy(source / name, target / name)) for name in found]
    else:
        path = gguf_weights.find_smollm2() if arguments.source == "smollm2" else source
        tensors = gguf_weights.GgufTensors(gguf_weights.open_gguf(path))
        config = gguf_weights.config_from_gguf(tensors)
        files = write(config, tensors, gguf_weights.carried_from_gguf(tensors))
        saved = tokenizer_from_gguf(path).fast.save_pretrained(str(target))
        files += [Path(name) for name in saved if Path(name).is_file()]
    return {
        "source": arguments.source,
        "adapter": None if arguments.adapter is None else str(arguments.adapter),
        "target": str(target),
        "architecture": hf_weights.read_config(target)["architectures"][0],
        "parameters": sum(leaf.size for leaf in leaves(config)),
        "dtype": arguments.dtype,
        "bytes": sum(file.stat().st_size for file in files),
        "seconds": round(time.monotonic() - start, 1),
        "files": [file.name for file in files],
    }


def main() -> None:
    arguments = parse()
    written = convert(arguments)
    for name, value in written.items():
        print(f"{name:13}{', '.join(value) if isinstance(value, list) else value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    launch.run(main)
