"""The part `updates` of benchmarks/learner.py: one policy update against those of its peers."""

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.peers import START_SHAPES, Peer

Round = Callable[[], float]
_UNROLLED = 2048  # tokens of a row
_LIMIT_S = 180.0  # of one round: torch in bfloat16 takes many minutes where the processor has none


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table of updates."""

    shape: str
    dtype: str
    rows: int
    length: int
    rounds: int
    takes_turns: bool = (
        False  # with the peers, round by round; else one ends before the next begins
    )


def cases(is_quick: bool) -> list[Case]:
    """Of the table: the small shape in turns and alone, the larger one alone, for three do not fit into 24 GiB."""
    rounds = 3 if is_quick else 7
    dtypes = ("float32", "bfloat16")
    small = [
        Case("small", dtype, 16, 320, rounds, takes_turns)
        for dtype in dtypes
        for takes_turns in (True, False)
    ]
    return small + [Case("Qwen2.5-0.5B", dtype, 2, 256, min(rounds, 3)) for dtype in dtypes]


class Ours:
    """The learner at one shape."""

    def __init__(self, case: Case):
        from benchmarks.learner_setup import make_batch, make_setup, random_state

        shape = START_SHAPES[case.shape]
        # As the tiny configurations have it: unrolled layers are quicker on a CPU. Long rows as runs have them.
        options: dict[str, Any] = {"scans_layers": False}
        if case.length > _UNROLLED:
            options = {"scans_layers": True, "remat": "block", "attention_block": 512}
        self._setup = make_setup(shape, case.dtype, case.rows, 512, **options)
        self._state = random_state(self._setup)
        self._batch = make_batch(shape["vocab_size"], case.rows, case.length)

    def tokens_per_s(self) -> float:
        """Of one update."""
        import jax

        from jaxtool.learn.grpo_learner import GrpoLearner, place_batch
        from jaxtool.learn.policy_view import PolicyView

        learner = GrpoLearner(setup=self._setup, view=PolicyView())
        started = time.perf_counter()
        placed = place_batch(self._batch, self._setup)
        self._state, metrics = learner.update(self._state, placed)
        jax.block_until_ready((self._state, metrics))
        return self._batch.tokens.size / (time.perf_counter() - started)


def timed(
    ways: Mapping[str, Callable[[contextlib.ExitStack], Round]], case: Case
) -> dict[str, list[float]]:
    """Tokens/s of each round, after one that compiles and warms up; see `Case.takes_turns`."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    together = [list(ways)] if case.takes_turns else [[name] for name in ways]
    for names in together:
        with contextlib.ExitStack() as stack:
            rounds = {name: ways[name](stack) for name in names}
            for name, one in list(rounds.items()):
                try:
                    one()
                except TimeoutError as slow:
                    print(f"{case.shape} {case.dtype}: left out, {slow}", flush=True)
                    del rounds[name]
            for _ in range(case.rounds):
                for name, one in rounds.items():
                    seen[name].append(one())
    return seen


def updates(
    chosen: list[Case], is_quick: bool, pythons: dict[str, str], peak_tflops: float | None = None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One row per case; versions of the peers."""
    rows: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    for case in chosen:
        workers = [(name, python, case.dtype) for name, python in pythons.items()]
        if case.dtype == "bfloat16":
            if is_quick:  # autocast over float32 parameters is the slower of torch's two, by far
                workers = [worker for worker in workers if worker[0] != "transformers"]
            workers += [(n, p, "pure_bfloat16") for n, p in pythons.items() if n == "transformers"]

        def peer(
            stack: contextlib.ExitStack, name: str, python: str, dtype: str, case: Case = case
        ) -> Round:
            options = {"shape": START_SHAPES[case.shape], "dtype": dtype}
            worker = stack.enter_context(Peer(name, python, "learner_peers.py", options))
            versions[name] = worker.versions
            return functools.partial(worker.tokens_per_s, case.rows, case.length, limit_s=_LIMIT_S)

        ways: dict[str, Callable[[contextlib.ExitStack], Round]] = {
            f"{name}, parameters too" if dtype == "pure_bfloat16" else name: functools.partial(
                peer, name=name, python=python, dtype=dtype
            )
            for name, python, dtype in workers
        }
        ways["jaxtool"] = lambda stack, case=case: Ours(case).tokens_per_s
        seen = timed(ways, case)
        speed = {name: statistics.median(values) for name, values in seen.items() if values}
        ours = speed.pop("jaxtool")
        ratios = {name: ours / value for name, value in speed.items()}
        bound = bound_tokens_per_s(case)
        too_slow = {
            name: ours / (case.rows * case.length / _LIMIT_S) for name in seen if not seen[name]
        }
        rows.append(
            dataclasses.asdict(case)
            | {"tokens_per_s": {"jaxtool": ours} | speed, "ratios": ratios}
            | {"ratios_at_least": too_slow, "bound_tokens_per_s": bound}
            | {"share_of_bound": ours / bound}
            | _rate(case, ours, peak_tflops)
            | {"bound_ratios": {name: bound / value for name, value in speed.items()}}
            | {"rounds_tokens_per_s": seen}
        )
        shown = "  ".join(
            f"{name} {value:.0f} ({ratios[name]:.2f} x, at most {bound / value:.2f})"
            for name, value in speed.items()
        )
        shown += "".join(f"  {name} (over {ratio:.1f} x)" for name, ratio in too_slow.items())
        print(
            f"{case.shape} {case.dtype} {case.rows} x {case.length} "
            f"{'in turns' if case.takes_turns else 'alone'}: jaxtool {ours:.0f} tokens/s, "
            f"{100 * ours / bound:.0f} % of what its products allow  " + shown,
            flush=True,
        )
    return rows, versions


def _rate(case: Case, tokens_per_s: float, peak_tflops: float | None) -> dict[str, float | None]:
    """Products a second that the update's own tokens take; what is computed again does not count."""
    from benchmarks.learner_setup import update_flops

    flops = update_flops(START_SHAPES[case.shape], case.rows, case.length)
    rate = flops / (case.rows * case.length) * tokens_per_s / 1e12
    return {"tflops_per_s": rate, "utilization": rate / peak_tflops if peak_tflops else None}


def bound_tokens_per_s(case: Case) -> float:
    """Of an update that is its products alone, at the rate of one of them on this machine, now."""
    from benchmarks.learner_setup import product_flops_per_s, update_flops

    shape, tokens = START_SHAPES[case.shape], case.rows * case.length
    flops = update_flops(shape, case.rows, case.length)
    return tokens * product_flops_per_s(shape, case.dtype, tokens) / flops
