"""A policy of ours as the rewriter of cold-start data, in place of an endpoint (`jaxtool.cold_start.rewriter`).

Requests become rows of one decoder, as rollouts do: a row that ends makes room for the next. A reply depends on the
seed and the row's key alone, so a start that goes on after a kill writes what the killed one would have written.
Requests that a kill cut off count nothing: nobody bills them, and they are drawn again.

Not covered: the loop, the journal, the checks (`jaxtool.cold_start`), several hosts, tools while it writes.
"""

import asyncio
import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from jaxtool.cold_start.chat_wire import Reply
from jaxtool.cold_start.rewriter import AttemptLog, RequestRefused
from jaxtool.cold_start.spending import Account, Tokens
from jaxtool.core.bucket_names import bucket_url
from jaxtool.core.ranges import check_range
from jaxtool.core.types import FinishReason, Origin, Problem
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.decode.engine import DecodeEngine
from jaxtool.decode.sampling import Sampling
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.model.sources import GgufFile, HfDirectory
from jaxtool.parallel.axis_rules import AxisRules, Sharding, decode
from jaxtool.parallel.host_arrays import decode_mesh
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.renderers.renderer import Renderer, stop_token_mask
from jaxtool.rollout.collector import Collector, RolloutConfig
from jaxtool.rollout.job import Job
from jaxtool.rollout.stream import RolloutStream
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.rundir.progress import progress_of
from jaxtool.tools.menu import Menu
from jaxtool.train.named_model import NamedModel, model_named
from jaxtool.train.plain_config import device_kind, has_chat_template
from jaxtool.train.rollout_worker import check_vocabulary
from jaxtool.train.run_shapes import decoder_config, row_tokens

