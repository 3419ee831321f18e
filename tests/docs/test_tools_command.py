"""The command of docs/tools.md: the function of the page answers a policy's calls in `evaluate`, seen on its page."""

import base64
import dataclasses
import gzip
import json
import re
import shlex
import sys

from helpers.small_runs import cold_start
from test_tools_page import PAGE, block

from jaxtool.cli import evaluate
from jaxtool.core.types import Problem
from jaxtool.data.arithmetic import arithmetic_tokenizer
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.sft import SftConfig
from jaxtool.model.config import tiny
from jaxtool.model.sources import RandomInit
from jaxtool.renderers.demonstrations import demonstration
from jaxtool.rollout.batching import PackConfig
from jaxtool.train.sft_loop import DemonstrationStream, SftRunConfig
from jaxtool.train.sources import ArithmeticTokenizer

CALL = "<code>\n```python\nprint(12+7)\n```\n</code>"
RESPONSE = CALL + "\n<interpreter>\n19\n</interpreter>\n<answer>\\boxed{19}</answer>"
# The command as it stands, on a smaller scale.
SMALLER = (
    *("--problems", "4"),
    *("--gin_param", "EngineConfig.decode_rows = 4"),
    *("--gin_param", "EngineConfig.prefill_rows = 4"),
)


@dataclasses.dataclass(frozen=True)
class OneCall:
    """Whatever is asked, 12 + 7 is calculated."""

    def take(self, count, *, seed, index, renderer, tokenizer):
        questions = [f"{(7 * index + i) % 90}+{i % 10}" for i in range(count)]
        return [
            demonstration(
                Problem(problem_id=q, question=q, answer="19"),
                RESPONSE,
                renderer=renderer,
                tokenizer=tokenizer,
            )
            for q in questions
        ]


def policy_that_calls(folder):
    vocabulary = arithmetic_tokenizer().vocab_size
    stream = DemonstrationStream(demonstrations=OneCall(), renderer="my_renderer.toml", count=4)
    config = SftRunConfig(
        policy=RandomInit(config=tiny(vocabulary)),
        tokenizer=ArithmeticTokenizer(),
        streams=(stream,),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        steps=60,
        sft=SftConfig(micro_batch_rows=4, lm_head_chunk=16),
        pack=PackConfig(row_tokens=64),
    )
    return cold_start(config, workdir=folder, seed=0)


def chunks_of(page):
    """The answers that a page holds, as JSON."""
    found = re.findall(r'<script type="text/plain" id="chunk-[^"]+">([^<]*)</script>', page)
    return [gzip.decompress(base64.b64decode(content)).decode() for content in found]


def test_the_command_of_the_page_shows_the_function_at_work(tmp_path, monkeypatch, capsys):
    """The very flags of the page, with a policy that calls at once; the page names the tool of each call."""
    (tmp_path / "my_tools.py").write_text(block("python"))
    (tmp_path / "my_renderer.toml").write_text(block("toml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_tools", raising=False)
    policy = policy_that_calls(tmp_path / "cold_start")
    command = next(
        part for part in re.findall(r"```bash\n(.*?)```", PAGE, re.S) if "--tool" in part
    )
    python, *flags = shlex.split(command.replace("\\\n", " "))
    assert (python, *flags[:2]) == ("python", "-m", "experiments.evaluate")
    flags = [str(policy) if flag == "runs/quickstart/grpo/policy" else flag for flag in flags[2:]]
    monkeypatch.setattr("sys.argv", ["evaluate", *flags, *SMALLER, "--json", "out.json"])
    evaluate.main()
    part = json.loads((tmp_path / "out.json").read_text())["variants"]["cold_start"]["greedy"]
    assert part["tool_calls"] == 1.0
    assert part["by_tool"]["calculate"]["answers_with_call"] == 4
    page = (tmp_path / "runs" / "my_tool.html").read_text()
    assert '"tool":"calculate"' in "".join(chunks_of(page))
    assert "calls (TC)" in capsys.readouterr().out
