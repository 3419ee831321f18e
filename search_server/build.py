"""Builds an index: `python -m search_server.build --corpus wiki.jsonl --index wiki.index`.

In steps: every row is checked (a bad one ends the build before any work is done), then passages are indexed, then, with an
encoder, their vectors. All is written beside the index, in `NAME.part`, and renamed once it is whole. A build that was
killed goes on where it was. Memory stays bounded: see docs/search.md for sizes.
"""

import argparse
import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence

from search_server import corpus, dense, lexical, qdrant
from search_server.corpus import BadCorpus
from search_server.manifest import FORMAT, Manifest, corpus_files
from search_server.progress import Progress

HEAP_BYTES = 256 << 20  # of the writer
ROWS_A_COMMIT = 50_000  # what a kill costs at most
_LEAST_FREE_BYTES = 64 << 20  # on a disk with less, trouble of the writer is taken for a full disk


def build(
    paths: Sequence[pathlib.Path],
    folder: pathlib.Path,
    *,
    encoder: str = "",
    query_prefix: str = "",
    passage_prefix: str = "",
    rebuild: bool = False,
) -> Manifest:
    """The index in `folder`, built of the corpus unless it is there already."""
    corpus.check_files(paths)
    wanted = Manifest(
        format=FORMAT,
        files=corpus_files(paths),
        encoder=encoder,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
    )
    if folder.exists() and not rebuild:
        made = Manifest.read(folder)
        made.check_same(wanted, folder)
        return made
    part = folder.with_name(folder.name + ".part")
    with _locked(part), _disk_errors(part):
        begun = _begun(part, wanted)
        if begun.documents == 0:
            begun = begun.replace(documents=corpus.check_rows(paths))
            begun.write(part)
        _index_passages(paths, part, begun.documents)
        if encoder:
            begun = dense.index_vectors(paths, part, begun)
        begun.replace(is_whole=True).write(part)
        _put_in_place(part, folder)
    return Manifest.read(folder)


def _begun(part: pathlib.Path, wanted: Manifest) -> Manifest:
    """What an earlier build of the same corpus left, or a fresh start."""
    with contextlib.suppress(BadCorpus, OSError, ValueError):
        begun = Manifest.read(part, whole=False)
        begun.check_same(wanted, part)
        if begun.documents:
            print("search_server: the build goes on where it was", file=sys.stderr, flush=True)
        return begun
    for entry in part.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    wanted.write(part)
    return wanted


def _index_passages(paths: Sequence[pathlib.Path], part: pathlib.Path, total: int) -> None:
    folder = part / "passages"
    folder.mkdir(exist_ok=True)
    index = lexical.open_index(folder)
    done = index.searcher().num_docs  # a commit holds the first rows, without a gap
    if done == total:
        return
    rows = Progress("passages indexed", total, done).over(corpus.documents(paths, skip=done))
    with index.writer(HEAP_BYTES, 1) as writer:  # one thread: rows stay in order
        for number, (_, document) in enumerate(rows, start=done):
            writer.add_document(lexical.entry(document, number))
            if (number + 1) % ROWS_A_COMMIT == 0:
                writer.commit()
    index.reload()
    if index.searcher().num_docs != total:
        raise BadCorpus(f"{paths[0]}: the corpus changed while it was indexed: start again")


@contextlib.contextmanager
def _locked(part: pathlib.Path) -> Iterator[None]:
    """The folder, made if it is not there, for one builder at a time."""
    try:
        part.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BadCorpus(f"{part}: no place for an index: {error.strerror}; give --index") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BadCorpus(f"{part}: another process builds this index") from error
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(part: pathlib.Path) -> Iterator[None]:
    """Trouble with the disk as one line; libraries in other languages say it in the text of other errors."""
    try:
        yield
    except BadCorpus:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        is_full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if not isinstance(error, OSError):  # tantivy may only say that its writer was killed
            is_full = is_full or shutil.disk_usage(part).free < _LEAST_FREE_BYTES
        if not is_full and not isinstance(error, OSError):
            raise BadCorpus(f"{part}: the index could not be built: {error!s:.300}") from error
        reason = "the disk is full" if is_full else str(error)
        raise BadCorpus(
            f"{part}: {reason}: free some room and start again; what is done is kept"
        ) from error


def _put_in_place(part: pathlib.Path, folder: pathlib.Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def add_corpus_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say what is indexed, shared with the server."""
    parser.add_argument(
        "--corpus",
        nargs="+",
        type=pathlib.Path,
        default=[],
        metavar="FILE",
        help=".jsonl, .jsonl.gz or .parquet, with rows {id, contents} or {title, text}",
    )
    parser.add_argument(
        "--index",
        type=pathlib.Path,
        metavar="DIR",
        help="where the index is, or is put; default: the first corpus file's name with .index",
    )
    parser.add_argument(
        "--rebuild", action="store_true", help="build anew, and replace the index that is there"
    )
    parser.add_argument(
        "--encoder",
        default="",
        metavar="WHAT",
        help="module:function, from texts to float32 [n, d], or a directory of sentence-transformers",
    )
    parser.add_argument("--query-prefix", default="", help="put before queries for the encoder")
    parser.add_argument("--passage-prefix", default="", help="put before passages for the encoder")
    parser.add_argument(
        "--qdrant",
        default="",
        metavar="WHERE",
        help="a Qdrant server's URL, or a directory for its embedded mode; instead of --index",
    )
    parser.add_argument("--collection", default="", help="the collection in Qdrant")
    parser.add_argument(
        "--qdrant-key-file", default="", metavar="FILE", help="file with the API key of Qdrant"
    )


def index_folder(flags: argparse.Namespace) -> pathlib.Path:
    if flags.index:
        return flags.index
    if not flags.corpus:
        raise BadCorpus("give --corpus FILE, or --index DIR of an index that was built")
    return flags.corpus[0].with_name(flags.corpus[0].name + ".index")


def from_flags(flags: argparse.Namespace) -> Manifest:
    """Builds what the flags say."""
    return build(
        flags.corpus,
        index_folder(flags),
        encoder=flags.encoder,
        query_prefix=flags.query_prefix,
        passage_prefix=flags.passage_prefix,
        rebuild=flags.rebuild,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m search_server.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_corpus_flags(parser)
    flags = parser.parse_args()
    try:
        if not flags.corpus:
            raise BadCorpus("give --corpus FILE")
        if flags.qdrant:
            total = qdrant.upload(flags)
            print(f"{flags.collection}: {total:,} passages")
        else:
            made = from_flags(flags)
            print(f"{index_folder(flags)}: {made.documents:,} passages")
    except (BadCorpus, ImportError) as error:
        print(f"search_server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
