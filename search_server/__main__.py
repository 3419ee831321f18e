"""`python -m search_server --corpus wiki.jsonl`: builds the index if it is not there, and serves it.

It prints one line with its address once it serves. Protocol, sizes and limits: docs/search.md.
"""

import argparse
import asyncio
import dataclasses
import os
import pathlib
import sys

from search_server import build, dense, logs, qdrant, server
from search_server.config import ServerConfig
from search_server.corpus import BadCorpus
from search_server.lexical import LexicalSearch
from search_server.manifest import Manifest
from search_server.search import Search


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search_server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_corpus_flags(parser)
    for field in dataclasses.fields(ServerConfig):
        flag = "--" + field.name.replace("_", "-")
        text = field.metadata["help"]
        if field.type is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
            continue
        if field.default is not dataclasses.MISSING and field.default != "":
            text += f" (default {field.default})"
        kind = field.type if isinstance(field.type, type) else str
        parser.add_argument(flag, type=kind, help=text, metavar=kind.__name__.upper())
    parser.add_argument(
        "--ready-file", metavar="PATH", help="written with the address once serving"
    )
    parser.add_argument(
        "--exit-on-stdin-eof", action="store_true", help="end when the starter's pipe closes"
    )
    parser.add_argument("--log-level", default="warning", choices=["debug", "info", "warning"])
    return parser


def config_of(flags: argparse.Namespace) -> ServerConfig:
    """Settings from parsed flags; what was not given keeps its default."""
    given = {name: value for name, value in vars(flags).items() if value is not None}
    names = {field.name for field in dataclasses.fields(ServerConfig)}
    return ServerConfig(**{name: value for name, value in given.items() if name in names})


def open_search(flags: argparse.Namespace, config: ServerConfig) -> Search:
    """What the flags say to search, built first where a corpus is given."""
    if flags.qdrant:
        return qdrant.QdrantSearch(flags)
    if flags.collection or flags.qdrant_key_file:
        raise BadCorpus("--collection and --qdrant-key-file need --qdrant")
    folder = build.index_folder(flags)
    made = build.from_flags(flags) if flags.corpus else Manifest.read(folder)
    passages = LexicalSearch(folder / "passages", uses_feedback=config.feedback)
    if passages.num_documents != made.documents:
        raise BadCorpus(
            f"{folder}: holds {passages.num_documents} passages of {made.documents}: "
            "it is damaged; build it with --rebuild"
        )
    if made.encoder:
        return dense.VectorSearch(folder, made, passages)
    if flags.encoder:
        raise BadCorpus(f"{folder}: was built without an encoder: give --corpus and --rebuild")
    return passages


def main() -> int:
    flags = _parser().parse_args()
    logs.set_up(flags.log_level)
    try:
        config = config_of(flags)
        search = open_search(flags, config)
    except (BadCorpus, ImportError, ValueError) as error:
        print(f"search_server: {error}", file=sys.stderr)
        return 2

    def announce(address: str) -> None:
        print(f"serving {search.num_documents:,} passages on {address}", flush=True)
        if flags.ready_file:
            path = pathlib.Path(flags.ready_file)
            part = path.with_name(path.name + ".part")
            part.write_text(address, "utf-8")
            os.replace(part, path)

    try:
        asyncio.run(server.serve(config, search, announce, flags.exit_on_stdin_eof))
    except (OSError, ValueError) as error:
        print(f"search_server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
