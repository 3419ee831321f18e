"""A sweep's file: read whole, and what is wrong in it is one line with file, line, value and remedy."""

import re

import pytest

from jaxtool.study.sweep_files import ALONE, load_sweep

RUN = 'run = ["gin_configs/runs/quickstart_otc_grpo.gin"]\nseeds = [0, 1]\n'


def loaded(folder, text, **options):
    path = folder / "grid.toml"
    path.write_text(text)
    return load_sweep(path, **options)


def names(sweep):
    return [point.name for point in sweep.points]


def test_the_grid_is_every_combination_and_named_points_stand_beside_it(tmp_path):
    sweep = loaded(
        tmp_path,
        RUN
        + "steps = 5\n"
        + "[grid]\nSchedule.samples = [4, 8]\n"
        + '"GrpoConfig.normalizes" = [true, "None"]\n'
        + '[points]\nbase = []\nboth = [\n  "Schedule.samples = 2",\n  "STEPS = 3",\n]\n',
    )
    assert names(sweep) == [
        "samples=4,normalizes=true",
        "samples=4,normalizes=None",
        "samples=8,normalizes=true",
        "samples=8,normalizes=None",
        "base",
        "both",
    ]
    first, *_, base, both = sweep.points
    assert first.params == ("Schedule.samples = 4", "GrpoConfig.normalizes = True")
    assert [bound.line for bound in first.bindings] == [5, 6]
    assert (base.params, base.line) == ((), 8)
    assert [(bound.param, bound.line) for bound in both.bindings] == [
        ("Schedule.samples = 2", 10),
        ("STEPS = 3", 11),
    ]
    assert (sweep.seeds, sweep.steps, sweep.init_from) == ((0, 1), 5, None)
    assert sweep.metrics[0] == "reward/mean"


def test_a_sweep_may_be_over_seeds_alone(tmp_path):
    sweep = loaded(tmp_path, RUN)
    assert names(sweep) == [ALONE]
    assert sweep.points[0].params == ()


def test_the_start_may_be_another_one_for_each_seed(tmp_path):
    sweep = loaded(tmp_path, RUN + 'init_from = "runs/first/seed{seed}/policy"\n')
    assert [sweep.start_of(seed) for seed in (0, 1)] == [
        "runs/first/seed0/policy",
        "runs/first/seed1/policy",
    ]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ("a.rate = [1e-4, 1e-3]", ["rate=0.0001", "rate=0.001"]),
        ('a.reward = ["@m.One()", "@m.Two()"]', ["reward=m.One", "reward=m.Two"]),
        # Values that look alike as names of directories are numbered.
        ('a.text = ["@m.One()", "@m.One"]', ["text=0", "text=1"]),
        # Names that end alike are written out.
        ('a.rate = [1]\n"critic/a.rate" = [2]', ["a.rate=1,critic_a.rate=2"]),
        ("a.axes = [[\"'x'\", 1], [2]]", ["axes=x_1", "axes=2"]),
    ],
    ids=["numbers", "references", "alike", "same last part", "lists"],
)
def test_a_point_is_named_by_what_it_binds(tmp_path, grid, expected):
    assert names(loaded(tmp_path, f"{RUN}[grid]\n{grid}\n")) == expected


def test_a_list_is_gin_text_with_strings_as_gin_text_inside(tmp_path):
    [point] = loaded(tmp_path, RUN + "[grid]\na.axes = [[\"'x'\", 1]]\n").points
    assert point.params == ("a.axes = ['x', 1]",)


def test_long_names_are_cut_and_stay_apart(tmp_path):
    grid = "\n".join(f"a.parameter_number_{i} = [{i}, {i + 100}]" for i in range(8))
    found = names(loaded(tmp_path, f"{RUN}[grid]\n{grid}\n", most_jobs=None))
    assert len(set(found)) == 2**8
    assert max(map(len, found)) <= 160


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run = []\nseeds = [0]", "1: run is an empty list: write at least one"),
        ("seeds = [0]", "1: the sweep.run is missing"),
        (RUN + "gird = 3", "1: the sweep has no key 'gird': did you mean 'grid'?"),
        ('run = ["a.gin"]\nseeds = []', "2: seeds is an empty list"),
        ('run = ["a.gin"]\nseeds = [3, 1, 3]', "2: seeds has 3 twice: write it once"),
        ('run = ["a.gin"]\nseeds = [0, -1]', "2: seeds has -1: seeds are 0 or more"),
        ('run = ["a.gin"]\nseeds = [0.0]', "1: the sweep.seeds: item 0: expected int, got 0.0"),
        (RUN + "steps = 0", "3: steps = 0: a run has at least 1 step"),
        (RUN + 'init_from = ""', "3: init_from is empty"),
        (RUN + 'metrics = ["reward/maen"]', "3: metrics: no run writes 'reward/maen': did you"),
        (RUN + "[grid]", "3: [grid] is empty: fill it, or leave it out"),
        (RUN + "[grid]\na.b = []", "4: grid.a.b is an empty list: write its values"),
        (RUN + "[grid]\na.b = 3", "4: grid.a.b must be a list of values: write [3]"),
        (RUN + "[grid]\na.b = [1, 2, 1]", "4: grid.a.b has 1 twice"),
        (RUN + '[grid]\n"a.b" = [1]\na.b = [2]', "4: grid binds a.b twice: write one list"),
        (RUN + "[grid]\na.b = [inf]", "4: grid.a.b: inf is no gin value"),
        (RUN + "[grid]\na.b = [2026-01-01]", "4: grid.a.b: 2026-01-01 is neither number"),
        (RUN + '[grid]\na.b = ["1\\nc.d = 2"]', "4: grid.a.b: '1\\nc.d = 2' is no gin value"),
        (RUN + "[points]\nx = 3", "4: points.x must be a list of bindings"),
        (RUN + '[points]\nx = [\n"a.b"]', "5: points.x: 'a.b' is no binding: write NAME = VALUE"),
        (RUN + "[points]\njobs = []", "4: a point cannot be called 'jobs'"),
        (RUN + '[points]\n"a/b" = []', "4: a point cannot be called 'a/b'"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=re.escape(f"grid.toml:{message}")) as said:
        loaded(tmp_path, text + "\n")
    assert "\n" not in str(said.value)


def test_many_jobs_need_a_yes_and_are_not_made_to_be_counted(tmp_path):
    values = list(range(1000))
    grid = "\n".join(f"a.p{i} = {values}" for i in range(6))  # 10^18 points
    with pytest.raises(ValueError, match=r"are 2000000000000000000 jobs, more than 64: .* --yes"):
        loaded(tmp_path, f"{RUN}[grid]\n{grid}\n")
    grid = f"a.b = {list(range(33))}"
    with pytest.raises(ValueError, match=r"33 points of 2 seeds are 66 jobs, more than 64"):
        loaded(tmp_path, f"{RUN}[grid]\n{grid}\n")
    assert len(loaded(tmp_path, f"{RUN}[grid]\n{grid}\n", most_jobs=None).points) == 33


def test_a_gin_file_and_none_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no sweep at .*none.toml"):
        load_sweep(tmp_path / "none.toml")
    (tmp_path / "run.gin").write_text("")
    with pytest.raises(ValueError, match=r"run.gin is a gin file: a sweep is a TOML file"):
        load_sweep(tmp_path / "run.gin")
