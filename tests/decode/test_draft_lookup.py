"""Where guesses come from, by hand: matches, places, texts of others, and what each pass keeps."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.decode.draft_lookup import NOTHING, look_up, match_lengths
from jaxtool.decode.draft_sources import DraftSources
from jaxtool.decode.draft_window import DraftLog, _accept
from jaxtool.decode.drafting import Drafting
from jaxtool.decode.drafts_config import DraftsConfig
from jaxtool.decode.programs import idle_rows


def guessed(corpus, end, count, least=2, most=8):
    found = look_up(
        jnp.array([corpus]), jnp.array([end]), count, least_match=least, most_match=most
    )
    return found[0].tolist()


def test_matches_are_as_long_as_the_tokens_before_agree():
    corpus = jnp.array([[4, 5, 6, 7, 9, 5, 6], [1, 1, 1, 1, 1, 1, 2]])
    lengths = match_lengths(corpus, jnp.array([6, 5]), 3)
    assert lengths.tolist() == [[0, 0, 2, 0, 0, 0, 3], [1, 2, 3, 3, 3, 3, 0]]


def test_a_match_does_not_reach_over_the_end_of_a_text():
    assert match_lengths(jnp.array([[-1, 6, 7, -1, 6]]), jnp.array([4]), 3).tolist() == [
        [0, 1, 0, 0, 1]
    ]


@pytest.mark.parametrize(
    ("corpus", "end", "wanted"),
    [
        ([5, 6, 7, 9, -1, 3, 5, 6], 7, [7, 9, -1]),  # the text ends there
        ([5, 6, 1, 5, 6, 2, 5, 6], 7, [2, 5, 6]),  # the last of two places
        ([3, 5, 6, 1, 4, 5, 6, 2, 3, 5, 6], 10, [1, 4, 5]),  # the longer match before the later
        ([8, 1, 2, 1, 2, 77], 4, [1, 2, 1]),  # goes round, and what lies behind the end is not read
        ([5, 6, -1, 5, 6], 4, [-1, -1, -1]),  # nothing stood behind it
        ([6, 7, -1, 5, 6], 4, [-1, -1, -1]),  # one token is no match of two
        ([-1, -1, -1, 6], 3, [-1, -1, -1]),
    ],
)
def test_what_stood_behind_the_longest_match_is_guessed(corpus, end, wanted):
    assert guessed(corpus, end, 3) == wanted


def test_look_ups_agree_with_a_search_token_by_token():
    numbers = np.random.default_rng(0)
    corpus = numbers.integers(-1, 3, (40, 30))
    ends = numbers.integers(0, 30, 40)
    got = look_up(jnp.array(corpus), jnp.array(ends), 4, least_match=1, most_match=5)

    def length(row, at, end):
        count = 0
        while count < 5 and at >= count and row[at - count] == row[end - count] != NOTHING:
            count += 1
        return count

    for row, end, found in zip(corpus, ends, got.tolist(), strict=True):
        places = [(length(row, at, end), at) for at in range(end) if row[at + 1] != NOTHING]
        best, at = max(places, default=(0, 0))
        wanted = []
        for i in range(4 if best >= 1 else 0):
            token = row[at + 1 + i % (end - at)]
            if token == NOTHING:
                break
            wanted.append(int(token))
        assert found == wanted + [NOTHING] * (4 - len(wanted))


def make_sources(**fields):
    shape = {"cache_rows": 3, "max_tokens": 8, "source_tokens": 8}
    return DraftSources(**(shape | {"answers_kept": 2, "problems_kept": 2} | fields))


def test_a_corpus_has_earlier_answers_then_siblings_then_the_row():
    """The example of `DraftSources`."""
    sources = make_sources()
    sources.start(0, [1, 2])
    sources.write(0, 2, [7, 8, 9])
    sources.end(0)
    sources.start(1, [1, 2])
    sources.write(1, 2, [5, 6])
    sources.start(0, [1, 2])
    sources.refresh([0])
    # A sibling that has written nothing yet is an empty text.
    assert sources.corpus[0, :8].tolist() == [-1, 7, 8, 9, -1, 5, 6, -1]
    assert sources.corpus[0, 8:10].tolist() == [1, 2]


def test_old_answers_and_old_problems_make_room():
    sources = make_sources()
    for problem, said in ((1, 11), (1, 12), (1, 13), (2, 21), (3, 31)):
        sources.start(0, [problem])
        sources.write(0, 1, [said])
        sources.end(0)
    for problem, wanted in ((1, []), (2, [21]), (3, [31])):
        sources.start(0, [problem])
        sources.refresh([0])
        assert [i for i in sources.corpus[0, :8].tolist() if i >= 0] == wanted
        sources.end(0)
    kept = make_sources(problems_kept=4)
    for said in (11, 12, 13):
        kept.start(0, [1])
        kept.write(0, 1, [said])
        kept.end(0)
    kept.start(0, [1])
    kept.refresh([0])
    assert kept.corpus[0, :8].tolist() == [-1, -1, -1, -1, 12, -1, 13, -1]


def test_a_row_keeps_columns_as_far_as_it_was_right():
    """The example of `_accept`; a second row guesses nothing, a third is forced to 30 before it guesses."""
    rows = idle_rows(3, 2)
    rows.lengths[:], rows.pending[:] = [5, 3, 4], [7, 1, 2]
    rows.is_running[:], rows.max_lengths[:] = True, 20
    rows.forced[2], rows.forced_count[2] = [30, 0], 1
    zeros = jnp.zeros(3, jnp.int32)
    draws = jnp.array([[8, 4, 6], [9, 9, 9], [1, 5, 6]])
    guesses = jnp.array([[8, 9], [-1, -1], [30, 5]])
    counts = DraftLog(passes=zeros, with_guess=zeros, guessed=zeros, accepted=zeros, wrong=zeros)
    after, made, is_sampled, counts = _accept(
        rows, draws, guesses, jnp.array([0, 0, 1]), jnp.zeros(40, bool), counts
    )
    assert after.lengths.tolist() == [7, 4, 7]
    assert after.pending.tolist() == [4, 9, 6]
    assert made.tolist() == [[8, 4, -1], [9, -1, -1], [30, 5, 6]]
    assert is_sampled.tolist() == [[True, True, False], [True, False, False], [False, True, True]]
    assert counts.guessed.tolist() == [2, 0, 1]  # the forced token is no guess
    assert counts.accepted.tolist() == [1, 0, 1]
    assert counts.wrong.tolist() == [1, 0, 0]
    assert counts.with_guess.tolist() == [1, 0, 1]


def test_a_pass_ends_at_a_stop_token_that_was_guessed():
    rows = idle_rows(1, 2)
    rows.is_running[:], rows.max_lengths[:] = True, 20
    zeros = jnp.zeros(1, jnp.int32)
    counts = DraftLog(passes=zeros, with_guess=zeros, guessed=zeros, accepted=zeros, wrong=zeros)
    after, made, _, _ = _accept(
        rows, jnp.array([[3, 4]]), jnp.array([[3]]), zeros, jnp.arange(9) == 3, counts
    )
    assert made.tolist() == [[3, -1]]
    assert not after.is_running.any()


def test_a_window_drafts_where_it_promises_more_than_it_costs():
    drafting = Drafting(
        DraftsConfig(rounding="any", columns=(3,), source_tokens=64, retry_windows=5),
        cache_rows=2,
        max_tokens=8,
    )
    key, running = (2, 8, "plain"), np.array([0, 1])
    drafting._coverage[:], drafting._right[:] = 0.5, 0.5
    assert drafting._tokens_per_pass(running, 3) == 1 + 0.5 * (0.5 + 0.25)
    drafting._pass_s = {(key, 1): 1.0, (key, 3): 1.3}
    assert drafting.choose(key, running, lambda *_: False) == 3
    drafting._pass_s[key, 3] = 1.4
    assert drafting.choose(key, running, lambda *_: False) == 1
    drafting._right[:] = [0.05, 0.9]  # the first is rarely right and drafts nothing
    assert drafting._tokens_per_pass(running, 3) == pytest.approx(1 + 0.5 * 0.5 * (0.9 + 0.81))
    assert drafting.rows(running).is_drafting.tolist() == [False, True]
    drafting._waited = 5
    drafting._right[:] = 0.0
    assert drafting.choose(key, running, lambda *_: False) == 3  # a try


def test_no_window_drafts_until_an_ordinary_one_was_timed_nor_for_ever_without_one():
    """Width 3 is assumed to cost 1.6; another view's 2.8 is better known; then its own 1.1."""
    drafting = Drafting(
        DraftsConfig(rounding="any", columns=(3,), source_tokens=64, retry_windows=5),
        cache_rows=2,
        max_tokens=8,
    )
    key, other, running = (2, 8, "plain"), (2, 4, "plain"), np.array([0, 1])
    drafting._right[:] = 0.9  # 1 + 0.9 + 0.81 tokens a pass
    choose = functools.partial(drafting.choose, key, running, lambda *_: False)
    assert choose() == 1
    drafting._pass_s = {(key, 1): 1.0}
    assert drafting._cost(key, 3) == 1.6
    assert choose() == 3
    drafting._pass_s = {(other, 1): 1.0, (other, 3): 2.8, (key, 3): 1.1}
    assert drafting._cost(key, 3) == 2.8
    assert choose() == 1
    drafting._pass_s[key, 1] = 1.0
    assert drafting._cost(key, 3) == 1.1
    assert choose() == 3
    drafting._drafted = 5
    assert choose() == 1  # its time may be an old one


def test_a_pass_takes_the_median_of_its_last_windows_without_the_first():
    """The first may have compiled; of 2, 30 and 3 seconds the median is 3, and of the last five 4."""
    drafting = Drafting(DraftsConfig(source_tokens=64), cache_rows=1, max_tokens=8)
    key = (1, 8, "plain")
    drafting._time(key, 1, 99.0)
    assert drafting._pass_s == {}
    for seconds in (2.0, 30.0, 3.0):
        drafting._time(key, 1, seconds)
    assert drafting._pass_s == {(key, 1): 3.0}
    for seconds in (4.0, 5.0, 1.0):
        drafting._time(key, 1, seconds)
    assert drafting._pass_s == {(key, 1): 4.0}
