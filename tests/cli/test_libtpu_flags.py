"""What the entry points tell libtpu."""

from jaxtool.cli.entry import libtpu_flags


def test_the_callers_flags_stay_and_ours_is_added_once():
    ours = libtpu_flags("")
    assert ours.startswith("--xla_jf_spmd_threshold_for_windowed_einsum_mib=")
    assert libtpu_flags("--other=1") == f"--other=1 {ours}"
    assert libtpu_flags(libtpu_flags("--other=1")) == f"--other=1 {ours}"
    own = "--xla_jf_spmd_threshold_for_windowed_einsum_mib=256"
    assert libtpu_flags(own) == own
