"""Flags that say who rewrites cold-start data: an endpoint, or a policy of ours."""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtool.cold_start.rewriter import Rewriter
    from jaxtool.cold_start.spending import Budget, Prices

# Those of one side are refused on the other, where they could not act.
_OF_AN_ENDPOINT_CONFIG = (
    "model",
    "api_key_variable",
    "limit_name",
    "concurrency",
    "timeout_s",
    "attempts",
)
_OF_AN_ENDPOINT = (*_OF_AN_ENDPOINT_CONFIG, "use_proxy", "budget_money", "prices")
_OF_A_POLICY = ("seed",)


def add(parser: argparse.ArgumentParser) -> None:
    """Flags that are not given are None, so that `check` can tell."""
    group = parser.add_argument_group("rewriter", "one of the two, and how it writes")
    group.add_argument("--endpoint", help="URL up to /chat/completions, of OpenAI's protocol")
    group.add_argument(
        "--policy",
        help="weights of this machine's decoder: a run such as runs/mine, a step such as runs/mine@100, a Hugging "
        "Face directory, a .gguf file, smollm2, or org/name on the hub",
    )
    group.add_argument(
        "--max_tokens",
        type=int,
        help="of one reply (8192; of a policy at most half of its context)",
    )
    group.add_argument(
        "--temperature", type=float, help="0.7; negative: the endpoint's own is not touched"
    )
    group.add_argument("--top_p", type=float, help="probability kept of each draw")
    group.add_argument("--budget_tokens", type=int, help="read and written, over all starts")
    group.add_argument("--seed", type=int, help="of a policy: another one draws other replies (0)")
    _add_endpoint(parser)


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "endpoint", "OpenAI's chat completions, of whoever serves them"
    )
    group.add_argument("--model", help="name of the model there")
    group.add_argument(
        "--api_key_variable", help="of the environment, with the key (OPENAI_API_KEY)"
    )
    group.add_argument(
        "--limit_name",
        choices=("max_tokens", "max_completion_tokens"),
        help="how the endpoint calls the limit of tokens (max_tokens)",
    )
    group.add_argument("--concurrency", type=int, help="requests at a time (8)")
    group.add_argument("--timeout_s", type=float, help="of one attempt (600)")
    group.add_argument("--attempts", type=int, help="6")
    group.add_argument("--use_proxy", action="store_true", default=None, help="of HTTPS_PROXY")
    group.add_argument("--budget_money", type=float, help="over all starts; needs --prices")
    group.add_argument(
        "--prices",
        type=float,
        nargs=2,
        metavar=("PROMPT", "WRITTEN"),
        help="money for a million tokens read and for a million written",
    )


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the command in one line where nobody rewrites, two do, or a flag could not act."""
    if (arguments.endpoint is None) == (arguments.policy is None):
        said = "neither is" if arguments.endpoint is None else "both are"
        parser.error(
            f"one rewriter is needed, and {said} given: --endpoint URL --model NAME asks a server, --policy "
            "WEIGHTS decodes here"
        )
    is_endpoint = arguments.endpoint is not None
    others = _OF_A_POLICY if is_endpoint else _OF_AN_ENDPOINT
    if idle := [f"--{name}" for name in others if getattr(arguments, name) is not None]:
        side, other = ("endpoint", "policy") if is_endpoint else ("policy", "endpoint")
        parser.error(f"{', '.join(idle)}: of --{other} alone, and --{side} is given: leave it out")
    if is_endpoint and arguments.model is None:
        parser.error("--endpoint needs --model: the model's name as the endpoint knows it")
    if not is_endpoint and (arguments.temperature or 0) < 0:
        parser.error("--temperature below 0 leaves it to an endpoint: a policy needs one (0.7)")


def rewriter_of(arguments: argparse.Namespace) -> "Rewriter":
    """Raises what the two say of settings that are none, in one line."""
    given = {
        name: value
        for name in ("max_tokens", "temperature", "top_p")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.policy is not None:
        from jaxtool.train.own_rewriter import PolicyRewriter

        return PolicyRewriter(policy=arguments.policy, seed=arguments.seed or 0, **given)
    from jaxtool.cold_start.chat_client import EndpointConfig

    if given.get("temperature", 0) < 0:
        given["temperature"] = None
    given |= {
        name: value
        for name in _OF_AN_ENDPOINT_CONFIG
        if (value := getattr(arguments, name)) is not None
    }
    return EndpointConfig(
        base_url=arguments.endpoint, uses_proxy=bool(arguments.use_proxy), **given
    )


def prices_of(arguments: argparse.Namespace) -> "Prices":
    from jaxtool.cold_start.spending import Prices

    prompt, written = arguments.prices or (0.0, 0.0)
    return Prices(prompt=prompt, written=written)


def budget_of(arguments: argparse.Namespace) -> "Budget":
    """An endpoint needs one; a policy's tokens cost nothing but time."""
    from jaxtool.cold_start.spending import UNLIMITED, Budget

    if arguments.policy is not None and arguments.budget_tokens is None:
        return UNLIMITED
    return Budget(tokens=arguments.budget_tokens, money=arguments.budget_money)


def warn(arguments: argparse.Namespace, rewriter: "Rewriter") -> None:
    """Says what is worth a second look before anything is asked."""
    from jaxtool.cold_start.chat_client import EndpointConfig

    if isinstance(rewriter, EndpointConfig) and rewriter.sends_key_in_the_clear:
        print(
            f"warning: the key in ${rewriter.api_key_variable} goes over plain HTTP",
            file=sys.stderr,
        )
    elif arguments.policy is not None:
        from jaxtool.train.own_rewriter import PolicyRewriter

        assert isinstance(rewriter, PolicyRewriter)
        if not rewriter.renderer.uses_chat_template:
            print(
                f"warning: {arguments.policy} has no chat template, so the prompt is plain text that it goes on with",
                file=sys.stderr,
            )
