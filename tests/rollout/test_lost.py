"""Lost samples are asked for once more, and only they are replaced."""

from helpers.ledgers import group_of, ledger

from jaxtool.core.types import FinishReason
from jaxtool.rollout.lost import ask_lost_again

LOST = FinishReason.INFRASTRUCTURE


def group(problem, *reasons, first_id=10):
    return group_of(
        *(
            ledger("Qpp", problem=problem, sample=i, reason=reason, first_id=first_id)
            for i, reason in enumerate(reasons)
        )
    )


def reasons(groups):
    return [[t.finish_reason.value for t in each.trajectories] for each in groups]


def test_only_lost_samples_are_replaced_and_only_their_problems_asked():
    first = [
        group("a", FinishReason.ANSWER, FinishReason.ANSWER),
        group("b", LOST, FinishReason.LENGTH),
        group("c", LOST, LOST),
    ]
    asked = []

    def collect(problems, numbers):
        asked.append([problem.problem_id for problem in problems])
        assert numbers == [[0, 1], [0, 1]]  # of the samples
        return [
            group("b", FinishReason.EOS, FinishReason.EOS, first_id=50),
            group("c", FinishReason.EOS, LOST, first_id=50),
        ]

    found = ask_lost_again(first, collect)
    assert asked == [["b", "c"]]  # once: what is lost again stays lost
    assert reasons(found) == [
        ["answer", "answer"],
        ["eos", "length"],
        ["eos", "infrastructure"],
    ]
    assert [int(t.ids[0]) for t in found[1].trajectories] == [50, 10]
    assert [each.is_whole for each in found] == [True, True, False]


def test_where_nothing_is_lost_nobody_is_asked():
    first = [group("a", FinishReason.ANSWER)]
    assert ask_lost_again(first, lambda problems, numbers: 1 / 0) == first
