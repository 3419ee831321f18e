"""What libtpu is told, and by which TPU."""

import pytest

from jaxtool.core.libtpu_flags import libtpu_flags, tpu_generation

WINDOWED = "--xla_jf_spmd_threshold_for_windowed_einsum_mib=100000000"
TILES = "--xla_tpu_scoped_vmem_limit_kib=65536"
BESIDE = libtpu_flags("", "v6e").removeprefix(f"{WINDOWED} {TILES} ")
V6E = f"{WINDOWED} {TILES} {BESIDE}"


@pytest.mark.parametrize(
    ("generation", "ours"),
    [(None, WINDOWED), ("v5e", WINDOWED), ("v5p", WINDOWED), ("v6e", V6E)],
)
def test_the_callers_flags_stay_and_ours_are_added_once(generation, ours):
    assert libtpu_flags("", generation) == ours
    assert libtpu_flags("--other=1", generation) == f"--other=1 {ours}"
    assert libtpu_flags(f"--other=1 {ours}", generation) == f"--other=1 {ours}"


def test_a_flag_of_the_callers_own_is_kept():
    own = "--xla_tpu_scoped_vmem_limit_kib=32768"
    assert libtpu_flags(own, "v6e") == f"{own} {WINDOWED} {BESIDE}"
    on_core = "--xla_tpu_enable_sparse_core_collective_offload_all_gather=false"
    assert libtpu_flags(on_core, "v6e").count("offload_all_gather") == 1


def test_gathers_and_scatters_of_a_v6e_are_the_sparse_cores():
    flags = BESIDE.split()
    assert "--xla_tpu_enable_sparse_core_collective_offload_all_gather=true" in flags
    assert "--xla_tpu_enable_sparse_core_collective_offload_reduce_scatter=true" in flags
    assert not any("all_reduce" in flag for flag in flags)


def test_a_plan_on_a_machine_with_another_tpu_has_the_flags_of_its_own():
    assert libtpu_flags(f"--other=1 {V6E}", "v5e") == f"--other=1 {WINDOWED}"


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
