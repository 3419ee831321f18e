"""How fast a large report opens: `python -m benchmarks.report_page [--quick] [--json PATH]`.

Two pages are written from made answers and opened in headless Chromium as files: 10,000 answers of 200 tokens of an
evaluation, and 300 trajectories of 16,000 tokens of a training run, with a log-prob and an advantage for each token.
Times are wall clock, on this machine, in seconds. --quick: a tenth of the answers.

--json PATH writes {"version", "machine", "pages": [{"name", "answers", "tokens", "write_s", "page_bytes",
"folder_bytes", "open_s", "next_s", "tokens_s", "search_s"}]}: writing the page; opening it until the first answer is
there; the next answer; its token view (null where there is none); a search through all texts.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from jaxtool.cli import entry
from jaxtool.report.page import Report, write_report
from jaxtool.rundir.answer_records import AnswerRecord, CallRecord, Part, Span

WORDS = ("so", " the", " sum", " of", " two", " primes", " is", " 41", ",", " then", "\n", " check")
RARE = "xylophone"  # in the last answer alone
CODE = "x = 6 * 7\nprint(x)\n"
TIMEOUT_S = 60
# The answer itself, as text or as tokens.
_IS_SHOWN = "return document.querySelector('.detail .text, .detail .tokens') !== null"


def many_records(count: int, *, tokens: int, samples: int = 8) -> Iterator[AnswerRecord]:
    """`count` answers of about `tokens` tokens by two policies, some wrong, lost, cut off or with failed calls."""
    draw = random.Random(5)
    for i in range(count):
        question, sample = divmod(i // 2, samples)
        right, lost, failed = draw.random() < 0.6, draw.random() < 0.01, draw.random() < 0.2
        has_call = bool(i % 3)
        words = "".join(_words(draw, tokens)) + (f" {RARE}" if i + 1 == count else "")
        end = Part(author="policy", text=f"{words} \\boxed{{{question}}}", tokens=tokens)
        written = Part(author="policy", text=f"Let me see. <code>{CODE}</code>", tokens=15)
        output = Part(author="tool", text="<output>42\n</output>", tokens=4)
        generated = 2 * tokens + draw.randrange(200)
        spans = [("generate", 0, generated)]
        if has_call:
            spans = [("generate", 0, 90), ("tool", 90, 130), ("generate", 130, generated)]
        spans += [("judge", generated + 30, generated + 34)]
        yield AnswerRecord(
            policy=("base", "trained")[i % 2],
            has_tools=True,
            max_tool_calls=4,
            sampling="sampled",
            problem_id=f"q{question}",
            level=("easy", "hard")[question % 2],
            question=f"What is the sum of {question} and 0? It is question number {question}.",
            references=(str(question),),
            sample=sample,
            parts=(written, output, end) if has_call else (end,),
            final_answer=str(question if right else question + 1),
            is_correct=right and not lost,
            score=float(right and not lost),
            is_lenient=None,
            how="numbers",
            is_lost=lost,
            finish_reason="infrastructure" if lost else draw.choice(("eos", "eos", "length")),
            prompt_tokens=40,
            policy_tokens=tokens + 15 * has_call,
            tool_tokens=4 * has_call,
            unexecuted_calls=0,
            invalid_calls=int(draw.random() < 0.02),
            calls=(_call(failed, draw.randrange(1, 90)),) if has_call else (),
            spans=tuple(Span(kind=kind, start_ms=a, stop_ms=b) for kind, a, b in spans),  # type: ignore[arg-type]
        )


def _words(draw: random.Random, count: int) -> list[str]:
    """Words and numbers, which compress about as well as reasoning does."""
    words = draw.choices(WORDS, k=count)
    return [word if k % 3 else f" {draw.randrange(10_000)}" for k, word in enumerate(words)]


def _call(failed: bool, ms: int) -> CallRecord:
    return CallRecord(
        tool="python",
        arguments=json.dumps({"code": CODE}),
        code=CODE,
        status="error" if failed else "ok",
        stdout="42\n",
        stderr="",
        last_value="",
        error_type="NameError" if failed else "",
        note="",
        is_truncated=False,
        cpu_ms=3,
        wall_ms=ms,
        queue_ms=1,
        start=0,
        stop=15,
        observation_stop=19,
    )


def many_lines(count: int, *, tokens: int, samples: int = 4) -> Iterator[dict[str, Any]]:
    """Lines of trajectories.jsonl, `count` of `tokens` tokens with a figure for each."""
    draw = random.Random(6)
    for i in range(count):
        size = tokens - 40
        calls = max(1, size // 1000)
        letters = "p" * 40 + ("a" * 60 + "c" * 20 + "t" * 20) * calls
        letters = (letters + "a" * tokens)[:tokens]
        texts = _words(draw, tokens)
        texts[-1] = f" {RARE}" if i + 1 == count else texts[-1]
        is_policy = [letter in "ac" for letter in letters]
        starts = [40 + 100 * k for k in range(calls)]
        yield {
            "variant": "grpo",
            "step": i // (2 * samples),
            "problem_id": f"p{i // samples}",
            "level": "long",
            "question": f"A long question, number {i // samples}",
            "reference_answer": "42",
            "sample": i % samples,
            "reward": 1.0 if i % 2 else -1.0,
            "is_correct": bool(i % 2),
            "tool_calls": [
                {
                    "status": "ok",
                    "error_type": "",
                    "wall_ms": 1 + k % 50,
                    "tool": "python",
                    "start": start,
                    "stop": start + 80,
                    "observation_stop": start + 100,
                }
                for k, start in enumerate(starts)
            ],
            "tool_coefficient": 1.0,
            "finish_reason": "eos",
            "advantage": 0.5,
            "tokens": {
                "text": texts,
                "id": [draw.randrange(50_000) for _ in range(tokens)],
                "origin": letters,
                "control": [0, 39],
                "logprob": [round(-draw.random(), 4) if yes else None for yes in is_policy],
                "advantage": [round(draw.random() - 0.5, 4) if yes else None for yes in is_policy],
            },
        }


def open_browser() -> Any:
    """A headless Chromium under selenium's control; its `quit` ends it.

    Raises:
      FileNotFoundError: there is no Chromium, no driver for it, or no selenium, or it does not start; says which.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        missing = "chromium" if browser is None else "chromedriver"
        raise FileNotFoundError(f"there is no {missing} here: install chromium and chromium-driver")
    try:
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException
    except ImportError:
        raise FileNotFoundError("selenium is not installed: pip install -e '.[test]'") from None
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    flags = ["--headless=new", "--disable-gpu", "--window-size=1400,900", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--disable-dev-shm-usage"]
    flags += ["--no-sandbox"] if os.geteuid() == 0 else []
    for flag in flags:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    except WebDriverException as error:
        reason = str(error.msg).splitlines()[0]
        raise FileNotFoundError(f"{browser} does not start here: {reason}") from None


def wait(browser: Any, condition: str) -> float:
    """Seconds until a JavaScript condition (`return ...`) holds.

    Raises:
      TimeoutError: it does not hold in time; names it.
    """
    started = time.monotonic()
    while not browser.execute_script(condition):
        if time.monotonic() - started > TIMEOUT_S:
            raise TimeoutError(f"not within {TIMEOUT_S} s: {condition}")
        time.sleep(0.005)
    return time.monotonic() - started


def press(browser: Any, key: str) -> None:
    """One key, wherever the focus is."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(key).perform()


def measured(browser: Any, page: pathlib.Path) -> dict[str, float | None]:
    """Seconds of what people do first, on the page as a file."""
    started = time.monotonic()
    browser.get(page.as_uri())
    wait(browser, _IS_SHOWN)
    opened = time.monotonic() - started
    changed = "return document.querySelector('.bar .where').textContent !== arguments_before"
    steps = []
    for _ in range(5):
        before = browser.execute_script("return document.querySelector('.bar .where').textContent")
        started = time.monotonic()
        press(browser, "j")
        wait(browser, changed.replace("arguments_before", json.dumps(before)))
        steps.append(time.monotonic() - started)
    tokens = None
    if browser.execute_script("return document.querySelector('[data-mode=tokens]') !== null"):
        started = time.monotonic()
        press(browser, "t")
        wait(browser, "return document.querySelector('.detail .tokens .t') !== null")
        tokens = time.monotonic() - started
    started = time.monotonic()
    press(browser, "/")
    press(browser, RARE)
    wait(
        browser,
        "return /^1 of [0-9,]+ answers$/.test(document.querySelector('.count').textContent)",
    )
    return {
        "open_s": opened,
        "next_s": statistics.median(steps),
        "tokens_s": tokens,
        "search_s": time.monotonic() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the answers")
    parser.add_argument("--json", type=entry.local_path, help="file for the figures")
    arguments = parser.parse_args()
    part = 10 if arguments.quick else 1
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        log = folder / "trajectories.jsonl"
        with open(log, "w", encoding="utf-8") as file:
            for line in many_lines(300 // part, tokens=16_000):
                file.write(json.dumps(line) + "\n")
        reports = {
            "evaluation": Report(
                title="evaluation", answers=tuple(many_records(10_000 // part, tokens=200))
            ),
            "training": Report(title="training", logs=(log,)),
        }
        sizes = {"evaluation": (10_000 // part, 200), "training": (300 // part, 16_000)}
        for title, report in reports.items():
            started = time.monotonic()
            page = write_report(folder / f"{title}.html", report)
            written = time.monotonic() - started
            beside = folder / f"{title}_data"
            browser = open_browser()
            try:
                row: dict[str, Any] = {
                    "name": title,
                    "answers": sizes[title][0],
                    "tokens": sizes[title][1],
                    "write_s": written,
                    "page_bytes": page.stat().st_size,
                    "folder_bytes": sum(one.stat().st_size for one in beside.glob("*.js")),
                    **measured(browser, page),
                }
            finally:
                browser.quit()
            print(
                json.dumps(
                    {key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}
                ),
                flush=True,
            )
            found.append(row)
    if arguments.json:
        machine = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        }
        arguments.json.write_text(
            json.dumps({"version": 1, "machine": machine, "pages": found}, indent=1)
        )


if __name__ == "__main__":
    main()
