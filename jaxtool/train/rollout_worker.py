"""What answers problems in a run: policy, tokenizer, renderer, engine, sandbox and judge.

Opening it finds what is wrong with these, before the first step. Not covered: the learner.
"""

import dataclasses
from asyncio import Runner
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from jaxtool.data.tokenizer import Tokenizer, check_has_text
from jaxtool.data.tokenizer import decode as decode_ids
from jaxtool.decode.engine import DecodeEngine, EngineConfig, EngineCounts
from jaxtool.decode.sampling import Sampling
from jaxtool.judges.judging import Judging
from jaxtool.judges.programs import programs_in
from jaxtool.model.config import Dtype, ModelConfig
from jaxtool.model.sources import PolicySource
from jaxtool.model.transformer import Params
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_memory import device_bytes
from jaxtool.renderers.renderer import Renderer, stop_token_mask
from jaxtool.renderers.tool_checks import check_tools
from jaxtool.rollout.activity import PREFILL, TOOL_WAIT, WINDOW, Activity
from jaxtool.rollout.collector import Collector, RolloutConfig
from jaxtool.rundir.metrics import over_hosts
from jaxtool.tools.base import CodeRunner
from jaxtool.tools.call_figures import call_metrics
from jaxtool.tools.known_answers import KnownAnswers
from jaxtool.tools.sandbox_client import SandboxClient
from jaxtool.train.devices import shardings_on
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.run_tools import (
    load_renderer_of,
    open_menu,
    searched_at,
    session_needs,
    tool_sources,
)
from jaxtool.train.sources import open_known_answers, open_sandbox


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutWorker:
    """Open resources of a run."""

    model: ModelConfig
    tokenizer: Tokenizer
    engine: DecodeEngine
    collector: Collector
    judging: Judging
    client: SandboxClient | None
    known_answers: KnownAnswers | None  # None where no sandbox is used
    runner: Runner

    def metrics(self) -> dict[str, float]:
        """Seconds of the step, figures of the last collection, and totals since the start, over all hosts."""
        times, counts = self.collector.times, self.engine.counts
        seconds = self.collector.activity.timeline.seconds
        metrics = {
            "timing/decode_s": seconds(WINDOW),
            "timing/prefill_s": seconds(PREFILL),
            "timing/tool_wait_s": seconds(TOOL_WAIT),
            "timing/half_of_groups_s": times.half_of_groups_s,
            "tokens/reprefilled_total": counts.reprefilled_tokens,
            "tokens/sampled_total": counts.sampled_tokens,
            "tokens/useful_row_steps_fraction": counts.useful_row_steps / max(1, counts.row_steps),
            "tokens/useful_until_queue_empty_fraction": times.useful_fraction,
            "timing/late_programs_total": counts.late_programs,
        }
        if self.engine.config.pages is not None:
            metrics |= {
                "tokens/moved_rows_total": counts.moved_rows,
                "tokens/moved_pages_total": counts.moved_pages,
            }
        if self.engine.config.drafts is not None:
            metrics |= self.engine.drafting.counts.metrics(counts.windows)
        if self.client is not None:
            totals = self.client.totals
            metrics |= {
                "tools/executions_total": totals.executions,
                "tools/retries_total": totals.retries,
                "tools/result_cache_hits_total": totals.result_cache_hits,
                "tools/server_result_cache_hits_total": totals.server_result_cache_hits,
                "tools/sessions_opened_total": totals.sessions_opened,
                "tools/sessions_lost_total": totals.sessions_lost,
                "tools/sessions_replayed_total": totals.sessions_replayed,
                "tools/sessions_masked_total": totals.sessions_masked,
            }
        return over_hosts(hosts.exchange(metrics))

    def call_metrics(self) -> dict[str, float]:
        """Figures of the calls since the last row, over all hosts. A checkpoint holds none, so validations come before."""
        return call_metrics(hosts.exchange(self.collector.tools.take_figures()))

    def total_counts(self) -> EngineCounts:
        """Work of all hosts' engines; every host must call it."""
        each = [dataclasses.asdict(counts) for counts in hosts.exchange(self.engine.counts)]
        return EngineCounts(**{name: sum(counts[name] for counts in each) for name in each[0]})

    def tool_totals(self) -> dict[str, int]:
        """Counters of all hosts' clients since the run began, {} without one; every host must call it."""
        own = {} if self.client is None else dataclasses.asdict(self.client.totals)
        each = hosts.exchange(own)
        return {name: sum(counts[name] for counts in each) for name in each[0]}

    def compile(self, report: Callable[[int, int, str], None], *samplings: Sampling) -> None:
        """Compiles the decoder's programs for windows of these samplings, before they are needed.

        Args:
          report: gets the programs done, their number and the name of the last one.
        """
        longest = longest_prompt(self.collector.config, self.engine.config)
        self.engine.compile(samplings, report, longest_prompt=longest)

    def token_text(self, token: int) -> str:
        """How one token reads, for display."""
        return decode_ids(self.tokenizer, [token])