USUAL_REPLY = 8192  # tokens, or half of the model's context where that is less
_MOST_ROWS = 64
_WAITING = 32  # requests behind those that decode, so that a row that ends finds the next one
_STREAM = ("cold_start",)
_READ_BYTES = 1 << 20  # of each end of a file, for its mark

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyRewriter:
    """Which policy rewrites, and how it draws. Reads configuration and tokenizer, and no weight before it is asked."""

    policy: str  # a name of weights, see `jaxtool.train.weights`
    max_tokens: int | None = None  # of a reply; None: USUAL_REPLY, or half of the context
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "max_tokens", least=1)
        _ = self.sampling
        context = self._model.context
        if context is not None and self.reply_tokens >= context:
            raise ValueError(
                f"--max_tokens {self.reply_tokens}: {self.policy} has positions for {context} tokens, prompt and "
                "reply together: ask for fewer"
            )

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p)

    @property
    def reply_tokens(self) -> int:
        """The most that a reply may have."""
        if self.max_tokens is not None:
            return self.max_tokens
        context = self._model.context
        return USUAL_REPLY if context is None else min(USUAL_REPLY, context // 2)

    @property
    def concurrency(self) -> int:
        return _MOST_ROWS + _WAITING

    @property
    def settings(self) -> dict[str, Any]:
        """What a recorded reply rests on; a policy that was trained on has another mark."""
        return {
            "policy": self.policy,
            "weights": self._mark,
            "max_tokens": self.reply_tokens,
            "sampling": {"temperature": self.temperature, "top_p": self.top_p},
            "seed": self.seed,
        }

    def cost(self, prompt: str) -> tuple[int, Tokens]:
        """Prompt tokens are known; a prompt that is too long will not be asked and costs nothing."""
        count = self._length(prompt)
        if self._refusal(count) is not None:
            return 0, Tokens()
        return count, Tokens(prompt=count, written=self.reply_tokens)

    def open(self, account: Account, log: AttemptLog, prompts: Sequence[str]) -> "PolicyClient":
        """A client; its decoder has rows for the longest prompt and is made when the first request comes.

        Raises:
          ValueError: no prompt fits the model's context.
        """
        del log  # an attempt that came to nothing cost nothing
        lengths = [self._length(prompt) for prompt in prompts]
        fitting = [length for length in lengths if self._refusal(length) is None]
        if not fitting:
            raise ValueError(f"{self.policy}: {self._refusal(min(lengths))}; no row's is shorter")
        return PolicyClient(self, account, max(fitting), len(fitting))

    def refusal(self, prompt: str) -> str | None:
        """Why a prompt cannot be asked; None: it can."""
        return self._refusal(self._length(prompt))

    def prompt_ids(self, prompt: str) -> list[int]:
        """One turn of the user in the model's chat template; as it is where there is none."""
        problem = Problem(problem_id="prompt", question=prompt, answer="")
        return self.renderer.prompt_ids(self.tokenizer, problem)

    @functools.cached_property
    def renderer(self) -> Renderer:
        """Nothing around the prompt but the chat template; only the end token ends a reply."""
        return Renderer(
            name="rewriter",
            messages=(("user", "{question}"),),
            uses_chat_template=has_chat_template(self.tokenizer),
            response_prefix="",
            tool=None,
            answer=AnswerFormat(style="response"),
            answer_close="",
        )

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return self._model.tokenizer.load()

    def decoder(self, longest: int, answers: int) -> Collector:
        """Reads the weights and compiles the decoder.

        Args:
          longest: tokens of the longest prompt.
          answers: that will be decoded; no more rows are made.

        Raises:
          OSError, ValueError: weights or tokenizer are not as they should be, or one row does not fit the memory.
        """
        # 1) All devices; whatever number of rows is chosen divides over them.
        source, axes = self._model.source, AxisRules()
        mesh = make_mesh(MeshConfig(may_idle=True))
        check_vocabulary(self.tokenizer, source.model_config())
        # 2) Rows that hold the longest prompt and a reply, as many as fit.
        kind = device_kind()
        shapes = decoder_config(
            prompt_tokens=longest,
            tokens=row_tokens(longest, self.reply_tokens, kind),
            kind=kind,
            most_rows=max(4, min(_MOST_ROWS, answers)),
            row_parts=jax.local_device_count(),
        )
        # 3) The policy, published to the decoder alone.
        model, params = source.load(Sharding(mesh, axes), self.seed)
        is_stop = np.zeros(model.vocab_size, bool)
        is_stop[: self.tokenizer.vocab_size] = stop_token_mask(self.tokenizer, ())
        engine = DecodeEngine(
            model=model,
            config=shapes,
            sharding=Sharding(decode_mesh(mesh, decode(axes)), decode(axes)),
            is_stop=is_stop,
            longest_prompt=longest,
        )
        print(engine.memory, flush=True)
        engine.load(params)
        del params
        with progress_of("compile decoder") as report:
            engine.compile((self.sampling,), report, longest_prompt=longest)
        return Collector(
            engine=engine,
            tokenizer=self.tokenizer,
            renderer=self.renderer,
            tools=Menu(),
            config=RolloutConfig(max_response_tokens=self.reply_tokens, max_tool_calls=0),
        )

    def _length(self, prompt: str) -> int:
        """Tokens of a prompt, counted once: a chat template takes a millisecond."""
        known = self._lengths.get(prompt)
        if known is None:
            known = self._lengths[prompt] = len(self.prompt_ids(prompt))
        return known

    @functools.cached_property
    def _lengths(self) -> dict[str, int]:
        return {}

    def _refusal(self, length: int) -> str | None:
        context = self._model.context
        if context is None or length + self.reply_tokens <= context:
            return None
        return (
            f"a prompt of {length} tokens and a reply of {self.reply_tokens} are more than the model's {context} "
            "positions: lower --max_tokens"
        )

    @functools.cached_property
    def _model(self) -> NamedModel:
        return model_named(self.policy)

    @functools.cached_property
    def _mark(self) -> str:
        source = self._model.source
        if not isinstance(source, GgufFile | HfDirectory | SavedPolicy) or source.path is None:
            return str(source)
        return source.path if bucket_url(source.path) is not None else files_mark(source.path)


class PolicyClient:
    """A decoder at work; made by `PolicyRewriter.open`."""

    def __init__(self, rewriter: PolicyRewriter, account: Account, longest: int, answers: int):
        self._rewriter, self._account = rewriter, account
        self._longest, self._answers = longest, answers
        self._stream: RolloutStream | None = None
        self._running: asyncio.Task[None] | None = None
        self.failures: collections.Counter[str] = collections.Counter()

    async def ask(self, row: str, prompt: str) -> Reply:
        """The policy's reply; of one row always the same.

        Raises:
          BudgetReached: it might not fit.
          RequestRefused: the prompt and a reply are longer than the model's context.
          OSError, ValueError: as `PolicyRewriter.decoder`.
        """
        refusal = self._rewriter.refusal(prompt)
        if refusal is not None:
            raise RequestRefused(refusal, is_of_the_row=True)
        _, most = self._rewriter.cost(prompt)
        await self._account.admit(most)
        spent: Tokens | None = None
        try:
            reply = await self._decoded(Problem(problem_id=row, question=prompt, answer=""))
            spent = reply.used
            return reply
        finally:
            self._account.settle(most, spent=spent, is_billed=False)

    async def close(self) -> None:
        if self._stream is not None and self._running is not None:
            self._stream.close()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _decoded(self, problem: Problem) -> Reply:
        stream, running = self._start()
        begun = stream.between_windows(functools.partial(self._begin, stream.collector, problem))
        job = await _unless_ended(begun, running)
        [group] = await _unless_ended(job.finished, running)
        [sample] = group.samples
        trajectory = sample.trajectory
        is_cut = trajectory.finish_reason is FinishReason.LENGTH
        return Reply(
            text=trajectory.response_text,
            finish_reason="length" if is_cut else "stop",
            used=Tokens(
                prompt=int(np.sum(trajectory.origins == Origin.PROMPT)),
                written=trajectory.num_policy_tokens,
            ),
        )

    def _start(self) -> tuple[RolloutStream, asyncio.Task[None]]:
        """The stream of this client's decoder, which the first request makes."""
        if self._running is None:
            collector = self._rewriter.decoder(self._longest, self._answers)
            stream = RolloutStream(collector, asyncio.get_running_loop())
            stream.version = 0
            self._running = asyncio.create_task(stream.run())
            self._stream = stream
        assert self._stream is not None
        return self._stream, self._running

    def _begin(self, collector: Collector, problem: Problem) -> Job:
        return collector.begin(
            [problem],
            samples=1,
            sampling=self._rewriter.sampling,
            seed=self._rewriter.seed,
            stream=_STREAM,
        )


async def _unless_ended(future: Future[_Result], running: asyncio.Task[None]) -> _Result:
    """The result of a future that the stream fulfils; what ended the stream where it never will.

    The future itself is not cancelled with the caller: the stream would fail when it fulfils it.
    """
    waited = asyncio.wrap_future(future)
    await asyncio.wait({waited, running}, return_when=asyncio.FIRST_COMPLETED)
    if not waited.done():
        running.result()  # raises what ended it
        raise RuntimeError("the decoder ended before it answered")
    return waited.result()


def files_mark(path: str | Path) -> str:
    """Tells files of weights from others without reading them whole: names, sizes, and both ends of each file.

    Copies of a directory have one mark. Weights that were trained on or written anew have another.
    """
    top = Path(path)
    found = hashlib.blake2b(digest_size=8)
    for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
        if not file.is_file():
            continue
        size = file.stat().st_size
        name = file.relative_to(top).as_posix() if top.is_dir() else ""
        found.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as opened:
            found.update(opened.read(_READ_BYTES))
            if size > 2 * _READ_BYTES:
                opened.seek(-_READ_BYTES, os.SEEK_END)
            found.update(opened.read())
    return found.hexdigest()
