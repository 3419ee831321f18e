"""Every old name of a gin file is refused in one line: file, line, the old name and today's."""

import dataclasses
import importlib

import pytest

from jaxtool.config import loader
from jaxtool.data.layouts import layout_of
from jaxtool.train import run_files
from jaxtool.train.old_choices import OLD_CHOICES
from jaxtool.train.old_names import OLD_NAMES

HEADER = "# target: jaxtool.train.rl_config.RlConfig\nfrom __gin__ import dynamic_registration\n"
# Where the classes of the table are today: files bind them by their module.
MODULES = {
    "EngineConfig": "jaxtool.decode.config",
    "RlConfig": "jaxtool.train.rl_config",
    "DemonstrationStream": "jaxtool.train.sft_loop",
    "GrpoConfig": "jaxtool.learn.grpo",
    "SftConfig": "jaxtool.learn.sft",
    "Sandbox": "jaxtool.train.sources",
    "SandboxClientConfig": "jaxtool.tools.sandbox_client",
    "AxisRules": "jaxtool.parallel.axis_rules",
    "RolloutConfig": "jaxtool.rollout.collector",
    "DecoderNumerics": "jaxtool.decode.publish",
    "CallCost": "jaxtool.rewards.call_cost",
    "LoraConfig": "jaxtool.model.lora",
    "ToolHealthConfig": "jaxtool.tools.health",
    "ProblemFile": "jaxtool.data.problems",
    "Layout": "jaxtool.data.layouts",
}
RUN = "gin_configs/runs/quickstart_grpo.gin"


def of_kind(is_kind):
    rows = [row for row in OLD_NAMES.table.items() if is_kind(row[0]) and row[0] not in OLD_CHOICES]
    assert rows
    return rows


def is_module(old):
    return old.startswith("jaxtool.") and old.split(".")[-1].islower()


def is_target(old):
    return old.startswith("jaxtool.") and not is_module(old)


def is_class(old):
    return "." not in old and not is_layout(old)


def is_layout(old):
    return old.endswith("_format")


def is_field(old):
    return "." in old and not old.startswith("jaxtool.") and "=" not in old


def is_value(old):
    return "=" in old


def found_at(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def refusal(tmp_path, text, params=()):
    """The error of an overlay over a run, without the place."""
    file = tmp_path / "mine.gin"
    file.write_text(text)
    with pytest.raises(loader.ConfigError) as caught:
        run_files.load_run([RUN, file], params)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{file}:{len(text.splitlines())}: ")


@pytest.mark.parametrize(("old", "new"), of_kind(is_module))
def test_an_old_module_is_refused_and_the_new_one_is_there(old, new, tmp_path):
    package, _, name = old.rpartition(".")
    message = refusal(tmp_path, f"{HEADER}from {package} import {name}\n")
    assert message == f"{old} is an old name; write {new}"
    importlib.import_module(new.split(" ")[0])


@pytest.mark.parametrize(("old", "new"), of_kind(is_target))
def test_an_old_target_is_refused_and_the_new_one_is_there(old, new, tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text(f"# Mine.\n# target: {old}\n")
    with pytest.raises(loader.ConfigError) as caught:
        run_files.load_run([file])
    assert str(caught.value) == f"{file}:2: {old} is an old name; write {new}"
    assert found_at(new)


@pytest.mark.parametrize(("old", "new"), of_kind(is_class))
def test_an_old_class_is_refused_in_files_and_parameters(old, new, tmp_path):
    package, _, module = MODULES[new].rpartition(".")
    text = f"{HEADER}from {package} import {module}\n{module}.{old}.x = 1\n"
    expected = f"{old} is an old name; write {new}"
    assert refusal(tmp_path, text) == expected
    assert refusal(tmp_path, text.replace(f"{module}.{old}.x = 1", f"X = @{module}.{old}()")) == (
        expected
    )
    param = f"{old}.x = 1"
    assert refusal(tmp_path, HEADER, [param]) == f"--gin_param '{param}': {expected}"
    assert dataclasses.is_dataclass(found_at(f"{MODULES[new]}.{new}"))


@pytest.mark.parametrize(("old", "new"), of_kind(is_layout))
def test_an_old_layout_is_refused_and_the_new_name_is_one(old, new, tmp_path):
    text = f"{HEADER}from jaxtool.data import problems\nX = @problems.{old}()\n"
    assert refusal(tmp_path, text) == f"{old} is an old name; write {new}"
    assert layout_of(new.split("'")[1])


@pytest.mark.parametrize(("old", "new"), of_kind(is_field))
def test_an_old_field_is_refused_and_the_new_one_is_there(old, new, tmp_path):
    owner = old.split(".")[0]
    package, _, module = MODULES[owner].rpartition(".")
    text = f"{HEADER}from {package} import {module}\n{module}.{old} = 1\n"
    assert refusal(tmp_path, text) == f"{old} is an old name; write {new}"
    new_owner, field = new.split(".")
    fields = dataclasses.fields(found_at(f"{MODULES[new_owner]}.{new_owner}"))
    assert field in [each.name for each in fields]
    assert old.split(".")[1] not in [each.name for each in fields]


@pytest.mark.parametrize(("old", "new"), of_kind(is_value))
def test_an_old_value_is_refused_and_the_new_one_is_taken(old, new, tmp_path):
    owner = old.split(".")[0]
    package, _, module = MODULES[owner].rpartition(".")
    text = f"{HEADER}from {package} import {module}\n{module}.{old}\n"
    assert refusal(tmp_path, text) == f"{old} is an old name; write {new}"
    run_files.load_run([RUN], [new])


def test_a_word_of_the_table_is_free_where_it_means_something(tmp_path, monkeypatch):
    """A user's own class may be called Price: names are looked up only where nothing is found."""
    (tmp_path / "my_prices.py").write_text(
        "import dataclasses\n@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Price:\n"
        "    slots: int = 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = f"{HEADER}import my_prices\nX = @my_prices.Price()\nmy_prices.Price.slots = 1\n"
    assert "nothing reads the macro X" in refusal(tmp_path, text)
