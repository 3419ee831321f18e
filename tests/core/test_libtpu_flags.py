"""What libtpu is told, and by which TPU."""

import pytest

from jaxtool.core.libtpu_flags import libtpu_flags, tpu_generation

WINDOWED = "--xla_jf_spmd_threshold_for_windowed_einsum_mib=100000000"
TILES = "--xla_tpu_scoped_vmem_limit_kib=65536"


@pytest.mark.parametrize(
    ("generation", "ours"),
    [(None, WINDOWED), ("v5e", WINDOWED), ("v5p", WINDOWED), ("v6e", f"{WINDOWED} {TILES}")],
)
def test_the_callers_flags_stay_and_ours_are_added_once(generation, ours):
    assert libtpu_flags("", generation) == ours
    assert libtpu_flags("--other=1", generation) == f"--other=1 {ours}"
    assert libtpu_flags(f"--other=1 {ours}", generation) == f"--other=1 {ours}"


def test_a_flag_of_the_callers_own_is_kept():
    own = "--xla_tpu_scoped_vmem_limit_kib=32768"
    assert libtpu_flags(own, "v6e") == f"{own} {WINDOWED}"


def test_a_plan_on_a_machine_with_another_tpu_has_the_flags_of_its_own():
    assert libtpu_flags(f"--other=1 {WINDOWED} {TILES}", "v5e") == f"--other=1 {WINDOWED}"


@pytest.mark.parametrize(
    ("devices", "generation"),
    [
        ([], None),
        ([("0x8086", "0x006f")], None),  # that number of another maker
        ([("0x8086", "0x1237"), ("0x1ae0", "0x006f"), ("0x1ae0", "0x006f")], "v6e"),
        ([("0x1ae0", "0x0042"), ("0x1ae0", "0x0062")], "v5p"),  # 0x0042: a network card of theirs
    ],
)
def test_the_tpu_of_a_machine(tmp_path, devices, generation):
    for i, (vendor, device) in enumerate(devices):
        folder = tmp_path / f"0000:00:{i:02}.0"
        folder.mkdir()
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "device").write_text(f"{device}\n")
    assert tpu_generation(tmp_path) == generation
