"""A run directory belongs to one configuration and one seed once its run has begun."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxtool.core.stopped import Stopped
from jaxtool.parallel import hosts
from jaxtool.rundir import provenance
from jaxtool.rundir.run_record import read_record
from jaxtool.rundir.run_start import Identity, Launch, open_start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 3
    rate: float = 0.5
    log_every: int = 1
    endpoint: str = ""


MAY_CHANGE = ("Config.steps", "Config.log_every")


def start(workdir, config, *, seed=0, init_from=None, launch=None):
    identity = Identity(config=config, seed=seed, init_from=init_from, steps=config.steps)
    launch = launch or Launch(command=("python", "train.py"))
    return open_start(workdir, identity, launch=launch, may_change=MAY_CHANGE)


def run(workdir, config=Config(), *, is_killed_at=None, **flags):
    """A run of a row a step; returns the step from which it went on, None if there was nothing to do."""
    with start(workdir, config, **flags) as this:
        if this.is_finished:
            return None
        rows = workdir / "metrics.jsonl"
        done = len(rows.read_text().splitlines()) if rows.exists() else 0
        this.begin(done)
        for step in range(done, config.steps):
            if step == is_killed_at:
                raise KeyboardInterrupt
            with rows.open("a") as file:
                file.write(json.dumps({"step": step}) + "\n")
        (workdir / "policy").mkdir(exist_ok=True)
        (workdir / "policy" / "model_config.json").write_text("{}")
        this.finish()
        return done


def record_of(workdir):
    record = read_record(workdir)
    assert record is not None
    return record


def test_a_finished_run_is_left_alone_and_goes_on_with_more_steps(tmp_path):
    assert run(tmp_path) == 0
    assert run(tmp_path) is None
    assert len(record_of(tmp_path).starts) == 1
    assert run(tmp_path, Config(steps=5)) == 3
    record = record_of(tmp_path)
    assert (record.finished_step, record.steps) == (5, 5)
    assert [one.from_step for one in record.starts] == [0, 3]
    assert record.starts[1].changed == ("Config.steps: 3 -> 5",)
    with pytest.raises(ValueError, match="holds a run of 5 steps, more than steps=3: give more"):
        run(tmp_path, Config(steps=3))


def test_an_extension_that_was_interrupted_is_not_taken_for_finished(tmp_path):
    """The policy of the shorter run is still there."""
    run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Config(steps=6), is_killed_at=4)
    record = record_of(tmp_path)
    assert (record.finished_step, record.steps, record.starts[-1].status) == (3, 6, "stopped")
    assert run(tmp_path, Config(steps=6)) == 4
    assert run(tmp_path, Config(steps=6)) is None


def test_what_the_settings_were_is_known_after_they_are_replaced(tmp_path):
    run(tmp_path)
    with start(tmp_path, Config(steps=5)) as this:
        this.begin(3)
        assert this.before["steps"].value == "3"
        assert record_of(tmp_path).settings["steps"].value == "5"
        assert not this.is_new


def test_fewer_steps_than_a_checkpoint_has_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Config(steps=9), is_killed_at=5)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "checkpoints" / "tmp").mkdir()
    with pytest.raises(ValueError, match="holds a run of 5 steps, more than steps=4: give more"):
        run(tmp_path, Config(steps=4))
    assert run(tmp_path, Config(steps=5)) == 5


def test_what_may_not_change_is_refused_with_every_old_and_new_value(tmp_path):
    def origin(part, parameter):
        return f"run.gin:{4 if parameter == 'rate' else 9}"

    run(tmp_path, launch=Launch(origin=origin))
    changed = Config(rate=0.7, log_every=2, endpoint="x")
    with pytest.raises(ValueError, match="holds a run with another configuration") as caught:
        run(tmp_path, changed, seed=1, launch=Launch(origin=origin))
    said = str(caught.value)
    assert "\n" not in said
    assert "Config.rate: 0.5 (run.gin:4) -> 0.7 (run.gin:4); Config.endpoint: ''" in said
    assert "--seed: 0 -> 1" in said
    assert "log_every" not in said  # that may change
    assert "choose another --workdir" in said
    assert len(record_of(tmp_path).starts) == 1


def test_two_spellings_of_one_start_policy_are_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir, begun = tmp_path / "run", tmp_path / "other" / "policy"
    workdir.mkdir()
    run(workdir, init_from=Path("other/policy"))
    assert run(workdir, init_from=begun) is None
    for other in (None, Path("policy")):
        with pytest.raises(ValueError, match=r"--init_from: other/policy -> (None|policy)"):
            run(workdir, init_from=other)


def test_a_start_that_failed_its_checks_owns_nothing_and_is_remembered(tmp_path):
    with pytest.raises(ValueError, match="no policy"), start(tmp_path, Config(rate=9.0), seed=7):
        raise ValueError("no policy there")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert not record_of(tmp_path).settings
    run(tmp_path)
    record = record_of(tmp_path)
    assert [one.status for one in record.starts] == ["failed checks", "finished"]
    assert record.starts[0].error == "no policy there"
    assert record.settings["rate"].value == "0.5"
    assert "Config.rate = 0.5" in (tmp_path / "operative_config.gin").read_text()


def test_a_run_that_breaks_says_how(tmp_path):
    def broken():
        with start(tmp_path, Config()) as this:
            this.begin(0)
            raise OSError("a full disk")

    with pytest.raises(OSError, match="disk"):
        broken()
    last = record_of(tmp_path).starts[-1]
    assert (last.status, last.error, last.from_step) == ("failed", "a full disk", 0)


def test_a_run_that_breaks_because_a_stopped_host_has_ended_is_stopped_itself(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(hosts, "is_left_alone", lambda: True)

    def broken():
        with start(tmp_path, Config()) as this:
            this.begin(0)
            raise RuntimeError("connection closed by peer")

    with pytest.raises(Stopped) as stopped:
        broken()
    assert stopped.value.code == 0
    assert [one.status for one in record_of(tmp_path).starts] == ["stopped"]


def test_a_directory_of_an_earlier_version_or_with_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step":0}\n')
    with pytest.raises(ValueError, match=r"holds a run without run\.json, of an earlier version"):
        run(tmp_path)
    (tmp_path / "run.json").write_text('{"settings": {}')
    with pytest.raises(ValueError, match=r"run\.json cannot be read \(JSONDecodeError"):
        run(tmp_path)


def test_a_start_records_command_versions_and_devices_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_x=1")
    command = ("python", "train.py", "--api-key", "abc", "--gin_param", "X.password = 'hush'")
    config = Config(endpoint="http://me:hush@host/v1")
    run(tmp_path, config, launch=Launch(files=("a.gin",), command=command))
    (one,) = record_of(tmp_path).starts
    assert one.command == "python train.py --api-key '***' --gin_param 'X.password = ***'"
    assert {"python", "jax", "numpy"} <= set(one.versions)
    assert one.devices["platform"] == "cpu"
    assert one.environment["XLA_FLAGS"] == "--xla_x=1"
    assert one.files == ("a.gin",)
    assert "hush" not in (tmp_path / "run.json").read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("api_key=abc max_tokens=5", "api_key=*** max_tokens=5"),
        ("X.api_key = 'a b'", "X.api_key = ***"),
        ("SandboxClientConfig.token_file = '/etc/t'", "SandboxClientConfig.token_file = '/etc/t'"),
        ("tokenizer = 'x'; row_tokens = 3", "tokenizer = 'x'; row_tokens = 3"),
        ("HF_TOKEN=hf_abcdefghijklmnopqrstu", "HF_TOKEN=***"),
        ("use sk-abcdefghijklmnopqrstuv now", "use *** now"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("https://u:p@host/x", "https://***@host/x"),
        ("http://host:80/a@b", "http://host:80/a@b"),
    ],
)
def test_secrets_are_hidden_and_what_only_sounds_like_them_is_not(text, shown):
    assert provenance.without_secrets(text) == shown
