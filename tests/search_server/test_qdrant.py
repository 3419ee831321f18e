"""A Qdrant collection behind the protocol, by the client's embedded mode."""

import argparse
import json

import pytest
from helpers.search_serving import ENCODER, ROWS, write_rows

from search_server import build, corpus, qdrant
from search_server.corpus import BadCorpus
from search_server.search import SearchFailed


@pytest.fixture
def corpus_file(tmp_path):
    return write_rows(tmp_path / "c.jsonl", ROWS)


def flags(tmp_path, *more):
    parser = argparse.ArgumentParser()
    build.add_corpus_flags(parser)
    where = ["--qdrant", str(tmp_path / "qdrant"), "--collection", "wiki", "--encoder", ENCODER]
    return parser.parse_args([*where, *more])


@pytest.fixture
def filled(tmp_path, corpus_file):
    assert qdrant.upload(flags(tmp_path, "--corpus", str(corpus_file))) == len(ROWS)
    return tmp_path


def test_the_nearest_passages_come_first(filled, corpus_file):
    search = qdrant.QdrantSearch(flags(filled))
    assert search.num_documents == len(ROWS)
    contents = [document.contents for _, document in corpus.documents([corpus_file])]
    for number, hits in enumerate(search.search(contents, 3)):
        assert len(hits) == 3
        assert json.loads(hits[0].document)["contents"] == contents[number]
        assert hits[0].score == pytest.approx(1.0, abs=1e-4)
    search._client.close()


def test_a_fill_that_was_killed_goes_on(tmp_path, corpus_file, monkeypatch):
    monkeypatch.setattr(qdrant, "_POINTS_A_BATCH", 2)
    rows = corpus.documents

    def dies(paths, skip=0):
        for number, row in enumerate(rows(paths, skip=skip)):
            if number == 3 and dies.armed:
                raise KeyboardInterrupt
            yield row

    dies.armed = True
    monkeypatch.setattr(corpus, "check_rows", lambda paths: len(ROWS))
    monkeypatch.setattr(corpus, "documents", dies)
    with pytest.raises(KeyboardInterrupt):
        qdrant.upload(flags(tmp_path, "--corpus", str(corpus_file)))
    dies.armed = False
    assert qdrant.upload(flags(tmp_path, "--corpus", str(corpus_file))) == len(ROWS)


def test_what_cannot_be_served_is_refused_in_one_line(tmp_path, filled, corpus_file):
    for more, said in (
        (["--collection", "other"], "collection other: .*not found"),
        (["--collection", ""], "needs --collection"),
        (["--encoder", ""], "needs --encoder"),
        (["--index", "i"], "two places"),
        (["--corpus", str(corpus_file)], "filled by python -m search_server.build"),
        (["--qdrant-key-file", "k"], "is for a URL"),
        (["--qdrant", "http://127.0.0.1:9"], "--qdrant http://127.0.0.1:9, collection wiki: "),
    ):
        with pytest.raises(BadCorpus, match=said) as caught:
            qdrant.QdrantSearch(flags(filled, *more))
        assert "\n" not in str(caught.value)
    small = write_rows(tmp_path / "small.jsonl", ROWS[:1])
    with pytest.raises(BadCorpus, match="has 5 points, the corpus 1 rows"):
        qdrant.upload(flags(filled, "--corpus", str(small)))
    assert qdrant.upload(flags(filled, "--corpus", str(small), "--rebuild")) == 1


def test_an_engine_that_fails_later_is_a_failed_search(filled):
    search = qdrant.QdrantSearch(flags(filled))
    search._client.close()
    with pytest.raises(SearchFailed, match="Qdrant did not answer"):
        search.search(["a"], 1)
