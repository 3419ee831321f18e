"""Dense retrieval with a tiny encoder: the interface, resuming, and one line for each fault. No claim of quality."""

import json

import numpy as np
import pytest
from helpers import search_serving
from helpers.search_serving import ENCODER, ROWS, count_words, write_rows

from search_server import build, dense
from search_server.corpus import BadCorpus
from search_server.encoder import Encoder
from search_server.lexical import LexicalSearch


@pytest.fixture
def corpus_file(tmp_path):
    return write_rows(tmp_path / "c.jsonl", ROWS)


def opened(folder, made):
    return dense.VectorSearch(folder, made, LexicalSearch(folder / "passages"))


def test_the_nearest_passage_comes_first_with_its_cosine(corpus_file, tmp_path):
    made = build.build([corpus_file], tmp_path / "i", encoder=ENCODER)
    search = opened(tmp_path / "i", made)
    contents = [document.contents for _, document in build.corpus.documents([corpus_file])]
    for number, hits in enumerate(search.search(contents, 10)):
        assert len(hits) == len(ROWS) == search.num_documents
        assert json.loads(hits[0].document)["contents"] == contents[number]
        assert hits[0].score == pytest.approx(1.0, abs=2e-3)  # vectors are kept in 16 bits
        exact = sorted(_cosines(contents, contents[number]), reverse=True)
        assert [hit.score for hit in hits] == pytest.approx(exact, abs=2e-3)


def _cosines(texts, query):
    vectors = count_words([*texts, query])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors[:-1] @ vectors[-1]).tolist()


def test_encoding_goes_on_after_the_last_whole_row(corpus_file, tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "ROWS_A_BATCH", 2)
    monkeypatch.setattr(search_serving, "count_words", _dies_at(3))
    with pytest.raises(KeyboardInterrupt):
        build.build([corpus_file], tmp_path / "i", encoder=ENCODER)
    with open(tmp_path / "i.part" / "vectors.f32", "ab") as file:
        file.write(b"half a row")
    seen = []
    monkeypatch.setattr(search_serving, "count_words", lambda t: seen.extend(t) or count_words(t))
    made = build.build([corpus_file], tmp_path / "i", encoder=ENCODER, passage_prefix="")
    assert [text.partition("\n")[0] for text in seen[1:]] == [
        '"Lord High Treasurer"', '"The Who"', '"Zoë Straße"'
    ]  # fmt: skip
    [hits] = opened(tmp_path / "i", made).search([seen[1]], 1)
    assert json.loads(hits[0].document)["id"] == "700"


def _dies_at(call):
    calls = []

    def encode(texts):
        calls.append(texts)
        if len(calls) == call:  # the first asks for the width
            raise KeyboardInterrupt
        return count_words(texts)

    return encode


def test_prefixes_are_put_before_what_is_encoded(corpus_file, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(search_serving, "count_words", lambda t: seen.extend(t) or count_words(t))
    made = build.build(
        [corpus_file], tmp_path / "i", encoder=ENCODER, passage_prefix="passage: ", query_prefix="query: "
    )  # fmt: skip
    opened(tmp_path / "i", made).search(["Temple"], 1)
    assert seen[1].startswith('passage: "Shirley Temple"')
    assert seen[-1] == "query: Temple"


def test_an_index_of_another_encoder_is_refused(corpus_file, tmp_path, monkeypatch):
    made = build.build([corpus_file], tmp_path / "i", encoder=ENCODER)
    with pytest.raises(BadCorpus, match=r"built with --encoder .*, not ''"):
        build.build([corpus_file], tmp_path / "i")
    monkeypatch.setattr(search_serving, "count_words", lambda texts: np.ones((len(texts), 5)))
    with pytest.raises(BadCorpus, match=r"has vectors of 32 numbers, --encoder .* gives 5"):
        opened(tmp_path / "i", made)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "neither a directory nor module:function"),
        ("no.such.module:encode", "No module named 'no'.*PYTHONPATH"),
        ("helpers.search_serving:nothing", "has no function nothing"),
        ("json:JSONDecodeError", "json:JSONDecodeError: "),
    ],
)
def test_an_encoder_that_cannot_be_is_refused_by_name(name, said):
    with pytest.raises(BadCorpus, match=said):
        Encoder(name)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda texts: np.ones(4), r"gives shape \(4,\) for 1 texts, not \[n, d\]"),
        (lambda texts: np.ones((3, 4)), "gives shape"),
        (lambda texts: np.full((1, 4), np.nan), "not finite"),
        (lambda texts: "words", "ValueError"),
    ],
)
def test_vectors_that_cannot_be_are_refused(given, said, monkeypatch):
    monkeypatch.setattr(search_serving, "count_words", given)
    with pytest.raises(BadCorpus, match=said):
        Encoder(ENCODER)


@pytest.mark.parity
def test_a_directory_of_sentence_transformers_gives_the_mean_of_its_tokens(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    model.save_pretrained(tmp_path)
    encoder = Encoder(str(tmp_path))
    with torch.inference_mode():
        states = model(**tokenizer("a b", return_tensors="pt")).last_hidden_state[0]
    alone = torch.nn.functional.normalize(states.mean(0), dim=0).numpy()
    padded = encoder.vectors(["a b", "a b c a b c"])
    np.testing.assert_allclose(padded[0], alone, atol=1e-5)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    first = torch.nn.functional.normalize(states[0], dim=0).numpy()
    np.testing.assert_allclose(Encoder(str(tmp_path)).vectors(["a b"])[0], first, atol=1e-5)
