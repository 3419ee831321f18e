"""Rewrites text reasoning into reasoning with programs, by a `Rewriter`, and keeps every reply in the journal.

Covered: requests side by side, the budget, what a start before this one recorded, an endpoint that is down.
Not covered: one request (`chat_client`, `jaxtool.train.own_rewriter`), whether a reply is any good (`checking`).
"""

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from jaxtool.cold_start.candidates import Candidate
from jaxtool.cold_start.chat_wire import Reply
from jaxtool.cold_start.journal import Journal, Recorded
from jaxtool.cold_start.plain_replies import without_thought
from jaxtool.cold_start.prompt import RewritePrompt
from jaxtool.cold_start.rewriter import (
    Client,
    RequestLost,
    RequestRefused,
    Rewriter,
    RewriterStopped,
)
from jaxtool.cold_start.source_rows import SourceRow
from jaxtool.cold_start.spending import (
    Account,
    Budget,
    BudgetReached,
    Prices,
    Tokens,
)
from jaxtool.cold_start.traces import Fault
from jaxtool.renderers.conversations import Conversation, Turn

# In a row, without one that was answered: then it is the endpoint, not the rows.
_MOST_FAILURES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One reply that is wanted: of a row there may be several."""

    key: str  # the row's id and the number of the sample
    row: SourceRow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewritten:
    """How the asking ended."""

    answers: dict[str, Reply]
    refused: dict[str, str]
    lost: dict[str, str]  # all attempts failed; the next start asks again
    not_asked: int  # the budget was reached before
    spent: Tokens
    uncertain: Tokens
    failures: dict[str, int]  # attempts that came to nothing, by status or error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the requests that are not recorded yet would cost."""

    requests: int
    recorded: int
    prompt_tokens: int  # expected
    most: Tokens  # at the worst, with replies of the greatest length
    spent: Tokens  # so far


def requests_of(rows: Sequence[SourceRow], samples: int) -> list[Request]:
    """All first samples, then all second ones: a budget that ends early has seen every row."""
    return [
        Request(key=f"{row.row_id}#{sample}", row=row) for sample in range(samples) for row in rows
    ]


def estimate(
    requests: Sequence[Request], prompt: RewritePrompt, rewriter: Rewriter, recorded: Recorded
) -> Estimate:
    """Nothing is asked."""
    costs = [
        rewriter.cost(prompt.of(each.row)) for each in requests if not recorded.is_done(each.key)
    ]
    return Estimate(
        requests=len(costs),
        recorded=len(requests) - len(costs),
        prompt_tokens=sum(expected for expected, _ in costs),
        most=sum((most for _, most in costs), Tokens()),
        spent=recorded.spent + recorded.uncertain,
    )


async def rewrite(
    requests: Sequence[Request],
    *,
    prompt: RewritePrompt,
    rewriter: Rewriter,
    budget: Budget,
    prices: Prices,
    journal: Journal,
    recorded: Recorded,
    on_row: Callable[[int], None] = lambda done: None,
) -> Rewritten:
    """Asks for what is not recorded yet, up to the budget.

    Args:
      on_row: is told after each row how many are done, recorded ones included.

    Raises:
      RewriterStopped: no request can pass, or one after the other fails; what was recorded is kept.
    """
    account = Account(budget, prices, recorded.spent, recorded.uncertain)
    client = rewriter.open(account, journal, [prompt.of(each.row) for each in requests])
    work = _Work(
        queue=iter([each for each in requests if not recorded.is_done(each.key)]),
        prompt=prompt,
        client=client,
        journal=journal,
        answers=dict(recorded.answers),
        refused=dict(recorded.refused),
        on_row=on_row,
    )
    on_row(len(recorded.answers) + len(recorded.refused))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(rewriter.concurrency):
                group.create_task(work.run())
    except ExceptionGroup as group:  # the first of them ended the others
        raise group.exceptions[0] from None
    finally:
        await client.close()
    work.record_refusals()
    return Rewritten(
        answers=work.answers,
        refused=work.refused,
        lost=work.lost,
        not_asked=work.not_asked + sum(1 for _ in work.queue),
        spent=account.spent,
        uncertain=account.uncertain,
        failures=dict(client.failures),
    )


