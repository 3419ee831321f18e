"""Three libraries for BM25 beside each other: `python -m benchmarks.search_engines [--documents 5000 100000]`.

SQLite FTS5 (porter stems, title column weighted 3), bm25s (snowball stems, title counted three times) and tantivy (the
same, as `search_server` uses it, without feedback). Each runs in a process of its own, one thread, on passages of HotpotQA
and recombinations of them. Needs `pip install bm25s PyStemmer` beside the extra `search`. It measures no server.

--json PATH writes {"summary": [{"engine", "documents", "recall_at_5" (on the real passages among them), "build_s",
"p50_ms", "p99_ms", "peak_mib" (of the process), "disk_mib"}]}.
"""

import argparse
import json
import pathlib
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks import search_corpus
from benchmarks.search_corpus import Row

ENGINES = ("fts5", "bm25s", "tantivy")
Search = Callable[[str, int], list[str]]
TITLE_WEIGHT = 3


def _words(text: str) -> list[str]:
    from search_server.analysis import STOP_WORDS

    return [word for word in re.findall(r"\w+", text.lower()) if word not in STOP_WORDS]


def fts5(rows: Iterable[Row], folder: pathlib.Path) -> Search:
    connection = sqlite3.connect(folder / "fts5.sqlite")
    connection.execute(
        "create virtual table d using fts5(id unindexed, title, text, tokenize='porter unicode61')"
    )
    values = ((row["id"], row["title"], row["text"]) for row in rows)
    connection.executemany("insert into d values (?, ?, ?)", values)
    connection.commit()
    order = f"bm25(d, 0, {TITLE_WEIGHT}, 1)"

    def search(query: str, count: int) -> list[str]:
        match = " OR ".join(f'"{word}"' for word in dict.fromkeys(_words(query)))
        found = connection.execute(
            f"select id from d where d match ? order by {order} limit ?", (match, count)
        )
        return [name for (name,) in found]

    return search


def bm25s(rows: Iterable[Row], folder: pathlib.Path) -> Search:
    import bm25s as library
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    vocabulary: dict[str, int] = {}
    documents, names = [], []
    for row in rows:
        text = f"{row['title']}\n" * TITLE_WEIGHT + row["text"]
        words = stemmer.stemWords(_words(text))
        documents.append([vocabulary.setdefault(word, len(vocabulary)) for word in words])
        names.append(row["id"])
    index = library.BM25(k1=1.2, b=0.75, method="lucene")
    index.index((documents, vocabulary), show_progress=False)
    index.save(str(folder / "bm25s"), show_progress=False)

    def search(query: str, count: int) -> list[str]:
        words = dict.fromkeys(stemmer.stemWords(_words(query)))
        scores = index.get_scores_from_ids([vocabulary[w] for w in words if w in vocabulary])
        best = np.argpartition(-scores, count)[:count]
        return [names[i] for i in best]

    return search


def tantivy(rows: Iterable[Row], folder: pathlib.Path) -> Search:
    import tantivy as library

    from search_server import analysis

    schema = (
        library.SchemaBuilder()
        .add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
        .add_text_field("words", tokenizer_name="words", index_option="freq")
        .build()
    )
    index = library.Index(schema, str(folder))
    analyzer = analysis.analyzer()
    index.register_tokenizer("words", analyzer)
    writer = index.writer(256 << 20, 1)
    for row in rows:
        document = library.Document()
        document.add_text("id", row["id"])
        document.add_text("words", f"{row['title']}\n" * TITLE_WEIGHT + row["text"])
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def search(query: str, count: int) -> list[str]:
        terms = dict.fromkeys(analyzer.analyze(" ".join(_words(query))))
        parts = [
            (library.Occur.Should, library.Query.term_query(schema, "words", term, "freq"))
            for term in terms
        ]
        found = searcher.search(library.Query.boolean_query(parts), count, count=False).hits
        return [str(searcher.doc(address).get_first("id")) for _, address in found]

    return search


def measure(engine: str, documents: int, questions: int) -> dict[str, object]:
    """One engine on one size, in this process."""
    rows, asked = search_corpus.read(search_corpus.HOTPOTQA)
    asked = asked[:questions]
    with tempfile.TemporaryDirectory(prefix="search-engines-") as name:
        folder = pathlib.Path(name)
        start = time.monotonic()
        search = {"fts5": fts5, "bm25s": bm25s, "tantivy": tantivy}[engine](
            search_corpus.grown(rows, documents, seed=0), folder
        )
        build_s = time.monotonic() - start
        search(asked[0][0], 5)
        found, times = [], []
        for question, _ in asked:
            start = time.monotonic()
            found.append(search(question, 5))
            times.append(1000 * (time.monotonic() - start))
        disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "engine": engine,
        "documents": min(documents, max(documents, len(rows))),
        "recall_at_5": search_corpus.recall_at(found, asked),
        "build_s": build_s,
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "disk_mib": disk / (1 << 20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, nargs="+", default=[4947], metavar="N")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--questions", type=int, default=500, help="fewer for large corpora")
    parser.add_argument("--json", type=pathlib.Path, help="write the rows here as well")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.in_this_process:
        print(json.dumps(measure(flags.engines[0], flags.documents[0], flags.questions)))
        return
    summary = []
    for documents in flags.documents:
        for engine in flags.engines:
            command = [sys.executable, "-m", "benchmarks.search_engines", "--in-this-process"]
            command += ["--engines", engine, "--documents", str(documents)]
            command += ["--questions", str(flags.questions)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            summary.append(json.loads(done.stdout))
            print(" ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
                           for key, value in summary[-1].items()), flush=True)  # fmt: skip
    if flags.json:
        flags.json.write_text(json.dumps({"summary": summary}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
