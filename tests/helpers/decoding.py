"""Drives a DecodeEngine by hand: rows with scripted tool outputs and tool latencies in windows."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from helpers.tiny_models import VOCAB, full_logits

from jaxtool.core import rng
from jaxtool.decode.engine import DecodeEngine, EngineConfig
from jaxtool.decode.pieces import Placement
from jaxtool.decode.prefill import Prefilled
from jaxtool.decode.sampling import Sampling
from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding, single_device

STOPS = (3, 5, 7, 11)
SMALL = EngineConfig(
    decode_rows=8,
    max_tokens=64,
    window_steps=4,
    min_view=32,
    prefill_rows=4,
    min_prompt_bucket=8,
    forced_tokens=6,
    append_rows=2,
)


def make_engine(
    model: ModelConfig,
    params: Params,
    config: EngineConfig = SMALL,
    sharding: Sharding | None = None,
    stops: Sequence[int] = STOPS,
) -> DecodeEngine:
    is_stop = np.zeros(model.vocab_size, bool)
    is_stop[list(stops)] = True
    engine = DecodeEngine(
        model=model, config=config, sharding=sharding or single_device(), is_stop=is_stop
    )
    engine.load(params)
    return engine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One row: at its n-th stop it gets the n-th tool output; without one left it ends."""

    name: str  # names the random stream
    prompt: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...] = ()
    limit: int = 60
    sampling: Sampling | None = None  # None: that of the run


@dataclasses.dataclass(kw_only=True)
class Row:
    job: Job
    ids: list[int]
    logprobs: list[float]  # nan where the policy did not write the token
    outputs: list[tuple[int, ...]]
    wait: int = 0  # windows until the tool answers


def random_jobs(count: int, outputs: Sequence[int] = (), seed: int = 0) -> list[Job]:
    """Jobs with random prompts of 2 to 9 tokens and tool outputs of the given lengths."""
    numbers = np.random.default_rng(seed)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(int(x) for x in numbers.integers(12, VOCAB, length))

    return [
        Job(
            name=f"job {i}",
            prompt=draw(2 + i % 8),
            outputs=tuple(draw(n) for n in outputs),
        )
        for i in range(count)
    ]


def run_jobs(
    engine: DecodeEngine,
    jobs: Sequence[Job],
    *,
    sampling: Sampling | None = None,
    latency: Callable[[], int] = lambda: 0,
    reruns: bool = False,
    shares_prompts: bool = False,
    by_need: bool = False,
) -> dict[str, Row]:
    """Finished rows by job name. A free cache row is refilled from the queue at once.

    Args:
      reruns: run the whole row again at each tool output, in place of appending to it.
      shares_prompts: jobs with equal prompts that begin together are one prefilled prompt.
      by_need: begin a row only where the engine says that there is room for it.
    """
    queue = list(jobs)
    rows: dict[int, Row] = {}
    done: dict[str, Row] = {}
    while queue or rows:
        admitted = _admit(engine, queue, by_need=by_need)
        prompts = _prefill(engine, list(admitted.values()), shares_prompts=shares_prompts)
        placements = []
        for (cache_row, job), prompt in zip(admitted.items(), prompts, strict=True):
            rows[cache_row] = new_row(job)
            placements.append(
                Placement(
                    cache_row=cache_row,
                    prompt=prompt,
                    row_key=rng.row_key(0, job.name),
                    max_length=job.limit,
                    sampling=job.sampling or sampling or Sampling(),
                )
            )
        engine.place(placements)
        if engine.is_any_running:
            log = engine.fetch(engine.dispatch_window(others_wait=bool(queue)))
            for cache_row, row in list(rows.items()):
                steps = np.flatnonzero(log.is_sampled[:, cache_row])
                row.ids += log.tokens[steps, cache_row].tolist()
                row.logprobs += log.logprobs[steps, cache_row].tolist()
                if steps.size and not engine.is_running(cache_row):
                    room = row.job.limit - len(row.ids)
                    if row.outputs and len(row.outputs[0]) < room:
                        row.wait = 1 + latency()
                    else:
                        done[row.job.name] = row
                        engine.release(cache_row)
                        del rows[cache_row]
        answered: dict[int, Sequence[int]] = {}
        for cache_row, row in rows.items():
            if row.wait:
                row.wait -= 1
                if not row.wait:
                    output = row.outputs.pop(0)
                    row.ids += output
                    row.logprobs += [np.nan] * len(output)
                    answered[cache_row] = output
        if reruns:
            engine.rerun({cache_row: rows[cache_row].ids for cache_row in answered})
        else:
            engine.append(answered)
    return done


