"""Layouts of question answering with search: the seven sets of Search-R1 and OTC-PO, as they are published.

Search-R1 trains and tests on the copies of FlashRAG, which have one layout for all sets. The originals have
one each. Judge them with `judges.exact_match` (the papers' EM) or `judges.token_f1`.
Not covered: passages; a corpus for them is the search server's.
"""

import dataclasses

from jaxtool.data.problems import JsonlFormat


def flashrag_format() -> JsonlFormat:
    """FlashRAG's copies of all seven: `question`, `golden_answers`. Search-R1 ends each question in "?"."""
    return JsonlFormat(answer_key="golden_answers", question_end="?", keeps_repeats=True)


def nq_format() -> JsonlFormat:
    """NQ-open: `question` without a question mark, a list `answer`."""
    return JsonlFormat(question_end="?")


def triviaqa_format() -> JsonlFormat:
    """TriviaQA: `answer.value`, and everything in `answer.aliases` as well."""
    return JsonlFormat(answer_key="answer.value", alias_keys=("answer.aliases",))


def popqa_format() -> JsonlFormat:
    """PopQA: `possible_answers` is text that holds a JSON list; the level is the relation, `prop`.

    Two people of one name make one question with two answers: each row is judged by its own.
    """
    return JsonlFormat(
        answer_key="possible_answers", has_json_answers=True, level_key="prop", keeps_repeats=True
    )


def hotpotqa_format() -> JsonlFormat:
    """HotpotQA: one answer; the level is the kind of question, bridge or comparison."""
    return JsonlFormat(level_key="type")


def two_wiki_format() -> JsonlFormat:
    """2WikiMultihopQA: `answer`, text or a list; `answer_aliases` where the copy has them."""
    return JsonlFormat(alias_keys=("answer_aliases",))


def musique_format() -> JsonlFormat:
    """MuSiQue: `answer` and the list `answer_aliases`, which is often empty."""
    return JsonlFormat(alias_keys=("answer_aliases",))


def bamboogle_format() -> JsonlFormat:
    """Bamboogle: `Question`, `Answer`."""
    return JsonlFormat(question_keys=("Question",), answer_key="Answer")


def search_r1_format() -> JsonlFormat:
    """Search-R1's merged files: FlashRAG's keys, and the set that a row is of, `data_source`, as the level."""
    return dataclasses.replace(flashrag_format(), level_key="data_source")
