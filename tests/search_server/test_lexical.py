"""BM25 on a small index: titles count more, feedback finds the second hop, no text of a query is an operator."""

import json
import os
import re
import tempfile

import pytest
from helpers.search_serving import ROWS, write_rows

from search_server import build
from search_server.lexical import MOST_QUERY_TERMS, LexicalSearch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lexical")
    more = [{"title": f"Filler {i}", "text": f"Nothing of note in place {i}."} for i in range(20)]
    more.append({"title": "Other", "text": "Corliss Archer Corliss Archer is said here twice."})
    more.append({"title": "Corliss Archer", "text": "A radio character of whom little is known."})
    build.build([write_rows(folder / "c.jsonl", [*ROWS, *more])], folder / "index")
    return folder / "index" / "passages"


@pytest.fixture(scope="module")
def search(folder):
    return LexicalSearch(folder, uses_feedback=False)


def ids(search, query, topk=3):
    [hits] = search.search([query], topk)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return [json.loads(hit.document)["id"] for hit in hits]


def test_a_word_of_the_title_counts_more_than_one_of_the_text(search):
    titles = [json.loads(hit.document)["contents"].split("\n")[0] for hit in
              search.search(["Corliss Archer"], 2)[0]]  # fmt: skip
    assert titles[0] == '"Corliss Archer"'


def test_stems_accents_and_case_are_one_word(search):
    assert ids(search, "GOVERNMENTS positions")[0] == "700"
    assert ids(search, "zoe strasse") == ["zoë"]
    assert ids(search, "brucke")[0] == "zoë"


def test_stop_words_count_only_where_there_is_nothing_else(search):
    assert search.terms("The Who") == ["the", "who"]
    assert search.terms("Who was the actress?") == ["actress"]
    assert ids(search, "The Who")[0] == "3"


def test_feedback_finds_what_the_first_passage_names(folder):
    """The question names Corliss Archer's film, the film names the actress."""
    query = "the comedy film Kiss and Tell"
    assert "temple" not in ids(LexicalSearch(folder, uses_feedback=False), query)
    found = ids(LexicalSearch(folder), query)
    assert found[0] == "kiss"
    assert "temple" in found


@pytest.mark.parametrize(
    "query",
    [
        'actress" OR "x', "actress NEAR(a b)", "actress*", "title:actress^9 (", "NOT actress", "-actress",
        "+actress AND", "actress\x00\ud800", "[actress TO zebra]", "/actress/", "{actress", "words:actress~2",
    ],
)  # fmt: skip
def test_operators_of_query_languages_are_words(search, query):
    assert "temple" in ids(search, query)
    words = re.sub(r"[^A-Za-z0-9]", " ", query)
    assert search.search([query], 20) == search.search([words], 20)


@pytest.mark.parametrize("query", ["", " \n", "?!", "\x00", "\ud800", "xyzzy", "x" * 100_000])
def test_a_query_without_a_known_word_finds_nothing(search, query):
    assert search.search([query], 3) == [[]]


def test_a_query_of_a_megabyte_is_cut_to_its_first_terms(search):
    query = "actress " + " ".join(f"w{i}" for i in range(150_000))
    assert len(search.terms(query)) == MOST_QUERY_TERMS
    assert ids(search, query)[0] == "temple"


def test_more_passages_than_there_are_can_be_asked_for(search):
    assert len(ids(search, "Temple", 100)) == 2


def test_an_index_in_a_read_only_folder_is_served(folder, tmp_path, monkeypatch):
    """As root every folder can be written to, so the answer about it is made up."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = sorted(folder.iterdir())
    made = []
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: made.append(tmp_path) or str(tmp_path))
    assert LexicalSearch(folder).search(["Temple"], 3)[0]
    assert made == [tmp_path]
    assert sorted(folder.iterdir()) == before


def test_documents_are_found_by_their_number(search):
    assert [json.loads(found)["id"] for found in search.documents([4, 0])] == ["zoë", "temple"]
