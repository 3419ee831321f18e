"""Mixtures: shares by hand, exact resumption, and a run without one unchanged bit by bit."""

import dataclasses
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence

import pytest

from jaxtool.core.types import Problem
from jaxtool.data.batches import ProblemBatches, Share
from jaxtool.data.mixtures import Mixture, Part
from jaxtool.data.problems import Split


def problems_of(name: str, count: int) -> list[Problem]:
    return [Problem(problem_id=f"{name}/{i}", question=f"{i}", answer="1") for i in range(count)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixed:
    """So many problems of a name."""

    name: str
    size: int

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        del split, seed
        if count is not None and count > self.size:
            raise ValueError(f"{count} asked of {self.name}, which holds {self.size}")
        return problems_of(self.name, self.size if count is None else count)


def mixture(*parts: tuple[str, int, float]) -> Mixture:
    return Mixture(parts=tuple(Part(task=Fixed(name=n, size=s), weight=w) for n, s, w in parts))


def names(problems: Sequence[Problem]) -> Counter:
    return Counter(p.problem_id.split("/")[0] for p in problems)


def test_shares_are_weights_that_sum_to_one_and_divide_a_count():
    mixed = mixture(("a", 100, 3.0), ("b", 100, 1.0))
    assert mixed.shares == (0.75, 0.25)
    assert names(mixed.problems("train", 8, 0)) == {"a": 6, "b": 2}
    assert names(mixed.problems("validation", 9, 0)) == {"a": 7, "b": 2}  # 6.75 and 2.25
    assert names(mixed.problems("test", None, 0)) == {"a": 100, "b": 100}
    assert [len(part) for part in mixed.by_part("train", 4, 0)] == [3, 1]


def test_a_mixture_that_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="b, which holds 2"):
        mixture(("a", 100, 1.0), ("b", 2, 1.0)).problems("train", 8, 0)
    with pytest.raises(
        ValueError, match="3 problems stand in two parts of the mixture, 'a/0' for one"
    ):
        mixture(("a", 3, 1.0), ("a", 3, 1.0)).problems("train", None, 0)
    with pytest.raises(ValueError, match="two parts or more"):
        mixture(("a", 3, 1.0))
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"Part\.weight"):
            Part(task=Fixed(name="a", size=1), weight=weight)


PARTS = (Share(size=40, share=0.75), Share(size=12, share=0.25))
LIST = [*problems_of("a", 40), *problems_of("b", 12)]


def stream(seed: int = 3, parts: tuple[Share, ...] = PARTS) -> ProblemBatches:
    return ProblemBatches(LIST, batch_size=8, seed=seed, parts=parts)


def test_every_batch_has_the_shares_and_a_small_part_comes_round_more_often():
    batches = list(itertools.islice(stream(), 60))
    assert all(names(batch) == {"a": 6, "b": 2} for batch in batches)
    taken = Counter(p.problem_id for batch in batches for p in batch)
    assert {taken[f"a/{i}"] for i in range(40)} == {9}  # 360 in nine passes over 40
    assert {taken[f"b/{i}"] for i in range(12)} == {10}  # 120 in ten over 12
    first, second = (Counter(p.problem_id for b in batches[i : i + 6] for p in b) for i in (0, 6))
    assert (
        sum(n for name, n in first.items() if name[0] == "b")
        == 12
        == len([n for n in first if n[0] == "b"])
    )
    assert [p for b in batches[:6] for p in b] != [p for b in batches[6:12] for p in b]
    assert first != second


def test_no_problem_is_twice_in_a_batch():
    for batch in itertools.islice(stream(), 60):
        assert len({p.problem_id for p in batch}) == 8


@pytest.mark.parametrize("at", [0, 1, 7, 23])
def test_a_position_is_restored_in_another_stream_exactly(at: int):
    first = stream()
    list(itertools.islice(first, at))
    state = json.loads(json.dumps(first.get_state()))
    second = stream()
    second.set_state(state)
    for _ in range(20):
        assert next(first) == next(second)


def test_another_weight_is_another_stream_and_is_refused_at_a_restore():
    other = stream(parts=(Share(size=40, share=0.5), Share(size=12, share=0.5)))
    with pytest.raises(ValueError, match="belongs to other problems, batch size or seed"):
        other.set_state(stream().get_state())
    assert next(stream(seed=3)) != next(stream(seed=4))


def test_parts_that_are_not_the_list_or_too_small_are_refused():
    with pytest.raises(ValueError, match="parts of together 50 problems, not 52"):
        stream(parts=(Share(size=40, share=0.5), Share(size=10, share=0.5)))
    small = (Share(size=51, share=0.5), Share(size=1, share=0.5))
    message = re.escape(
        "part 1 of the mixture holds 1 problems, and its share is 4.0 of every batch of 8"
    )
    with pytest.raises(ValueError, match=message):
        stream(parts=small)


def test_without_parts_the_order_is_pinned():
    """Runs that were begun before there were mixtures go on where they were."""
    plain = ProblemBatches(problems_of("a", 10), batch_size=4, seed=7)
    order = [[p.problem_id for p in batch] for batch in itertools.islice(plain, 3)]
    assert order == [
        ["a/5", "a/3", "a/7", "a/0"],
        ["a/1", "a/9", "a/8", "a/6"],
        ["a/4", "a/2", "a/3", "a/8"],
    ]
    assert plain.get_state()["fingerprint"] == "fd832fee6e7cbab1"
