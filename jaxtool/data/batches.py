"""An endless, shuffled, resumable stream of batches of problems, on grain.

Covered: a new order each epoch, no problem twice in a batch, exact resumption, parts in fixed shares.
Not covered: where problems come from (`problems`, `arithmetic`), shares between hosts: each host draws all batches and
answers its part of each (`jaxtool.train.host_shares`).
"""

import dataclasses
import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import grain

from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """One of the sets that a list of problems is made of, one after the other."""

    size: int  # problems
    share: float  # of every run of the stream; those of all parts sum to 1


class ProblemBatches(Iterator[list[Problem]]):
    """Batches of different problems, for ever; in each epoch every entry comes once.

    A problem may stand in the list several times, which is how a small level keeps its share. What
    would come twice into one batch, which would merge two groups, waits for the next one.

    With parts the list is several sets, one after the other. Each is shuffled by itself and begins anew by itself; of
    every run of problems each has its share.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        *,
        batch_size: int,
        seed: int,
        parts: Sequence[Share] = (),
    ) -> None:
        """Nothing is read ahead and no thread is started.

        Args:
          problems: none of them may be more than one in batch_size of the list.
          batch_size: problems a batch.
          seed: of the order.
          parts: sizes and shares of the sets that the list is made of; (): it is one set.
        """
        self._problems = list(problems)
        self._batch_size = batch_size
        _check(self._problems, batch_size)
        _check_parts(parts, len(self._problems), batch_size)
        shares = [f"{part.size} {part.share}" for part in parts]
        text = "\n".join([str(seed), str(batch_size), *shares, *(p.problem_id for p in problems)])
        self._fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        # Hashed, because grain shuffles epoch e of seed s like epoch e - 1 of seed s + 1.
        shuffle_seed = stream_seed(seed, "problem batches") % 2**32
        if parts:
            dataset = _mixed(parts, seed)
        else:
            everything = grain.MapDataset.range(len(self._problems))
            dataset = everything.shuffle(seed=shuffle_seed).repeat()
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._indices = iter(dataset.to_iter_dataset(options))
        self._waiting: list[int] = []

    def __next__(self) -> list[Problem]:
        batch: dict[str, Problem] = {}
        again: list[int] = []
        waiting = deque(self._waiting)
        while len(batch) < self._batch_size:
            index = waiting.popleft() if waiting else int(next(self._indices))
            problem = self._problems[index]
            if problem.problem_id in batch:
                again.append(index)
            else:
                batch[problem.problem_id] = problem
        self._waiting = [*again, *waiting]
        return list(batch.values())

    def named(self, problem_ids: Sequence[str]) -> list[Problem]:
        """Problems of the list by their ids."""
        by_id = {problem.problem_id: problem for problem in self._problems}
        return [by_id[problem_id] for problem_id in problem_ids]

    def get_state(self) -> dict[str, Any]:
        """JSON-able position; from it on the stream is the same in any process."""
        return {
            "fingerprint": self._fingerprint,
            "grain": self._indices.get_state(),
            "waiting": list(self._waiting),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues at a position.

        Raises:
          ValueError: the position is one in other problems, or with another batch size or seed.
        """
        if state["fingerprint"] != self._fingerprint:
            raise ValueError(
                f"the saved position belongs to other problems, batch size or seed "
                f"({state['fingerprint']}, here {self._fingerprint}): restore them or start anew"
            )
        self._indices.set_state(state["grain"])
        self._waiting = list(state["waiting"])


def _mixed(parts: Sequence[Share], seed: int) -> grain.MapDataset[int]:
    """Indices of the whole list: each part shuffled and repeated by itself, interleaved by the shares."""
    datasets, start = [], 0
    for number, part in enumerate(parts):
        shuffle_seed = stream_seed(seed, "problem batches", number) % 2**32
        own = grain.MapDataset.range(start, start + part.size)
        datasets.append(own.shuffle(seed=shuffle_seed).repeat())
        start += part.size
    return grain.MapDataset.mix(datasets, [part.share for part in parts])


def _check_parts(parts: Sequence[Share], size: int, batch_size: int) -> None:
    """Raises ValueError if the parts are not the list, or one is too small for its share of a batch."""
    if parts and sum(part.size for part in parts) != size:
        raise ValueError(
            f"parts of together {sum(part.size for part in parts)} problems, not {size}"
        )
    for number, part in enumerate(parts):
        wanted = part.share * batch_size
        if wanted > part.size:
            raise ValueError(
                f"part {number} of the mixture holds {part.size} problems, and its share is {wanted:.1f} of "
                f"every batch of {batch_size}: give it a smaller weight, or a larger pool"
            )


def _check(problems: Sequence[Problem], batch_size: int) -> None:
    """Raises ValueError if batches of different problems cannot be made for ever."""
    if not 1 <= batch_size <= len(problems):
        raise ValueError(f"{batch_size=} must be in 1..{len(problems)}, the number of problems")
    by_id: dict[str, Problem] = {}
    for problem in problems:
        if by_id.setdefault(problem.problem_id, problem) != problem:
            raise ValueError(f"problem_id {problem.problem_id!r} stands for two different problems")
    problem_id, copies = Counter(p.problem_id for p in problems).most_common(1)[0]
    if copies * batch_size > len(problems):
        raise ValueError(
            f"{problem_id!r} stands {copies} times among {len(problems)} problems: more than once "
            f"in every batch of {batch_size}"
        )
