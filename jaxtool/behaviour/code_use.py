"""Length and programs of answers: the measures of ReTool's Figure 3 (2504.11536) and of ToRL's (2503.23383).

Each function is one measure of a set of answers. The measures "in right answers" and "in wrong answers" are the same
functions of a part: `pass_ratio(right(records))`. None where there is nothing to measure.

Where the papers leave a choice: response length is given with and without the tool's tokens; a line of code is one that
is neither blank nor a comment; a program is correct if it ran without error.
"""

from collections.abc import Sequence

from jaxtool.behaviour import answers
from jaxtool.behaviour.answers import is_ok, judged, mean, programs, share
from jaxtool.rundir.answer_records import AnswerRecord

Records = Sequence[AnswerRecord]


def response_tokens(records: Records) -> float | None:
    """Mean tokens of a response, the tool's included (ReTool, Figure 3: response length)."""
    return mean([float(answers.response_tokens(record)) for record in judged(records)])


def policy_tokens(records: Records) -> float | None:
    """Mean tokens of a response that the policy wrote."""
    return mean([float(record.policy_tokens) for record in judged(records)])


def accuracy(records: Records) -> float | None:
    """Share of right answers."""
    return mean([float(record.is_correct) for record in judged(records)])


def with_code(records: Records) -> list[AnswerRecord]:
    """The judged answers that ran a program."""
    return [record for record in judged(records) if programs(record)]


def without_code(records: Records) -> list[AnswerRecord]:
    return [record for record in judged(records) if not programs(record)]


def code_ratio(records: Records) -> float | None:
    """Answers with a program / answers (ReTool, Figure 3; ToRL)."""
    return share(len(with_code(records)), len(judged(records)))


def lines_of(program: str) -> int:
    """Lines that are neither blank nor a comment. `"x = 1\\n\\n# twice\\nprint(2 * x)"` has 2."""
    lines = [line.strip() for line in program.splitlines()]
    return sum(1 for line in lines if line and not line.startswith("#"))


def lines_per_answer(records: Records) -> float | None:
    """Σ lines of its programs, mean over answers with a program (ReTool, Figure 3: code lines)."""
    return mean(
        [float(sum(lines_of(call.code) for call in programs(r))) for r in with_code(records)]
    )


def lines_per_program(records: Records) -> float | None:
    """Σ lines / programs."""
    codes = [call.code for record in judged(records) for call in programs(record)]
    return mean([float(lines_of(code)) for code in codes])


def ok_programs(records: Records) -> int:
    """Programs that ran without error (ReTool, Figure 3: total correct code count)."""
    return sum(is_ok(call) for record in judged(records) for call in programs(record))


def pass_ratio(records: Records) -> float | None:
    """Programs that ran without error / programs run (ToRL: pass ratio)."""
    return share(ok_programs(records), sum(len(programs(record)) for record in judged(records)))


def last_pass_ratio(records: Records) -> float | None:
    """Answers whose last program ran without error / answers with a program (ReTool, Figure 3: code pass rate)."""
    return mean([float(is_ok(programs(record)[-1])) for record in with_code(records)])


def executed_ratio(records: Records) -> float | None:
    """Calls that were run / calls that were written (ToRL: executed code; the others came after the limit of calls)."""
    run = sum(record.num_calls for record in judged(records))
    return share(run, run + sum(record.unexecuted_calls for record in judged(records)))
