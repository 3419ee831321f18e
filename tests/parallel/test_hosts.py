"""Start-up flags are checked, shares put together again, and one process waits for nobody."""

import jax
import numpy as np
import pytest

from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding, decode
from jaxtool.parallel.host_arrays import decode_mesh, fetch, put
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.rundir.metrics import over_hosts

PLACE = {"coordinator": "10.0.0.1:9000", "num_processes": 4, "process_id": 3}


@pytest.fixture
def joined(monkeypatch):
    """What jax is asked for, in place of a wait for processes that are not there."""
    calls = []
    monkeypatch.setattr(hosts, "_join", lambda *place: calls.append(place))
    return calls


def test_flags_and_environment_name_the_place_of_a_process(joined):
    hosts.start(**PLACE, environment={})
    environment = {
        "JAX_COORDINATOR_ADDRESS": "10.0.0.1:9000",
        "JAX_NUM_PROCESSES": "4",
        "JAX_PROCESS_ID": "1",
    }
    hosts.start(environment=environment)
    hosts.start(process_id=2, environment=environment)
    assert joined == [("10.0.0.1:9000", 4, place) for place in (3, 1, 2)]


def test_a_tpu_pod_or_slurm_job_is_left_to_jax(joined):
    hosts.start(finds_others=True, environment={})
    assert joined == [(None, None, None)]


def test_a_single_process_joins_nobody(joined):
    hosts.start(environment={})
    hosts.start(num_processes=1, environment={})
    assert joined == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"coordinator": None}, "also needs --coordinator .or JAX_COORDINATOR_ADDRESS"),
        ({"num_processes": None, "process_id": None}, "needs --num_processes and --process_id"),
        ({"process_id": 4}, r"--process_id 4 must be in 0\.\.3 with --num_processes 4"),
        ({"process_id": -1}, r"--process_id -1 must be in 0\.\.3"),
        ({"coordinator": "10.0.0.1"}, "'10.0.0.1' must be host:port"),
        ({"finds_others": True}, "give --distributed, or --coordinator"),
        ({"process_id": None, "environment": {"JAX_PROCESS_ID": "x"}}, "JAX_PROCESS_ID='x' must"),
    ],
)
def test_a_place_that_cannot_be_is_refused(joined, changed, message):
    with pytest.raises(ValueError, match=message):
        hosts.start(**({"environment": {}} | PLACE | changed))
    assert joined == []


def test_neighbours_go_to_different_hosts(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    shares = []
    for index in range(3):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        shares.append(hosts.share("abcdefgh"))
    assert shares == [["a", "d", "g"], ["b", "e", "h"], ["c", "f"]]


def test_one_process_agrees_with_itself_and_keeps_its_mesh():
    assert hosts.exchange({"a": 1}) == [{"a": 1}]
    assert hosts.agree(lambda: 7) == 7
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    assert decode_mesh(mesh, decode()) is mesh
    rows = np.arange(16).reshape(8, 2)
    placed = put(rows, Sharding(mesh).named("batch", "length"))
    np.testing.assert_array_equal(fetch(placed), rows)


def test_metrics_of_hosts_are_summed_averaged_or_the_slowest():
    parts = [
        {"tools/calls_total": 3.0, "timing/decode_s": 2.0, "tokens/useful_fraction": 0.5},
        {"tools/calls_total": 4.0, "timing/decode_s": 1.0, "tokens/useful_fraction": 0.75},
    ]
    assert over_hosts(parts) == {
        "tools/calls_total": 7.0,
        "timing/decode_s": 2.0,
        "tokens/useful_fraction": 0.625,
    }


SLURM = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"}


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        (SLURM, [0, 1, 2, 3, 4, 5, 6, 7]),
        (SLURM | {"SLURM_NTASKS": "16"}, None),  # a task a GPU: jax's own rule is right
        (SLURM | {"JAX_LOCAL_DEVICE_IDS": "0,1"}, None),
        ({"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2"}, None),  # nodes without GPUs
        ({}, None),
    ],
    ids=["alone", "a task a GPU", "chosen", "no GPUs", "no SLURM"],
)
def test_a_slurm_task_that_is_alone_on_its_node_gets_all_of_its_gpus(environment, devices):
    assert hosts.slurm_devices(environment) == devices
