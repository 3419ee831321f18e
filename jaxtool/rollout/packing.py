"""Which trajectories share a row: first-fit, with prompts apart or shared. Knows lengths, and no token."""

import dataclasses
from collections.abc import Hashable, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """Tokens `start` to `stop` of a trajectory, side by side in a row."""

    trajectory: int
    start: int = 0
    stop: int
    prefix: int = 0  # number, from 1, of the segment of the row that this one continues; 0: of none
    is_prefix: bool = False  # others continue it, and it is no one's own

    @property
    def num_tokens(self) -> int:
        return self.stop - self.start


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing: indices by row, at most `capacity` tokens each. Deterministic."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > capacity:
            raise ValueError(
                f"a trajectory of {length} tokens does not fit PackConfig.row_tokens={capacity}"
            )
        at = next((r for r, free in enumerate(room) if free >= length), None)
        if at is None:
            rows.append([])
            room.append(capacity)
            at = len(rows) - 1
        rows[at].append(index)
        room[at] -= length
    return rows


def pack_shared(
    lengths: Sequence[int], prompts: Sequence[Hashable], shared: Sequence[int], capacity: int
) -> list[list[Segment]]:
    """Rows of segments, at most `capacity` tokens each, in which equal prompts stand once. Deterministic.

    A prompt's first tokens are a segment; each of its trajectories is one that continues it. A trajectory
    whose prompt no other one of the row has is one whole segment.

    Args:
      lengths: tokens of each trajectory, its prompt included.
      prompts: equal where trajectories have the same prompt.
      shared: tokens of the prompt that may stand once. All but its last, which predicts the first token of
        the response: each trajectory begins with a copy, so that what predicts stands beside what it predicts.

    An example: three trajectories of 5, 6 and 5 tokens to one prompt of 4, and one of 7; capacity 12.

      row 0   prefix 0..3 | 3..6 of the second | 3..5 of the first | 3..5 of the third: 3 + 3 + 2 + 2 = 10
      row 1   0..7 of the other
    """
    # 1. Prompts by the tokens that they take as shared, the most first; of each the longest trajectory first.
    members: dict[Hashable, list[int]] = {}
    for i, prompt in enumerate(prompts):
        members.setdefault(prompt, []).append(i)
    totals = {
        prompt: shared[group[0]] + sum(lengths[i] - shared[i] for i in group)
        for prompt, group in members.items()
    }
    order = [
        i
        for prompt in sorted(members, key=lambda p: (-totals[p], members[p][0]))
        for i in sorted(members[prompt], key=lambda i: (-lengths[i], i))
    ]
    # 2. First fit: a row that holds the prompt and has room for the rest, else one with room for all of it.
    rows: list[dict[Hashable, list[int]]] = []
    room: list[int] = []
    for i in order:
        prompt, rest = prompts[i], lengths[i] - shared[i]
        if lengths[i] > capacity:
            raise ValueError(
                f"a trajectory of {lengths[i]} tokens does not fit PackConfig.row_tokens={capacity}"
            )
        beside = (r for r, row in enumerate(rows) if prompt in row and room[r] >= rest)
        alone = (r for r, free in enumerate(room) if free >= lengths[i])
        at = next(beside, next(alone, None))
        if at is None:
            rows.append({})
            room.append(capacity)
            at = len(rows) - 1
        room[at] -= rest if prompt in rows[at] else lengths[i]
        rows[at].setdefault(prompt, []).append(i)
    return [_segments(row, lengths, shared) for row in rows]


def _segments(
    row: dict[Hashable, list[int]], lengths: Sequence[int], shared: Sequence[int]
) -> list[Segment]:
    """The segments of a row, each prompt before what continues it."""
    out: list[Segment] = []
    for group in row.values():
        start = shared[group[0]]
        if len(group) == 1 or start <= 0:
            out += [Segment(trajectory=i, stop=lengths[i]) for i in group]
            continue
        out.append(Segment(trajectory=group[0], stop=start, is_prefix=True))
        prefix = len(out)
        out += [Segment(trajectory=i, start=start, stop=lengths[i], prefix=prefix) for i in group]
    return out
