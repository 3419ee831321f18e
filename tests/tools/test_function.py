"""A user's function as a tool: schema, errors, deadlines, and what no function can do to a run."""

import asyncio
import json
import threading

import pytest

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.core.types import Problem, ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.function import Function
from jaxtool.tools.menu import Menu
from jaxtool.tools.signature import parameters_of

PROBLEM = Problem(problem_id="p", question="how far?", answer="1", answers=("1", "one"))


def function(of: str, **options) -> Function:
    return Function(call=f"helpers.user_tools:{of}", **options)


def results(source: Function, *arguments, trajectories: int = 1) -> list[ToolResult | InvalidCall]:
    """What calls come to, one after the other, in each of several trajectories."""

    async def made():
        menu = Menu([source.open()])
        out = []
        for number in range(trajectories):
            sessions = menu.sessions(PROBLEM, "key", number)
            for each in arguments:
                call = menu.checked(Call(tool=source.spec.name, arguments=each))
                out.append(call if isinstance(call, InvalidCall) else await sessions.call(call))
            await sessions.close()
        await menu.close()
        return out

    return asyncio.run(made())


def test_name_description_and_schema_come_from_the_function():
    spec = function("convert").spec
    assert spec.name == "convert"
    assert spec.description == "Converts a distance from kilometres or miles into the other."
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "value": {"type": "number", "description": "The distance, in its unit."},
            "unit": {
                "enum": ["km", "mi"],
                "default": "km",
                "description": "What it is measured in.",
            },
        },
        "required": ["value"],
        "additionalProperties": False,
    }
    named = function("convert", name="far", description="Mine.").spec
    assert (named.name, named.description) == ("far", "Mine.")


