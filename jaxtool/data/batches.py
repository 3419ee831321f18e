"""An endless, shuffled, resumable stream of batches of problems, on grain.

Covered: a new order each epoch, no problem twice in a batch, exact resumption.
Not covered: where problems come from (`problems`, `arithmetic`), shares between hosts.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import grain

from jaxtool.core.rng import stream_seed
from jaxtool.core.types import Problem


class ProblemBatches(Iterator[list[Problem]]):
    """Batches of different problems, for ever.

    An epoch ends where less than a batch is left; what is left comes in the next epochs, whose orders
    differ. So a batch never holds a problem twice, which would merge its groups.
    """

    def __init__(self, problems: Sequence[Problem], *, batch_size: int, seed: int) -> None:
        """Nothing is read ahead and no thread is started.

        Args:
          problems: with different ids.
          batch_size: problems a batch, at most as many as there are.
          seed: of the order.
        """
        if not 1 <= batch_size <= len(problems):
            raise ValueError(f"{batch_size=} must be in 1..{len(problems)}, the number of problems")
        ids = [problem.problem_id for problem in problems]
        if len(set(ids)) != len(ids):
            twice = next(problem_id for problem_id in ids if ids.count(problem_id) > 1)
            raise ValueError(f"problem_id {twice!r} stands for more than one problem")
        text = "\n".join([str(seed), str(batch_size), *ids])
        self._fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        # Hashed, because grain shuffles epoch e of seed s like epoch e - 1 of seed s + 1.
        dataset = (
            grain.MapDataset.source(list(problems))
            .shuffle(seed=stream_seed(seed, "problem batches") % 2**32)
            .batch(batch_size, drop_remainder=True, batch_fn=list)
            .repeat()
        )
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._iterator = iter(dataset.to_iter_dataset(options))

    def __next__(self) -> list[Problem]:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """JSON-able position; from it on the stream is the same in any process."""
        return {"fingerprint": self._fingerprint, "grain": self._iterator.get_state()}

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
        self._iterator.set_state(state["grain"])
