"""Added tokens of several families of tokenizers decode to what the tokenizer itself decodes."""

import dataclasses
import json

import pytest
from helpers.tiny_tokenizers import CONTROL, write_byte_level
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from jaxtool.core.types import Problem
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.renderers.renderer import Renderer

# With marks of a word's beginning and of bytes, with spaces, with characters outside ASCII.
ADDED = ["▁▁", "▁▁▁▁", "▁if", "a▁b", "Ġif", "Ġ", "Ċ", "né e", "café", "｜x｜", "<tool>", "<0x41>"]
ADDED += ["<0xe2>", "<0xZZ>", "##ing", "\n\n", "  ", "日本", "<|▁end▁|>"]


def save(path, tokenizer: Tokenizer, **config):
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", **config}
    (path / "tokenizer_config.json").write_text(json.dumps(fields))
    return path


def gemma_like() -> Tokenizer:
    """BPE over ▁ with byte fallback, without a dummy prefix."""
    pieces = [*CONTROL, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcx"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def unigram() -> Tokenizer:
    """Unigram with Metaspace, in the manner of T5: no byte fallback."""
    scores = [("<unk>", 0.0), *((piece, -1.0) for piece in [*CONTROL, *"▁abcx", "<0x42>"])]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


@pytest.fixture(params=["byte_level", "gemma_like", "unigram"])
def directory(request, tmp_path):
    if request.param == "byte_level":
        rust = Tokenizer.from_file(str(write_byte_level(tmp_path) / "tokenizer.json"))
    else:
        rust = gemma_like() if request.param == "gemma_like" else unigram()
    rust.add_special_tokens(CONTROL)
    rust.add_tokens([AddedToken(text, normalized=False) for text in ADDED])
    return save(tmp_path, rust)


def test_every_token_decodes_to_what_the_tokenizer_decodes(directory):
    """In the middle of a text: at its start some decoders drop a space."""
    ours = tokenizer_from_dir(directory)
    first = ours.encode("a")[0]
    assert ours.token_bytes(first) == b"a"
    checked = 0
    for token_id in range(ours.vocab_size):
        if ours.fast.convert_ids_to_tokens(token_id) in ["<unk>", *CONTROL]:
            continue
        theirs = ours.fast.decode([first, token_id], clean_up_tokenization_spaces=False)
        got = (b"a" + ours.token_bytes(token_id)).decode("utf-8", errors="replace")
        assert got == theirs, ours.fast.convert_ids_to_tokens(token_id)
        checked += 1
    assert checked > len(ADDED)


def test_runs_of_spaces_that_are_tokens_come_back_as_spaces(tmp_path):
    """Gemma's ▁▁ is in the vocabulary and among the added tokens."""
    rust = gemma_like()
    rust.add_special_tokens(CONTROL)
    rust.add_tokens([AddedToken("▁▁", normalized=False)])
    tokenizer = tokenizer_from_dir(save(tmp_path, rust))
    run = tokenizer.fast.convert_tokens_to_ids("▁▁")
    assert tokenizer.token_bytes(run) == b"  "


def test_words_cut_by_their_neighbours_are_refused(tmp_path):
    rust = Tokenizer(models.WordPiece({"[UNK]": 0, "<|im_end|>": 1, "a": 2}, unk_token="[UNK]"))
    rust.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match=r"decoder \['WordPiece'\] is not supported"):
        tokenizer_from_dir(save(tmp_path, rust))


RENDERER = Renderer(
    name="plain",
    messages=(("user", "{question}"),),
    uses_chat_template=False,
    response_prefix="",
    tool=None,
    answer_close="",
    answer=AnswerFormat(),
)


@pytest.mark.parametrize(
    ("template", "start"),
    [
        (None, ()),
        ("<|im_start|> $A", ("<|im_start|>",)),
        ("<|im_start|> <|endoftext|> $A <|im_end|>", ("<|im_start|>", "<|endoftext|>")),
        ("$A <|im_end|>", ()),
    ],
)
def test_a_prompt_without_a_chat_template_begins_as_transformers_begins_it(
    directory, template, start
):
    rust = Tokenizer.from_file(str(directory / "tokenizer.json"))
    ids = {token: rust.token_to_id(token) for token in CONTROL}
    if template is not None:
        rust.post_processor = TemplateProcessing(single=template, special_tokens=[*ids.items()])
    rust.save(str(directory / "tokenizer.json"))
    tokenizer = tokenizer_from_dir(directory)
    assert tokenizer.start_ids == tuple(ids[token] for token in start)
    problem = Problem(problem_id="x", question="abc", answer="")
    prompt = RENDERER.prompt_ids(tokenizer, problem)
    assert prompt == [*tokenizer.start_ids, *tokenizer.encode("abc")]
    theirs = tokenizer.fast("abc").input_ids
    assert prompt[: len(start) + 1][: len(start)] == theirs[: len(start)]
    # A template that writes its own start has one, not two; observations never get one.
    written = dataclasses.replace(RENDERER, messages=(("user", "".join(start) + "{question}"),))
    assert written.prompt_ids(tokenizer, problem) == prompt
    assert tokenizer.encode("abc") == prompt[len(start) :]


def test_no_code_of_a_tokenizer_is_run_and_no_question_asked(tmp_path):
    rust = gemma_like()
    rust.add_special_tokens(CONTROL)
    maps = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    path = save(tmp_path, rust, **maps)
    (path / "evil.py").write_text(f"open({str(path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(ValueError, match=r"cannot make a tokenizer of .* without running code"):
        tokenizer_from_dir(path)
    assert not (path / "ran").exists()