def test_every_type_that_json_has():
    spec = function("everything").spec
    assert spec.parameters["required"] == ["text", "numbers", "weights"]
    assert spec.parameters["properties"] == {
        "text": {"type": "string", "description": "A text."},
        "numbers": {"type": "array", "items": {"type": "integer"}, "description": "Some numbers."},
        "weights": {"type": "object", "additionalProperties": {"type": "number"}},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "other": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "default": "x",
        },
        "anything": {"default": None},
        "is_so": {"type": "boolean", "default": True},
    }
    json.dumps(spec.parameters)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("untyped", "parameter 'x' has no type: write x: str"),
        ("starred", "parameter 'numbers' is \\*numbers: arguments come by name"),
        ("keyworded", "parameter 'numbers' is \\*\\*numbers"),
        ("positional", "parameter 'x' can be given by position only"),
        ("odd_default", "parameter 'x' has the type object, which is none of JSON's"),
        ("bad_default", "parameter 'x' has the default nan, which is no JSON"),
        ("odd_type", "parameter 'x' has the type complex"),
        ("odd_keys", "the keys of JSON objects are str"),
        ("unknown_type", "a type cannot be read \\(NameError: name 'Missing' is not defined\\)"),
        ("yields", "yields: return one text or JSON value"),
        ("Lookup", "is a class: name a function"),
        ("nowhere", "user_tools.py has no 'nowhere'"),
        ("time.missing", "has no 'time.missing'"),
    ],
)
def test_a_function_that_is_no_tool_is_refused_in_one_line(name, message):
    with pytest.raises(ValueError, match=rf"tool 'helpers.user_tools:{name}'.*{message}") as error:
        _ = function(name).spec
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("helpers.user_tools", "must be MODULE:FUNCTION, such as my_tools:convert"),
        ("no_such_module:f", "no module 'no_such_module': the working directory is"),
        ("helpers.no_such:f", "no module 'helpers.no_such'"),
        ("broken_module:f", "its module cannot be imported: ValueError: broken here"),
        ("exiting_module:f", "its module cannot be imported: SystemExit: 3"),
        ("needing_module:f", "its module needs another one: no module 'no_such_module'"),
        ("wrong_module:f", "its module cannot be imported: SyntaxError"),
    ],
)
def test_a_function_that_cannot_be_imported_is_refused_in_one_line(
    tmp_path, monkeypatch, call, message
):
    (tmp_path / "broken_module.py").write_text("raise ValueError('broken\\nhere')\n")
    (tmp_path / "exiting_module.py").write_text("exit(3)\n")
    (tmp_path / "needing_module.py").write_text("import no_such_module\n")
    (tmp_path / "wrong_module.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        _ = Function(call=call).spec
    assert "\n" not in str(error.value)


def test_results_are_texts_or_json():
    assert [r.stdout for r in results(function("convert"), {"value": 5}, {"value": 1, "unit": "mi"})] == ["3.107", "1.609"]  # fmt: skip
    assert [r.stdout for r in results(function("square"), {"x": 7}, {"x": 8})] == ["49", "64"]
    assert results(function("lookup"), {"word": "ab"})[0].stdout == "AB"
    [found] = results(function("everything"), {"text": "é", "numbers": [1], "weights": {"a": 1.5}})
    assert json.loads(found.stdout)["weights"] == {"a": 1.5}


def test_arguments_that_do_not_fit_make_no_call():
    reasons = [r.reason for r in results(function("convert"), {}, {"value": "5"}, {"value": 1, "u": 2})]  # fmt: skip
    assert reasons == [
        "convert needs the argument 'value'",
        "the argument 'value' of convert must be of type number, got '5'",
        "convert takes no argument 'u': it takes value, unit",
    ]


def test_a_function_sees_problem_key_and_the_state_of_its_trajectory():
    assert list(function("asks").spec.parameters["properties"]) == ["part"]
    found = results(function("asks"), {"part": "a"}, {"part": "a"}, trajectories=2)
    assert [r.stdout for r in found] == [
        "how far? key/0 a 1",
        "how far? key/0 a 2",
        "how far? key/1 a 1",
        "how far? key/1 a 2",
    ]
    assert list(function("of_text").spec.parameters["properties"]) == ["problem"]
    with pytest.raises(ValueError, match="takes trajectory_state, which lasts in one process only"):
        _ = function("asks", isolation="process").spec


@pytest.mark.parametrize("name", ["misbehave", "misbehave_async"])
@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("raise", "ValueError", "ValueError: two\nlines"),
        ("odd", "Odd", "Odd"),
        ("base", "Nasty", "Nasty: base"),
        ("exit", "SystemExit", "SystemExit: 3"),
        ("interrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("cancel", "CancelledError", "CancelledError"),
        ("generator", "TypeError", "TypeError: the tool returned generator, which is neither a text nor JSON"),
        ("object", "TypeError", "TypeError: the tool returned object, which is neither a text nor JSON"),
        ("bytes", "TypeError", "TypeError: the tool returned bytes, which is neither a text nor JSON"),
        ("recursive", "ValueError", "ValueError: Circular reference detected"),
    ],
)  # fmt: skip
def test_whatever_it_raises_or_returns_is_an_observation(name, how, kind, text):
    first, second = results(function(name), {"how": how}, {"how": "fine"})
    assert (first.status, first.error_type, first.stderr) == (ToolStatus.ERROR, kind, text)
    assert (second.status, second.stdout) == (ToolStatus.OK, "fine")


@pytest.mark.parametrize("name", ["misbehave", "misbehave_async"])
def test_results_are_cut_and_readable(name):
    long, surrogate, nothing = results(
        function(name, max_result_chars=100), *({"how": how} for how in ("long", "surrogate", "nothing"))
    )  # fmt: skip
    assert (long.stdout, long.is_truncated) == ("x" * 100, True)
    assert surrogate.stdout == "a?b"
    assert (nothing.status, nothing.stdout) == (ToolStatus.OK, "")


@pytest.mark.parametrize("name", ["misbehave", "misbehave_async"])
def test_unavailable_is_raised_and_counted(name):
    async def made():
        menu = Menu([function(name).open()])
        with pytest.raises(ToolUnavailable, match="the index is down"):
            await menu.sessions(PROBLEM, "k").call(
                Call(tool=name, arguments={"how": "unavailable"})
            )
        await menu.close()
        assert menu.last_trouble == f"tool '{name}': the index is down"
        return menu.take_figures()[name]

    figures = asyncio.run(made())
    assert (figures.unavailable, figures.latencies_s) == (1, [])


