"""SIGKILL at a random point of a phase, then the same command: everything is that of an unbroken run, bit by bit.

A few of the points that `python -m benchmarks.kill_drill` draws; there are 20 of each phase.
"""

import pytest
from helpers.kill_drills import DRILLS, drill

from benchmarks import kill_drill

pytestmark = pytest.mark.slow


@pytest.mark.nightly
@pytest.mark.parametrize("phase", ["validation"])  # its resume reads finished answers back, too
def test_a_run_killed_at_a_random_point_ends_as_if_it_had_not_been(phase, tmp_path_factory):
    result = drill(DRILLS[phase], tmp_path_factory.getbasetemp() / "kills", seed=0, count=1)
    assert result.kills == 1
    assert result.differing == []


def test_the_nightly_command_has_every_phase():
    assert set(kill_drill.PHASES) == set(DRILLS)
