"""How long a compiled program waits for its network: one core and one network walk through the compiler's schedule.

A program's text has its instructions in the order in which the core takes them. A collective of the core's own stops
it. One that the SparseCores do, or a `-start` of any kind, goes on beside it until its `-done`: the core waits for
what is left. Collectives follow one another on the network. Not covered: memory bandwidth that both share, and
collectives that a chain of fusions carries (v5e): these count as the core's own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtool.plan import hlo
from jaxtool.plan.chips import Chip

# What a step of a walk is, as JSON has it: ["core", cycles], ["kernel", name], ["sync", bytes, hops],
# ["begin", name, bytes, hops], ["end", name], ["loop", rounds, [steps of a round]].
Step = list[Any]
# Of one hop between neighbours: the small all-reduces of a decode step are bound by it.
HOP_S = 1e-6

_NAME = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = ")
_EARLIER = re.compile(r"-(?:update|done)\(%([\w.-]+)")  # the start or update that one belongs to


def schedule(text: str, kernels: Sequence[str]) -> list[Step]:
    """Steps of a compiled program, what follows one another on the core added up.

    Args:
      kernels: names of its custom kernels.
    """
    return _Reader(text, kernels).steps("ENTRY")


def waits_s(steps: Sequence[Step], kernel_s: Mapping[str, float], chip: Chip) -> float:
    """Seconds in which the core waits for the network.

    Args:
      kernel_s: of one call, by name.

    An example: a gather of 3 ms begins, the core works for 2 ms, and the gather's end is met: 1 ms. Then a sum of 2 ms
    that the core does itself: 3 ms in all. A second gather that begins beside the first ends 3 ms after it.
    """
    return _walk(steps, kernel_s, chip, 0.0)[1]


def link_s(sent_bytes: float, hops: float, chip: Chip) -> float:
    """Bytes over one torus axis, both directions, and `HOP_S` for every hop."""
    return sent_bytes / chip.ici_bytes_per_s + HOP_S * hops


def _walk(
    steps: Sequence[Step], kernel_s: Mapping[str, float], chip: Chip, busy_until: float
) -> tuple[float, float, float]:
    """Seconds from the first step to the last, those of them waited for, and until when the network is busy."""
    now = waited = 0.0
    ends: dict[str, float] = {}
    for kind, *values in steps:
        if kind == "core":
            now += values[0] / chip.clock_hz if chip.clock_hz else 0.0
        elif kind == "kernel":
            now += kernel_s.get(values[0], 0.0)
        elif kind == "begin":
            name, sent, hops = values
            busy_until = ends[name] = max(now, busy_until) + link_s(sent, hops, chip)
        elif kind in ("end", "sync"):
            if kind == "sync":
                sent, hops = values
                busy_until = max(now, busy_until) + link_s(sent, hops, chip)
            until = busy_until if kind == "sync" else ends.pop(values[0], now)
            waited += max(0.0, until - now)
            now = max(now, until)
        else:
            rounds, inner = values
            # The first round may find the network busy, the others find it as a round leaves it.
            first = _walk(inner, kernel_s, chip, max(0.0, busy_until - now))
            later = _walk(inner, kernel_s, chip, max(0.0, first[2] - first[0]))
            waited += first[1] + (rounds - 1) * later[1]
            now += first[0] + (rounds - 1) * later[0]
            last = later if rounds > 1 else first
            busy_until = max(busy_until, now + last[2] - last[0])
    return now, waited, busy_until


class _Reader:
    """Reads the steps of a program's computations; a collective that is printed twice counts once."""

    def __init__(self, text: str, kernels: Sequence[str]):
        self._parsed = hlo.computations(text)
        self._kernels = {name: re.compile(rf"{re.escape(name)}(\.\d+)?") for name in kernels}
        self._seen: set[str] = set()
        # By the name of a start or an update: its start, and what that sends.
        self._begun: dict[str, tuple[str, list[float]]] = {}

    def steps(self, computation: str) -> list[Step]:
        merged: list[Step] = []
        for step in self._steps(computation):
            if step[0] == "core" and merged and merged[-1][0] == "core":
                merged[-1] = ["core", merged[-1][1] + step[1]]
            else:
                merged.append(step)
        return merged

    def _steps(self, computation: str) -> Iterator[Step]:
        for instruction in self._parsed.get(computation, ()):
            opcode, line, inner = instruction.opcode, instruction.line, hlo.called(instruction.line)
            named, cycles = _NAME.match(line), hlo.cycles_of(line)
            name = named[1] if named else ""
            if cycles:
                yield ["core", cycles]
            if opcode == "while":
                rounds = hlo.trip_count(self._parsed, inner.get("condition", []))
                yield ["loop", rounds, [s for body in inner["body"] for s in self.steps(body)]]
            elif opcode in ("call", "conditional"):
                for other in dict.fromkeys(name for names in inner.values() for name in names):
                    yield from self._steps(other)
            elif opcode == "custom-call":
                yield from (
                    ["kernel", k] for k, own in self._kernels.items() if own.fullmatch(name)
                )
            elif opcode.endswith(("-update", "-done")):
                yield from self._goes_on(name, line)
            else:
                found = self._sent(instruction, computation)
                if opcode in ("fusion", *hlo.BESIDE):
                    found += [x for names in inner.values() for n in names for x in self._inside(n)]
                for sent in found:
                    if not opcode.endswith("-start"):
                        yield ["sync", *sent]
                        continue
                    self._begun[name] = name, sent
                    # Without an operand it only makes room: its update sends.
                    if f"{opcode}(%" in line:
                        yield ["begin", name, *sent]

    def _goes_on(self, name: str, line: str) -> Iterator[Step]:
        earlier = _EARLIER.search(line)
        if earlier and earlier[1] in self._begun:
            start, sent = self._begun[name] = self._begun[earlier[1]]
            yield ["end", start] if "-done(" in line else ["begin", start, *sent]

    def _sent(self, instruction: hlo.Instruction, computation: str) -> list[list[float]]:
        """Bytes and hops of a collective that was not seen before."""
        sent = hlo.sent_by(instruction, computation)
        if sent is None or sent.key in self._seen:
            return []
        self._seen.add(sent.key)
        return [[sent.sent_bytes, sent.hops]]

    def _inside(self, computation: str) -> list[list[float]]:
        """Of the collectives in a computation and those that it calls."""
        found = []
        for instruction in self._parsed.get(computation, ()):
            found += self._sent(instruction, computation)
            if instruction.opcode in ("fusion", "call"):
                names = [n for group in hlo.called(instruction.line).values() for n in group]
                found += [sent for name in names for sent in self._inside(name)]
        return found