@pytest.mark.parametrize(
    ("name", "how"),
    [("misbehave", "hang"), ("misbehave_async", "hang"), ("misbehave_async", "swallow")],
)
def test_what_hangs_ends_at_its_deadline_and_the_next_call_works(name, how):
    late, fine = results(function(name, deadline_s=0.8), {"how": how}, {"how": "fine"})
    assert late.status is ToolStatus.WALL_LIMIT
    assert late.stderr == "TimeoutError: no result after 0.8 s"
    assert (fine.status, fine.stdout) == (ToolStatus.OK, "fine")


def test_calls_beyond_the_limit_wait_and_their_deadline_does_not_run():
    seen, most = 0, 0

    class Busy:
        spec = function("square", max_concurrency=2, deadline_s=0.4).spec

        async def open(self, problem, key):
            return self

        async def call(self, arguments):
            nonlocal seen, most
            seen += 1
            most = max(most, seen)
            await asyncio.sleep(0.15)
            seen -= 1
            return ToolResult(status=ToolStatus.OK)

        async def close(self):
            return None

    async def made():
        menu = Menu([Busy()])
        call = Call(tool="square", arguments={"x": 1})
        return await asyncio.gather(*(menu.sessions(PROBLEM, i).call(call) for i in range(8)))

    assert {result.status for result in asyncio.run(made())} == {ToolStatus.OK}
    assert most == 2


def test_too_many_hanging_threads_make_the_tool_unavailable(monkeypatch):
    monkeypatch.setattr("jaxtool.tools.call_thread._MAX_LEFT_BEHIND", 2)
    hang = {"how": "hang"}
    with pytest.raises(ToolUnavailable, match="2 calls hang and were left behind"):
        results(function("misbehave", deadline_s=0.05), hang, hang, hang)


def test_worker_processes_survive_what_ends_or_hangs_them():
    source = function("crash", isolation="process", deadline_s=5.0)
    fine, crashed, again = results(source, {"how": "fine"}, {"how": "exit"}, {"how": "again"})
    assert (fine.stdout, again.stdout) == ("fine", "again")
    assert (crashed.status, crashed.stderr) == (
        ToolStatus.ERROR,
        "the tool's process ended with exit code 7",
    )
    hasty = function("crash", isolation="process", deadline_s=0.2)
    # The deadline holds for the start of a worker as well.
    late, *_ = results(hasty, {"how": "hang"})
    assert late.status is ToolStatus.WALL_LIMIT


def test_a_worker_gets_the_problem_and_its_errors_are_observations():
    [found] = results(function("hint", isolation="process"), {})
    assert found.stdout == "how far? ('1', 'one') key/0"
    error, cut = results(
        function("misbehave_async", isolation="process", max_result_chars=10),
        {"how": "exit"},
        {"how": "long"},
    )
    assert (error.error_type, error.stderr) == ("SystemExit", "SystemExit")
    assert (cut.stdout, cut.is_truncated) == ("x" * 10, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline_s": 0}, "deadline_s"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_observation_tokens": 0}, "max_observation_tokens"),
        ({"isolation": "vm"}, "isolation='vm' must be 'thread' or 'process'"),
        ({"name": "my tool"}, "the name 'my tool' must be letters, digits, _ and -"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _ = function("convert", **options).spec


def test_known_answers_must_be_arguments_and_texts():
    assert len(function("convert").known_answers()) == 2
    with pytest.raises(
        ValueError, match="known_answers must be pairs of a dict of arguments and a"
    ):
        function("badly_known").known_answers()


def test_a_lambda_has_no_name_of_a_tool():
    with pytest.raises(ValueError, match="has no type"):
        parameters_of(lambda x: x, "it")


def test_nothing_of_a_closed_tool_keeps_the_process():
    before = set(threading.enumerate())  # calls of other tests may hang in some
    results(function("square"), {"x": 1})
    for thread in set(threading.enumerate()) - before:
        if thread.name == "tool loop":
            thread.join(20)
            assert not thread.is_alive()
    assert all(t.daemon for t in threading.enumerate() if t.name.startswith("tool "))
