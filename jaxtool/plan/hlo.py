"""Reads a compiled program's text: collectives with their bytes, and the compiler's cycle estimate.

XLA's own cost analysis counts the body of a loop once and knows no collectives, so loops are followed
here. Covered: what libtpu 0.0.50 and XLA's CPU backend print. Not covered: loops whose bound is no
constant (counted once), cycles of custom kernels (the compiler does not say).
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "c64": 8, "c128": 16, "token": 0}
# libtpu's name for a fusion of an all-reduce and the slice of it that a device keeps: the first half of the ring.
_SCATTERED = "all-reduce-scatter"
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_OPCODE = re.compile(r"\s([a-z][a-z0-9-]*)\(")
_CALLED = re.compile(
    r"\b(body|calls|to_apply|branch_computations|condition)=\{?((?:%[\w.-]+[, ]*)+)"
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CONSTANT = re.compile(r"[su]\d+\[\]\S* constant\((\d+)\)")
_CHANNEL = re.compile(r"channel_id=(\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """All collectives of one kind in one run of a program."""

    kind: str
    count: int
    sent_bytes: float  # by each device, ring algorithms assumed
    hops: int  # in sequence from device to device, half the way round each ring


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Instruction:
    opcode: str
    result: str  # its type
    line: str


def collectives(text: str) -> list[Collective]:
    """Collectives of a compiled program, loops followed, by kind."""
    computations = _computations(text)
    seen: dict[str, tuple[str, int, float, int]] = {}
    for name, times in _visits(computations, follows_fusions=True):
        for number, instruction in enumerate(computations[name]):
            kind = instruction.opcode.removesuffix("-start")
            if kind not in _KINDS:
                continue
            # A collective that overlaps with a chain of fusions is printed in each of them.
            channel = _CHANNEL.search(instruction.line)
            key = f"{kind} {channel[1]}" if channel else f"{name} {number}"
            if key not in seen or times > seen[key][1]:
                n = _group_size(instruction.line)
                sent, hops = _sent_bytes(kind, instruction, n), _hops(kind, n)
                if name.startswith(_SCATTERED):
                    kind, sent, hops = "reduce-scatter", sent / 2, hops // 2
                seen[key] = (kind, times, sent, hops)
    found = []
    for kind in _KINDS:
        mine = [(times, sent, hops) for k, times, sent, hops in seen.values() if k == kind]
        if mine:
            found.append(
                Collective(
                    kind=kind,
                    count=sum(times for times, _, _ in mine),
                    sent_bytes=sum(times * sent for times, sent, _ in mine),
                    hops=sum(times * hops for times, _, hops in mine),
                )
            )
    return found


def estimated_cycles(text: str) -> int:
    """Sum of the TPU compiler's estimates for what it schedules, loops followed; 0 without any."""
    computations = _computations(text)
    total = 0
    for name, times in _visits(computations, follows_fusions=False):
        for instruction in computations[name]:
            found = _CYCLES.search(instruction.line)
            total += times * int(found[1]) if found else 0
    return total


def _computations(text: str) -> dict[str, list[_Instruction]]:
    """Instructions by computation; the entry is called "ENTRY"."""
    found: dict[str, list[_Instruction]] = {}
    current: list[_Instruction] | None = None
    for line in text.splitlines():
        if line.endswith("{") and line[:1] not in ("", " ", "}") and "->" in line:
            name = "ENTRY" if line.startswith("ENTRY") else line.split()[0].lstrip("%")
            current = found.setdefault(name, [])
        elif line.startswith("}") and not line.startswith("}}"):  # }}: a kernel's own text goes on
            current = None
        elif current is not None and " = " in line:
            right = line.split(" = ", 1)[1]
            opcode = _OPCODE.search(f" {right}")
            if opcode:
                # -1: the space put in front for the search.
                result = right[: max(0, opcode.start() - 1)]
                current.append(_Instruction(opcode=opcode[1], result=result, line=line))
    return found


def _visits(
    computations: dict[str, list[_Instruction]], *, follows_fusions: bool
) -> Iterator[tuple[str, int]]:
    """(computation, how often it runs) from the entry on."""
    waiting = [("ENTRY", 1)] if "ENTRY" in computations else []
    while waiting:
        name, times = waiting.pop()
        yield name, times
        for instruction in computations[name]:
            if instruction.opcode == "fusion" and not follows_fusions:
                continue
            called = {
                attribute: [part.strip(" %") for part in names.split(",") if part.strip()]
                for attribute, names in _CALLED.findall(instruction.line)
            }
            trips = 1
            if instruction.opcode == "while":
                trips = _trip_count(computations, called.get("condition", []))
            elif instruction.opcode not in ("fusion", "call", "conditional", "async-start"):
                continue  # the reducer of a reduction, a comparison of a sort
            for attribute, names in called.items():
                if attribute != "condition":
                    waiting += [(n, times * trips) for n in names if n in computations]


def _trip_count(computations: dict[str, list[_Instruction]], conditions: list[str]) -> int:
    """The largest whole number that a condition compares with: scans count from 0 up to it."""
    lines = [i.line for name in conditions for i in computations.get(name, ())]
    return max((int(n) for line in lines for n in _CONSTANT.findall(line)), default=1) or 1


def _hops(kind: str, n: int) -> int:
    if kind == "collective-permute":
        return 1
    return (2 if kind == "all-reduce" else 1) * (n // 2)


def _sent_bytes(kind: str, instruction: _Instruction, n: int) -> float:
    """Bytes that a device sends: a ring moves (n - 1) / n of the whole array, all-reduce twice."""
    parts = _top_level(instruction.result)
    is_start = instruction.opcode.endswith("-start")
    if is_start and kind != "all-reduce":  # (inputs, outputs, state...)
        parts = parts[1:2] if kind != "reduce-scatter" else parts[:1]
    size = sum(_size(part) for part in parts)
    if kind == "collective-permute":
        return size
    if kind == "reduce-scatter" and not is_start:
        size *= n
    share = (n - 1) / n
    return (2 if kind == "all-reduce" else 1) * share * size


def _group_size(line: str) -> int:
    """Devices of one group, from the three ways in which XLA writes replica_groups."""
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", line)
    if mesh:
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']*)'", mesh[2]))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if iota:
        return int(iota[2])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    return len(listed[1].split(",")) if listed else 1


def _top_level(types: str) -> list[str]:
    """Parts of a tuple type, or the type itself."""
    if not types.startswith("("):
        return [types]
    parts, depth = [""], 0
    for character in types[1:-1]:
        depth += character in "([{"
        depth -= character in ")]}"
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _size(types: str) -> float:
    """Bytes of all arrays in a type, padding not counted."""
    total = 0.0
    for dtype, dimensions in _SHAPE.findall(types):
        width = _BYTES.get(dtype)
        if width is None:
            bits = re.search(r"\d+", dtype)
            width = int(bits[0]) / 8 if bits else 0
        total += width * math.prod(int(d) for d in dimensions.split(",") if d)
    return total
