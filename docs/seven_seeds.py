"""Writes the computed parts of docs/results.md: what all seven seeds on two processors say, and the study's tables.

python -m docs.seven_seeds

The parts stand between comments `<!-- seven_seeds: NAME -->` and `<!-- end -->`; a test compares. Every figure comes
from docs/results/*.json.gz. Seeds 0 to 2 of the first processor are in ablations.json.gz, its seeds 3 to 6 in
fresh_seeds.json.gz, and all seven of the second one in second_processor.json.gz.
"""

import gzip
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtool.study import tables
from jaxtool.study.intervals import Interval, holm, p_value, t_interval
from jaxtool.study.results import SAMPLINGS

FOLDER = Path(__file__).with_name("results")
PAGE = Path(__file__).with_name("results.md")
SEEDS = range(7)
OTC, PAPER, GRPO, LONG_GRPO, COLD = (
    *("otc_after_grpo", "otc_grpo", "retool_grpo", "retool_grpo_180", "cold_start"),
)
SHOWN = (COLD, GRPO, LONG_GRPO, PAPER, OTC)
PAIRS = ((OTC, LONG_GRPO), (PAPER, GRPO), (OTC, GRPO), (GRPO, COLD), (LONG_GRPO, GRPO))
NOT_ABLATIONS = ("pretrain", "cold_start_half", COLD, GRPO, "text_rl_low_rate")
_PART = re.compile(r"(<!-- seven_seeds: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Draw = Mapping[str, Mapping[str, Mapping[str, list[float]]]]  # variant, sampling, figure, by seed


def read(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((FOLDER / name).read_bytes()))


def draws() -> dict[str, Draw]:
    """Accuracy and calls of every seed, by processor."""
    parts = {
        "first": (read("ablations.json.gz"), read("fresh_seeds.json.gz")),
        "second": (read("second_processor.json.gz"),),
    }
    return {
        processor: {
            variant: {
                way: {
                    figure: [
                        value
                        for part in files
                        for value in part["variants"][variant][way][figure]["seeds"]
                    ]
                    for figure in ("accuracy", "tool_calls")
                }
                for way in SAMPLINGS
            }
            for variant in SHOWN
        }
        for processor, files in parts.items()
    }


def points(draw: Draw, new: str, old: str, way: str) -> list[float]:
    """Accuracy of `new` less that of `old`, by seed."""
    pair = zip(draw[new][way]["accuracy"], draw[old][way]["accuracy"], strict=True)
    return [100 * (a - b) for a, b in pair]


def cut(draw: Draw, new: str, old: str, way: str) -> list[float]:
    """Percent fewer calls of `new` than of `old`, by seed."""
    pair = zip(draw[new][way]["tool_calls"], draw[old][way]["tool_calls"], strict=True)
    return [100 * (1 - a / b) for a, b in pair]


def productivity_gain(draw: Draw, new: str, old: str, way: str) -> list[float]:
    """Percent more right answers a call, by seed."""
    new_tp, old_tp = (
        [
            a / c
            for a, c in zip(*(draw[name][way][f] for f in ("accuracy", "tool_calls")), strict=True)
        ]
        for name in (new, old)
    )
    return [100 * (a / b - 1) for a, b in zip(new_tp, old_tp, strict=True)]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def signed(values: Sequence[float]) -> str:
    """`-2.4 (-7.2..+2.4)`."""
    found = t_interval(values)
    return f"{found.mean:+.1f} ({found.low:+.1f}..{found.high:+.1f})"


def percent(values: Sequence[float]) -> str:
    """`51 % (25..77)`."""
    found = t_interval(values)
    return f"{found.mean:.0f} % ({found.low:.0f}..{found.high:.0f})"


def compared() -> str:
    """The table that leads the page."""
    lines = [
        "| compared | steps | answers | first processor: points | fewer calls | second processor: points "
        "| fewer calls |",
        "|" + " --- |" * 7,
    ]
    steps = {GRPO: 60, PAPER: 60, LONG_GRPO: 180, OTC: 180, COLD: 0}
    for new, old in PAIRS:
        for way in SAMPLINGS:
            cells = [f"`{new}` against `{old}`", f"{steps[new]}, {steps[old]}", way]
            for draw in draws().values():
                saves_calls = new in (OTC, PAPER)
                fewer = percent(cut(draw, new, old, way)) if saves_calls else "–"
                cells += [signed(points(draw, new, old, way)), fewer]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def by_seed() -> str:
    """Greedy accuracy and calls of every draw."""
    lines = [f"| variant | processor | {' | '.join(f'seed {seed}' for seed in SEEDS)} |"]
    lines.append("|" + " --- |" * (2 + len(SEEDS)))
    for variant in SHOWN:
        for processor, draw in draws().items():
            own = draw[variant]["greedy"]
            pairs = zip(own["accuracy"], own["tool_calls"], strict=True)
            cells = [f"{100 * right:.1f} / {calls:.2f}" for right, calls in pairs]
            lines.append(f"| `{variant}` | {processor} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def lead() -> str:
    """What holds, in sentences."""
    first, second = draws().values()

    def both(figure: Callable[..., list[float]], show: Callable[..., str], *pair: str) -> str:
        return " and ".join(show(figure(draw, *pair)) for draw in (first, second))

    against_long = [points(draw, OTC, LONG_GRPO, "greedy") for draw in (first, second)]
    cuts = [x for draw in (first, second) for x in cut(draw, OTC, LONG_GRPO, "greedy")]
    losses = sorted(-mean(values) for values in against_long)
    sentences = [
        f"**OTC after GRPO makes about half of the calls of GRPO of as many steps, for {losses[0]:.1f} to "
        f"{losses[1]:.1f} points.** Greedily it has {both(points, signed, OTC, LONG_GRPO, 'greedy')} points, with "
        f"{both(cut, percent, OTC, LONG_GRPO, 'greedy')} fewer calls. "
        f"{_zero([*against_long, *(points(d, OTC, LONG_GRPO, 'sampled') for d in (first, second))])} "
        f"By seed the cut runs from {min(cuts):.0f} to {max(cuts):.0f} %.",
        f"**The paper's form costs points when sampled, on one processor of two.** Against GRPO of 60 steps `otc_grpo` has "
        f"{signed(points(second, PAPER, GRPO, 'sampled'))} points sampled on the second processor, with "
        f"{percent(cut(second, PAPER, GRPO, 'sampled'))} fewer calls. On the first one it has "
        f"{signed(points(first, PAPER, GRPO, 'sampled'))} points with "
        f"{percent(cut(first, PAPER, GRPO, 'sampled'))} fewer calls.",
        f"**RL improves on its cold start.** GRPO of 60 steps has "
        f"{both(points, signed, GRPO, COLD, 'greedy')} points greedily, and "
        f"{both(points, signed, GRPO, COLD, 'sampled')} sampled. It makes more calls for it: greedily "
        f"{_calls(first, COLD)} to {_calls(first, GRPO)} and {_calls(second, COLD)} to {_calls(second, GRPO)}.",
        f"**GRPO goes on improving.** 180 steps have {both(points, signed, LONG_GRPO, GRPO, 'sampled')} points "
        f"sampled on 60 steps. This is why OTC is to be compared with GRPO of as many steps. Compared with the "
        f"60 steps that it starts from, OTC has {both(points, signed, OTC, GRPO, 'greedy')} points greedily.",
    ]
    bullets = [_wrapped(text, "- ", "  ") for text in sentences]
    return "\n".join(bullets) + "\n"


def _zero(each: Sequence[Sequence[float]]) -> str:
    """What the intervals of four means allow to say."""
    found: list[Interval] = [t_interval(values) for values in each]
    excluding = sum(interval.excludes_zero for interval in found)
    if not excluding:
        return (
            "The intervals of the points contain zero, greedy and sampled: neither a loss nor its absence is "
            "shown."
        )
    return f"{excluding} of {len(found)} intervals of the points exclude zero."


def _calls(draw: Draw, variant: str) -> str:
    return f"{mean(draw[variant]['greedy']['tool_calls']):.2f}"


def goals() -> str:
    """Goals of the study, by all seeds that have them."""
    first, second = draws().values()
    three = read("results.json.gz")["paired"]["retool_grpo against text_rl"]["greedy"]
    cuts = [percent(cut(draw, OTC, GRPO, "greedy")) for draw in (first, second)]
    gains = [percent(productivity_gain(draw, OTC, GRPO, "greedy")) for draw in (first, second)]
    longer = [signed(points(draw, OTC, LONG_GRPO, "greedy")) for draw in (first, second)]
    shorter = [signed(points(draw, OTC, GRPO, "greedy")) for draw in (first, second)]
    learned = [signed(points(draw, GRPO, COLD, "greedy")) for draw in (first, second)]
    rows = [
        ("RL improves on the cold start by more than its error", *learned, "met"),
        (
            "OTC: at least 70 % fewer calls than the GRPO policy that it starts from",
            *cuts,
            "not met",
        ),
        ("OTC: at least 229 % higher TP than that policy", *gains, "not met"),
        ("OTC: accuracy within 1 point of GRPO of as many steps", *longer, "not shown"),
        (
            "the same against the 60 steps that it starts from",
            *shorter,
            "shown on the first only, with three times the steps",
        ),
        (
            "ReTool ends at least 20 points above text-only RL",
            f"{signed(three['accuracy_points']['seeds'])}, seeds 0 to 2",
            "not run",
            "says little: text-only RL cannot pass 75 % by construction",
        ),
        (
            "ReTool reaches text-only RL's best accuracy in at most 40 % of its steps",
            "at step 0, seeds 0 to 2",
            "not run",
            "by the cold start alone",
        ),
    ]
    lines = ["| goal | first processor | second processor | |", "|" + " --- |" * 4]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def corrected() -> dict[str, float]:
    """Holm's p-value of each ablation against GRPO, greedy accuracy, seeds 0 to 2; smallest first."""
    found = read("ablations.json.gz")["variants"]
    grpo = found[GRPO]["greedy"]["accuracy"]["seeds"]
    differences = {
        name: [a - b for a, b in zip(variant["greedy"]["accuracy"]["seeds"], grpo, strict=True)]
        for name, variant in found.items()
        if name not in NOT_ABLATIONS
    }
    return holm({name: p_value(values) for name, values in differences.items()})


def exploratory() -> str:
    """The sentence above the ablations."""
    found = corrected()
    (name, smallest), *_ = found.items()
    assert smallest > 0.05, "an ablation is significant: write what it says"
    text = (
        f"**Exploratory, not significant after Holm.** Each of {len(found)} variants was compared with GRPO on "
        f"three seeds (greedy accuracy, paired t-test). Corrected for their number, the smallest p-value is "
        f"{smallest:.2f} (`{name}`). Three seeds show only large differences, so that two variants look alike here does not "
        f"make them equal. Seeds 0 to 2 of one processor are also one draw: on the second processor the same "
        f"seeds end elsewhere. Read every sentence of this section as an observation on that draw."
    )
    return _wrapped(text) + "\n"


def study() -> str:
    """Every table of the default set."""
    lines = tables.markdown(read("results.json.gz")).splitlines()
    return "\n".join(line if line[:1] in "|#" else _wrapped(line) for line in lines) + "\n"


def _wrapped(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        text,
        width=120,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


PARTS: Mapping[str, Callable[[], str]] = {
    part.__name__: part for part in (lead, compared, by_seed, goals, exploratory, study)
}


def filled(page: str) -> str:
    """The page with every part computed."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), encoding="utf-8")
