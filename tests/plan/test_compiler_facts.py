"""What the compiler said of a program is read again for the same program, and for no other."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxtool.plan import facts
from jaxtool.plan.bundles import StepCycles
from jaxtool.plan.chips import parse_slice
from jaxtool.plan.facts import Facts, facts_of
from jaxtool.plan.hlo import Collective

SAID = Facts(
    arguments=10,
    temporaries=3,
    outputs=7,
    replaced=2,
    cycles=1234,
    collectives=(Collective(kind="all-reduce", count=2, sent_bytes=1.5, hops=4),),
    schedule=[["core", 5], ["loop", 2, [["sync", 3.0, 1]]]],
    kernels={"over the cache": StepCycles(11, 2)},
    compile_s=9.0,
)
V5E = parse_slice("v5e-8")


@pytest.fixture
def compiled(monkeypatch):
    """A compiler that says `SAID` and counts how often it is asked."""
    asked = []

    def compile_it(lowered, calls, tpu):
        asked.append(tpu.name)
        return SAID

    monkeypatch.setattr(facts, "_compiled", compile_it)
    return asked


def lowered(size: int = 4):
    return jax.jit(lambda x: x + 1).lower(np.zeros(size, np.float32))


def test_the_same_program_is_compiled_once(tmp_path, compiled):
    for _ in range(2):
        assert facts_of(lowered(), (), 8, V5E, tmp_path) == SAID
    assert len(compiled) == 1
    assert facts_of(lowered(), (), 8, V5E, None) == SAID
    assert len(compiled) == 2


@pytest.mark.parametrize("what", ["shape", "devices", "slice", "versions", "options"])
def test_another_program_another_place_or_another_compiler_is_compiled(
    tmp_path, compiled, monkeypatch, what
):
    facts_of(lowered(), (), 8, V5E, tmp_path)
    if what == "versions":
        monkeypatch.setattr(facts, "compiler_versions", lambda: {"jax": "9", "libtpu": "0.0.1"})
    facts_of(
        lowered(5 if what == "shape" else 4),
        (),
        4 if what == "devices" else 8,
        parse_slice("v6e-8") if what == "slice" else V5E,
        tmp_path,
        (("xla_tpu_scoped_vmem_limit_kib", "1"),) if what == "options" else (),
    )
    assert len(compiled) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 0}', '{"format": 1, "arguments": 3}'])
def test_a_file_that_cannot_be_read_is_compiled_and_written_again(tmp_path, compiled, text):
    facts_of(lowered(), (), 8, V5E, tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_text()
    path.write_text(text)
    assert facts_of(lowered(), (), 8, V5E, tmp_path) == SAID
    assert len(compiled) == 2
    assert json.loads(path.read_text()) == json.loads(whole)


def test_a_program_that_does_not_fit_is_kept_too(tmp_path, compiled, monkeypatch):
    too_large = dataclasses.replace(Facts(), needed=3.5, compile_s=1.0)
    monkeypatch.setattr(facts, "_compiled", lambda *_: too_large)
    assert facts_of(lowered(), (), 8, V5E, tmp_path) == too_large
    monkeypatch.setattr(facts, "_compiled", None)
    assert facts_of(lowered(), (), 8, V5E, tmp_path) == too_large
