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
# Starts of what goes on beside the core: on the SparseCores, or as a copy.
BESIDE = ("async-start", "call-start", "custom-call-start")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_OPCODE = re.compile(r"\s([a-z][a-z0-9-]*)\(")
_CALLED = re.compile(
    r"\b(body|calls|to_apply|branch_computations|called_computations|condition)=\{?((?:%[\w.-]+[, ]*)+)"
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
class Instruction:
    opcode: str
    result: str  # its type
    line: str


Computations = dict[str, list[Instruction]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sent:
    """One collective. `key` is the same wherever the text prints it."""

    key: str
    kind: str
    sent_bytes: float
    hops: int


def sent_by(instruction: Instruction, computation: str) -> Sent | None:
    """What an instruction of a computation sends; None if it is no collective."""
    kind = instruction.opcode.removesuffix("-start")
    if kind not in _KINDS:
        return None
    # A collective that overlaps with a chain of fusions is printed in each of them.
    channel = _CHANNEL.search(instruction.line)
    key = f"{kind} {channel[1]}" if channel else f"{computation} {instruction.line}"
    n = _group_size(instruction.line)
    sent, hops = _sent_bytes(kind, instruction, n), _hops(kind, n)
    if computation.startswith(_SCATTERED):
        kind, sent, hops = "reduce-scatter", sent / 2, hops // 2
    return Sent(key=key, kind=kind, sent_bytes=sent, hops=hops)


def collectives(text: str) -> list[Collective]:
    """Collectives of a compiled program, loops followed, by kind."""
    parsed = computations(text)
    seen: dict[str, tuple[int, Sent]] = {}
    for name, times in _visits(parsed, follows_fusions=True):
        for instruction in parsed[name]:
            sent = sent_by(instruction, name)
            if sent and times > seen.get(sent.key, (0, None))[0]:
                seen[sent.key] = times, sent
    found = []
    for kind in _KINDS:
        mine = [(n, one.sent_bytes, one.hops) for n, one in seen.values() if one.kind == kind]
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
    parsed = computations(text)
    visits = _visits(parsed, follows_fusions=False)
    return sum(times * cycles_of(i.line) for name, times in visits for i in parsed[name])


def cycles_of(line: str) -> int:
    """The compiler's estimate for an instruction; 0 without one."""
    found = _CYCLES.search(line)
    return int(found[1]) if found else 0


def called(line: str) -> dict[str, list[str]]:
    """Computations that an instruction calls, by attribute."""
    return {
        attribute: [part.strip(" %") for part in names.split(",") if part.strip()]
        for attribute, names in _CALLED.findall(line)
    }


def computations(text: str) -> Computations:
    """Instructions by computation; the entry is called "ENTRY"."""
    found: Computations = {}
    current: list[Instruction] | None = None
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
                current.append(Instruction(opcode=opcode[1], result=result, line=line))
    return found


def _visits(parsed: Computations, *, follows_fusions: bool) -> Iterator[tuple[str, int]]:
    """(computation, how often it runs) from the entry on. Without fusions: those that the core walks through."""
    waiting = [("ENTRY", 1)] if "ENTRY" in parsed else []
    while waiting:
        name, times = waiting.pop()
        yield name, times
        for instruction in parsed[name]:
            if instruction.opcode in ("fusion", *BESIDE) and not follows_fusions:
                continue
            inner, trips = called(instruction.line), 1
            if instruction.opcode == "while":
                trips = trip_count(parsed, inner.get("condition", []))
            elif instruction.opcode not in ("fusion", "call", "conditional", *BESIDE):
                continue  # the reducer of a reduction, a comparison of a sort
            for attribute, names in inner.items():
                if attribute != "condition":
                    waiting += [(n, times * trips) for n in names if n in parsed]


def trip_count(parsed: Computations, conditions: list[str]) -> int:
    """The largest whole number that a condition compares with: scans count from 0 up to it."""
    lines = [i.line for name in conditions for i in parsed.get(name, ())]
    return max((int(n) for line in lines for n in _CONSTANT.findall(line)), default=1) or 1


def _hops(kind: str, n: int) -> int:
    if kind == "collective-permute":
        return 1
    return (2 if kind == "all-reduce" else 1) * (n // 2)


def _sent_bytes(kind: str, instruction: Instruction, n: int) -> float:
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
