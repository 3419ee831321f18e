"""Prompts that leave too little of a cache row for their response: found over a whole set, and named."""

import sys
from collections.abc import Callable, Sequence
from typing import Literal

from jaxtool.core.types import Problem
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.renderers.renderer import Renderer

LongPrompts = Literal["refuse", "filter"]
# Tokens that a prompt may have beyond those of template and question: a word on the border is cut otherwise.
_BORDER_TOKENS = 32
_MARK = "where the question stands"


def fitting_problems(
    problems: Sequence[Problem],
    *,
    renderer: Renderer,
    tokenizer: Tokenizer,
    max_response_tokens: int,
    max_tokens: int,
    long_prompts: LongPrompts,
    what: str,
    report: Callable[[str], None] | None = None,
) -> list[Problem]:
    """The problems whose prompts fit; tokenises those alone that could be too long.

    Args:
      max_response_tokens: room that a response needs.
      max_tokens: of a cache row.
      long_prompts: what happens to the others: an error, or a line that counts them.
      what: names the set, for example "the training problems".
      report: gets that line; standard error by default.

    Raises:
      ValueError: a prompt is too long, or all of them are.
    """
    room = max_tokens - max_response_tokens
    kept: list[Problem] = []
    long: list[tuple[Problem, int]] = []
    shortest, times = _shortest(problems, renderer, tokenizer)
    for problem in problems:
        # 1. A token is one byte at least. Prompts are looked at again when they are drawn.
        size = len(problem.question.encode("utf-8", "surrogatepass"))
        if shortest + times * (size + _BORDER_TOKENS) <= room:
            kept.append(problem)
            continue
        # 2. A token is one character of ASCII at least, and some tokenizers put one in front.
        text = renderer.prompt_text(tokenizer, problem.question)
        if text.isascii() and len(text) < room:
            kept.append(problem)
            continue
        # 3. The tokens themselves.
        length = len(renderer.prompt_ids(tokenizer, problem))
        if length > room:
            long.append((problem, length))
        else:
            kept.append(problem)
    if not long:
        return kept
    limits = f"EngineConfig.max_tokens={max_tokens} less {max_response_tokens=}"
    first, length = long[0]
    line = (
        f"{len(long)} of {what}, {len(problems)} in all, have prompts of more than {room} tokens "
        f"({limits}): the first is {first.problem_id!r} with {length}"
    )
    if long_prompts == "refuse" or not kept:
        longest = max(length for _, length in long)
        or_filter = ", or set RolloutConfig.long_prompts = 'filter'" if kept else ""
        raise ValueError(f"{line}; raise it to {longest + max_response_tokens} or more{or_filter}")
    (report or _print)(f"{line}; they are left out")
    return kept


def _shortest(
    problems: Sequence[Problem], renderer: Renderer, tokenizer: Tokenizer
) -> tuple[int, int]:
    """Tokens of the prompt with the shortest question, and how often a prompt holds its question."""
    if not problems:
        return 0, 1
    problem = min(problems, key=lambda problem: len(problem.question))
    times = renderer.prompt_text(tokenizer, _MARK).count(_MARK)
    return len(renderer.prompt_ids(tokenizer, problem)), times


def check_prompts_fit(
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    max_response_tokens: int,
    max_tokens: int,
) -> None:
    """Raises ValueError if a prompt leaves too little of a cache row for its response."""
    for problem, prompt in zip(problems, prompts, strict=True):
        limit = len(prompt) + max_response_tokens
        if limit > max_tokens:
            raise ValueError(
                f"problem {problem.problem_id!r}: a prompt of {len(prompt)} tokens and "
                f"{max_response_tokens=} exceed EngineConfig.max_tokens={max_tokens}: raise it to "
                f"{limit} or more"
            )


def _print(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)