@dataclasses.dataclass(kw_only=True)
class _Work:
    """What the workers share."""

    queue: Iterator[Request]
    prompt: RewritePrompt
    client: Client
    journal: Journal
    answers: dict[str, Reply]
    refused: dict[str, str]
    on_row: Callable[[int], None]
    lost: dict[str, str] = dataclasses.field(default_factory=dict)
    not_asked: int = 0
    # Refusals since the last reply: until one comes it may be the settings that are refused.
    refusals: dict[str, str] = dataclasses.field(default_factory=dict)
    failures_in_a_row: int = 0
    is_over: bool = False

    async def run(self) -> None:
        """One worker: takes rows until none is left or the budget is reached."""
        while not self.is_over and (request := next(self.queue, None)) is not None:
            try:
                reply = await self.client.ask(request.key, self.prompt.of(request.row))
            except BudgetReached:
                self.is_over = True
                self.not_asked += 1
            except RequestRefused as error:
                self._refuse(request.key, error)
            except RequestLost as error:
                self._count_failure(str(error))
                self.lost[request.key] = str(error)
            else:
                # No await between the reply and this line: what is paid for is recorded.
                self.journal.answer(request.key, reply)
                self.answers[request.key] = reply
                self.failures_in_a_row = 0
                self.record_refusals()
            self.on_row(len(self.answers) + len(self.refused) + len(self.refusals) + len(self.lost))

    def _refuse(self, key: str, error: RequestRefused) -> None:
        self.refusals[key] = str(error)
        if error.is_of_the_row:
            self.record_refusals()
        else:
            self._count_failure(str(error))

    def record_refusals(self) -> None:
        """They are of the rows: other rows were answered, or none is left."""
        for key, why in self.refusals.items():
            self.journal.refused(key, why)
        self.refused |= self.refusals
        self.refusals = {}

    def _count_failure(self, why: str) -> None:
        """Raises RewriterStopped where it is the endpoint or the settings, not the rows."""
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= _MOST_FAILURES:
            raise RewriterStopped(
                f"{self.failures_in_a_row} rows in a row failed, the last one with: {why}. The same "
                "command resumes"
            )


def candidates_of(requests: Sequence[Request], rewritten: Rewritten) -> list[Candidate]:
    """The replies as candidates, in the order of the rows and then of the samples."""
    found: dict[str, list[Candidate]] = collections.defaultdict(list)
    for request in requests:
        if request.key in rewritten.answers:
            found[request.row.row_id].append(_candidate(request, rewritten.answers[request.key]))
        elif request.key in rewritten.refused:
            fault = Fault("refused", rewritten.refused[request.key])
            found[request.row.row_id].append(_with_text(request, "", fault))
    rows = dict.fromkeys(request.row.row_id for request in requests)
    return [candidate for row in rows for candidate in found[row]]


def _candidate(request: Request, reply: Reply) -> Candidate:
    fault = None
    if reply.finish_reason == "length":
        fault = Fault("cut_off", "the reply reached the limit of tokens: raise --max_tokens")
    elif reply.finish_reason == "content_filter":
        fault = Fault("filtered", "the endpoint's filter cut the reply")
    return _with_text(request, without_thought(reply.text), fault)


def _with_text(request: Request, text: str, fault: Fault | None) -> Candidate:
    row = request.row
    turns = (
        Turn(role="user", text=row.question, key="messages[0]"),
        Turn(role="assistant", text=text, key="the reply"),
    )
    return Candidate(
        row_id=request.key,
        where=row.where,
        problem=row.problem,
        conversation=Conversation(where=row.where, name=row.row_id, turns=turns),
        question=row.question,
        fault=fault,
    )
