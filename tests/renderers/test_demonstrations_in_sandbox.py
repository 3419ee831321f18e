"""The interpreter's text in the demonstrations is what the real sandbox prints."""

import asyncio

import pytest
from helpers.chat_of_letters import ChatOfLetters

from jaxtool.data.arithmetic import ArithmeticTask, arithmetic_tokenizer
from jaxtool.renderers.demonstrations import (
    ArithmeticDemonstrations,
    CalculationDemonstrations,
)
from jaxtool.renderers.ledgers import split_response
from jaxtool.renderers.renderer import load_renderer, observation_text, parse_code
from jaxtool.tools.local_server import start_local_server
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig

CHAINED = ArithmeticTask(one_digit=0.1, hard=0.1, chained=0.3)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("arithmetic_tools", ArithmeticDemonstrations()),
        ("arithmetic_lookup", ArithmeticDemonstrations(task=CHAINED)),
        ("two_shot_code", CalculationDemonstrations()),
    ],
)
def test_demonstrated_observations_equal_those_of_the_sandbox(name, written):
    renderer = load_renderer(name)
    assert renderer.tool is not None
    prelude = renderer.tool.prelude
    tokenizer = ChatOfLetters() if renderer.uses_chat_template else arithmetic_tokenizer()
    demonstrations = written.take(24, seed=0, index=0, renderer=renderer, tokenizer=tokenizer)
    calls = []
    for demonstration in demonstrations:
        pieces = [text for text, _ in split_response(demonstration.response_text, renderer)]
        calls += [
            (parse_code(code, renderer.tool), observation)
            for code, observation in zip(pieces[::2], pieces[1::2], strict=False)
        ]
    assert len(calls) > 10

    async def run(address):
        client = SandboxClient((address,), SandboxClientConfig())
        try:
            return await asyncio.gather(*(client.execute(prelude + code) for code, _ in calls))
        finally:
            await client.close()

    with start_local_server() as address:
        results = asyncio.run(run(address))
    shown = [observation_text(result, renderer) for result in results]
    assert shown == [observation for _, observation in calls]