def longest_prompt(rollout: RolloutConfig, engine: EngineConfig) -> int:
    """Tokens that prefill may have to run at once: a prompt, or with "reprefill" a whole row."""
    if rollout.kv != "kept":
        return engine.max_tokens
    return max(1, engine.max_tokens - rollout.max_response_tokens)


def open_worker(
    stack: ExitStack,
    runner: Runner,
    config: RlConfig,
    source: PolicySource,
    sharding: Sharding,
    seed: int,
    sandbox_addresses: tuple[str, ...] = (),
    tool: CodeRunner | None = None,
    dtype: Dtype = "float32",
    text: tuple[Renderer, Tokenizer] | None = None,
    search_addresses: tuple[str, ...] = (),
    further_stops: Sequence[str] = (),
    activity: Activity | None = None,
    parameters_leave: bool = False,
) -> tuple[RolloutWorker, Params]:
    """Loads and checks everything, cheap checks first; `stack` closes it.

    Args:
      sharding: of the parameters, on all hosts; each host decodes on its own devices.
      tool: runs programs in place of a sandbox; the caller closes it.
      dtype: of the parameters.
      text: what `load_text` gave, where the caller has it.
      search_addresses: running search servers, in place of what the tools name.
      further_stops: stop tags of other renderers that the same engine will serve.
      activity: is told what goes on.
      parameters_leave: whether they wait in the host's memory while rows decode.
    """
    renderer, tokenizer = text or load_text(config)
    check_vocabulary(tokenizer, source.model_config())
    client, known_answers = None, None
    sources = searched_at(tool_sources(config, renderer), search_addresses)
    uses_sandbox = any(source.uses_sandbox for source in sources) or config.judge.runs_programs
    if tool is None and uses_sandbox:
        sessions = session_needs(config, sources)
        client = stack.enter_context(
            open_sandbox(config.sandbox, runner, sandbox_addresses, sessions)
        )
        known_answers = stack.enter_context(
            open_known_answers(config.sandbox, runner, client.addresses)
        )
    tool = client or tool
    menu = stack.enter_context(open_menu(sources, tool, runner))
    _, decoding = shardings_on(sharding.mesh, config)
    model, params = source.load(sharding, seed, dtype)
    is_stop = np.zeros(model.vocab_size, bool)
    is_stop[: tokenizer.vocab_size] = stop_token_mask(
        tokenizer, (*renderer.stop_tags, *further_stops)
    )
    engine = DecodeEngine(
        model=model,
        config=config.engine,
        sharding=decoding,
        is_stop=is_stop,
        longest_prompt=longest_prompt(config.rollout, config.engine),
        returned=device_bytes(params) if parameters_leave else 0.0,
    )
    print(engine.memory, flush=True)
    collector = Collector(
        engine=engine,
        tokenizer=tokenizer,
        renderer=renderer,
        tools=menu,
        config=config.rollout,
        activity=activity,
    )
    judge = stack.enter_context(config.judge.open(programs_in(tool, runner) if tool else None))
    worker = RolloutWorker(
        model=model,
        tokenizer=tokenizer,
        engine=engine,
        collector=collector,
        judging=Judging(format=renderer.answer, judge=judge),
        client=client,
        known_answers=known_answers,
        runner=runner,
    )
    return worker, params


def load_text(config: RlConfig) -> tuple[Renderer, Tokenizer]:
    """Raises ValueError if tokenizer, renderer, tools and prices do not go together."""
    renderer = load_renderer_of(config)
    tokenizer = config.tokenizer.load()
    check_has_text(tokenizer, renderer.all_tags)
    check_tools(renderer, tokenizer)
    return renderer, tokenizer


def check_vocabulary(tokenizer: Tokenizer, model: ModelConfig) -> None:
    """Raises ValueError if the tokenizer can write ids that the policy does not have."""
    if tokenizer.vocab_size > model.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the policy's vocabulary only "
            f"{model.vocab_size}: they do not belong together"
        )
