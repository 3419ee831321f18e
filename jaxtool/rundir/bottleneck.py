"""Who a step waited for: its seconds by part, from the timing metrics of its row.

The rule. A step's seconds go one after the other into data, rollouts, judge and update. The rollouts' seconds are the
decoder's while rows decode or prompts run, and the tool's while all rows wait for tools. Where rollouts overlap with
updates, only the seconds count in which the learner waited for answers (`timing/learner_wait_s`); decoder and tool share
them as they share their own seconds. The bottleneck is the part with most seconds. What is left of the step (statistics,
packing of a log) belongs to nobody.
"""

from collections.abc import Mapping

PARTS = ("decoder", "tool", "judge", "learner", "data")


def shares(row: Mapping[str, float]) -> dict[str, float]:
    """Each part's share of `timing/step_s`, 0 to 1; a metric that is missing counts 0 s.

    Example: a step of 10 s with decode_s 4, prefill_s 1, tool_wait_s 2, judge_s 0.5, update_s 2, data_s 0.1 has
    decoder 0.5, tool 0.2, judge 0.05, learner 0.2, data 0.01. With learner_wait_s 1.4 the rollouts' 7 s count as 1.4:
    decoder 0.1, tool 0.04.
    """
    decoder = row.get("timing/decode_s", 0.0) + row.get("timing/prefill_s", 0.0)
    tool = row.get("timing/tool_wait_s", 0.0)
    waited = row.get("timing/learner_wait_s")
    if waited is not None:
        own = decoder + tool
        decoder, tool = (waited * decoder / own, waited * tool / own) if own else (waited, 0.0)
    names = ("timing/judge_s", "timing/update_s", "timing/data_s")
    values = (decoder, tool, *(row.get(name, 0.0) for name in names))
    whole = row.get("timing/step_s", 0.0)
    return {part: x / whole if whole else 0.0 for part, x in zip(PARTS, values, strict=True)}


def share_metrics(row: Mapping[str, float]) -> dict[str, float]:
    """`shares` as metrics of the row."""
    return {f"timing/share_fraction/{part}": share for part, share in shares(row).items()}


def bottleneck(row: Mapping[str, float]) -> tuple[str, float] | None:
    """The part with the largest share, and the share; None for a row without shares. The first of PARTS wins a tie."""
    found = {part: row.get(f"timing/share_fraction/{part}", 0.0) for part in PARTS}
    name = max(PARTS, key=lambda part: found[part])
    return (name, found[name]) if found[name] > 0 else None


def bottleneck_text(row: Mapping[str, float]) -> str:
    """`decoder 71%`; "" for a row without shares."""
    found = bottleneck(row)
    return "" if found is None else f"{found[0]} {found[1]:.0%}"
