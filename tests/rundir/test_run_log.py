"""What TensorBoard gets of a run besides numbers: texts of its trajectories, and its settings."""

from tensorboardX.proto import event_pb2
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from jaxtool.config.settings import Setting
from jaxtool.rundir.metrics import TENSORBOARD_FOLDER
from jaxtool.rundir.run_log import RunLog
from jaxtool.rundir.trajectory_log import TokenView, TrajectoryView, read_trajectories

ORIGIN = "run.gin:3"
SETTINGS = {
    "optimizer.rate": Setting(name="Optimizer.rate", value="1e-06", origin=ORIGIN),
    "renderer": Setting(name="Run.renderer", value="'retool'", origin=ORIGIN),
    "pool": Setting(name="Schedule.pool", value="None"),
}


def view(response):
    tokens = (
        TokenView(text="1+1?", token_id=1, origin="prompt"),
        TokenView(text=response, token_id=2, origin="policy"),
    )
    return TrajectoryView(
        variant="v",
        step=2,
        problem_id="sum/1",
        level="",
        question="1+1?",
        reference_answer="2",
        sample=0,
        reward=0.5,
        is_correct=True,
        tokens=tokens,
    )


def summaries(workdir):
    """(step, value) of all summaries of the event files."""
    for file in sorted((workdir / TENSORBOARD_FOLDER).iterdir()):
        content, position = file.read_bytes(), 0
        while position < len(content):
            length = int.from_bytes(content[position : position + 8], "little")
            event = event_pb2.Event.FromString(content[position + 12 : position + 12 + length])
            yield from ((event.step, value) for value in event.summary.value)
            position += 12 + length + 4


def test_trajectories_are_texts_that_nothing_in_them_ends(tmp_path):
    with RunLog(tmp_path, None, SETTINGS) as log:
        log.write_views(2, [view("```py\n2\n```"), view("plain")])
        log.write(2, {"reward/mean": 0.5})
    found = {
        value.tag: (step, value.tensor.string_val[0].decode())
        for step, value in summaries(tmp_path)
        if value.tag.startswith("trajectories/")
    }
    assert sorted(found) == ["trajectories/0/text_summary", "trajectories/1/text_summary"]
    step, text = found["trajectories/0/text_summary"]
    assert step == 2
    assert "`sum/1`, reward 0.5, 0 calls" in text
    assert "**response**\n\n````\n```py\n2\n```\n````" in text
    assert len(read_trajectories(tmp_path / "trajectories.jsonl")) == 2


def test_settings_that_somebody_set_are_hparams_with_numbers_as_numbers(tmp_path):
    with RunLog(tmp_path, None, SETTINGS):
        pass
    (start,) = [
        HParamsPluginData.FromString(value.metadata.plugin_data.content).session_start_info
        for _, value in summaries(tmp_path)
        if value.tag == "_hparams_/session_start_info"
    ]
    assert set(start.hparams) == {"optimizer.rate", "renderer"}
    assert start.hparams["optimizer.rate"].number_value == 1e-6
    assert start.hparams["renderer"].string_value == "retool"
