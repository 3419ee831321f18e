"""How full packing makes the learner's rows: packing itself, on lengths drawn as a plan assumes them."""

import functools

from jaxtool.plan.lengths import draw_lengths
from jaxtool.rollout.packing import pack, pack_shared


@functools.lru_cache(maxsize=64)
def filled_share(
    *,
    problems: int,
    samples: int,
    prompt_tokens: float,
    response_tokens: float,
    limit: int,
    row_tokens: int,
    spread: float,
    problem_share: float,
    shares_prompts: bool = False,
) -> float:
    """Tokens of trajectories over those of the rows that they are packed into, a prompt that they share counted once.

    Args:
      problems, samples: of a step, on all hosts.
      limit: of a response.
      spread, problem_share: as in `lengths_of`.

    An example: 4 answers of 5 tokens to prompts of 2 in rows of 16 take 2 rows, filled to 28 / 32.
    """
    prompt = max(1, round(prompt_tokens))
    drawn = draw_lengths(
        response_tokens,
        max(1, min(limit, row_tokens - prompt)),
        spread=spread,
        problem_share=problem_share,
        problems=problems,
        samples=samples,
    )
    lengths = [min(row_tokens, prompt + length) for length in drawn]
    if not shares_prompts:
        return sum(lengths) / (len(pack(lengths, row_tokens)) * row_tokens)
    problem = [i // samples for i in range(len(lengths))]
    rows = pack_shared(lengths, problem, [prompt - 1] * len(lengths), row_tokens)
    used = sum(segment.num_tokens for row in rows for segment in row)
    return used / (len(rows) * row_tokens)
