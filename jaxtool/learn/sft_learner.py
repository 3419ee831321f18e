"""The learner of a cold start: one update of maximum likelihood a batch."""

import dataclasses

import numpy as np

from jaxtool.core.batch import TrainBatch
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.programs import cold_start_programs
from jaxtool.learn.sft import SftSetup
from jaxtool.learn.state import Metrics, TrainState, make_state, row_blocks, start_of_sum
from jaxtool.model.transformer import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftLearner:
    """What stays the same from step to step; the state goes in and comes out."""

    setup: SftSetup
    view: PolicyView

    def start(self, trained: Params) -> TrainState:
        """State before the first update; what is trained of the policy is copied."""
        return make_state(trained, self.setup.optimizer, self.setup.sharding)

    def update(self, state: TrainState, batch: TrainBatch) -> tuple[TrainState, Metrics]:
        """One update on a host batch: L = -Σ log p(token) / number of trained tokens."""
        setup, programs = self.setup, cold_start_programs(self.setup)
        count = np.float32(batch.loss_mask.sum())
        rows, last_rows = setup.sft.micro_batch_rows, setup.sft.last_block_rows
        total = start_of_sum(state.params, -(-batch.shape[0] // rows), setup.sharding)
        for block in row_blocks(batch, rows, setup.sharding, last_rows):
            total = programs.gradient_block.run(total, state.params, self.view, block, count)
        assert total is not None
        loss = total.loss
        state, grad_norm, skipped = programs.update.run(state, total)
        metrics = {"sft/loss_nats": loss, "sft/grad_norm": grad_norm}
        return state, metrics | {"sft/skipped_updates": skipped}