def _admit(engine: DecodeEngine, queue: list[Job], *, by_need: bool) -> dict[int, Job]:
    """Takes jobs from the queue, and a cache row for each."""
    admitted: dict[int, Job] = {}
    while queue and engine.num_free:
        if by_need and not engine.has_room(len(queue[0].prompt)):
            break
        job = queue.pop(0)
        admitted[engine.take_cache_row(len(job.prompt))] = job
    return admitted


def _prefill(engine: DecodeEngine, jobs: Sequence[Job], *, shares_prompts: bool) -> list[Prefilled]:
    asked = [job.prompt for job in jobs]
    if not shares_prompts:
        return engine.prefill(asked)
    fresh = list(dict.fromkeys(asked))
    by_ids = dict(zip(fresh, engine.prefill(fresh), strict=True))
    return [by_ids[ids] for ids in asked]


def new_row(job: Job) -> Row:
    return Row(
        job=job,
        ids=list(job.prompt),
        logprobs=[np.nan] * len(job.prompt),
        outputs=list(job.outputs),
    )


_forced = jax.jit(
    lambda params, config, tokens, temperature, sharding: jax.nn.log_softmax(
        full_logits(params, config, tokens, sharding) / temperature
    ),
    static_argnums=(1, 4),
)


def teacher_forced(
    params: Params, config: ModelConfig, ids: Sequence[Sequence[int]], temperature: float = 1.0
) -> list[np.ndarray]:
    """log p(ids[t] | ids[:t]) of whole sequences by the training forward pass; nan for t = 0."""
    out = []
    for begin in range(0, len(ids), 8):
        part = ids[begin : begin + 8]
        tokens = np.zeros((8, 64), np.int32)
        for i, sequence in enumerate(part):
            tokens[i, : len(sequence)] = sequence
        logprobs = np.asarray(
            _forced(params, config, jnp.asarray(tokens), temperature, single_device())
        )
        for i, sequence in enumerate(part):
            at = np.arange(len(sequence) - 1)
            out.append(np.concatenate([[np.nan], logprobs[i, at, np.asarray(sequence[1:])]]))
    return out


def assert_same_rows(got: dict[str, Row], wanted: dict[str, Row], atol: float = 1e-5) -> None:
    assert got.keys() == wanted.keys()
    for name, row in wanted.items():
        assert got[name].ids == row.ids, name
        np.testing.assert_allclose(got[name].logprobs, row.logprobs, atol=atol)


def assert_nearly_same_rows(
    got: dict[str, Row], wanted: dict[str, Row], *, atol: float, otherwise: int
) -> None:
    """The same rows by programs whose rounding is coarse: int8 codes and bfloat16 round either way.

    Another code can move a draw that lies on the edge of two tokens, and the row goes on otherwise from there.

    Args:
      atol: of log-probs, in nats, up to the first other token.
      otherwise: rows that may have another token.
    """
    assert got.keys() == wanted.keys()
    differ = []
    for name, row in wanted.items():
        pairs = zip(got[name].ids, row.ids, strict=False)
        same = next((at for at, (one, other) in enumerate(pairs) if one != other), len(row.ids))
        np.testing.assert_allclose(got[name].logprobs[:same], row.logprobs[:same], atol=atol)
        if got[name].ids != row.ids:
            differ.append(name)
    assert len(differ) <= otherwise, differ


def assert_teacher_forced(
    params: Params, rows: Iterable[Row], *, model: ModelConfig, temperature: float = 1.0
) -> None:
    """The policy's tokens have the log-probs of the training forward pass over the whole row."""
    rows = list(rows)
    expected = teacher_forced(params, model, [row.ids for row in rows], temperature)
    compared = 0
    for row, wanted in zip(rows, expected, strict=True):
        got = np.asarray(row.logprobs)
        is_policy = ~np.isnan(got)
        compared += is_policy.sum()
        np.testing.assert_allclose(got[is_policy], wanted[is_policy], atol=1e-4)
    assert compared > 20


def assert_kept_is_prefilled_again(
    engine: DecodeEngine, length: int, seed: int, otherwise: int = 0
) -> None:
    """After tool outputs of `length` tokens the kept cache goes on as one prefilled anew does.

    Args:
      otherwise: rows that may go on in other tokens, see `assert_nearly_same_rows`.
    """
    rows = run_jobs(engine, random_jobs(6, outputs=(length,), seed=seed))
    resumed = [row for row in rows.values() if not row.outputs and not np.isnan(row.logprobs[-1])]
    assert len(resumed) >= 2
    again = []
    for row in resumed:
        start = 1 + int(np.flatnonzero(np.isnan(row.logprobs))[-1])
        again.append(dataclasses.replace(row.job, prompt=tuple(row.ids[:start]), outputs=()))
    others = run_jobs(engine, again)
    differ = [row.job.name for row in resumed if others[row.job.name].ids != row.ids]
    assert len(differ) <= otherwise, differ
    assert engine.counts.reprefilled_tokens == 0
