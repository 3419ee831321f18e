"""Budgets: worked sums, and no request that might not fit."""

import asyncio

import pytest

from jaxtool.cold_start.spending import (
    Account,
    Budget,
    BudgetReached,
    Prices,
    Tokens,
    expected_prompt_tokens,
    worst,
)


def test_money_by_hand():
    """2 million read at 3 and half a million written at 15: 6 + 7.5."""
    prices = Prices(prompt=3, written=15)
    assert prices.of(Tokens(prompt=2_000_000, written=500_000)) == pytest.approx(13.5)


def test_tokens_of_a_prompt_by_hand():
    """Ten bytes: 4 tokens expected, 10 at most; both with 64 around them."""
    assert expected_prompt_tokens("abcdefghij") == 68
    assert worst("abcdéfghi", 100) == Tokens(prompt=74, written=100)


def test_a_budget_holds_up_to_its_last_token():
    budget = Budget(tokens=100)
    assert budget.holds(Tokens(prompt=60, written=40), Prices())
    assert not budget.holds(Tokens(prompt=60, written=41), Prices())
    money = Budget(money=1.0)
    prices = Prices(prompt=1, written=1)
    assert money.holds(Tokens(prompt=1_000_000), prices)
    assert not money.holds(Tokens(prompt=1_000_001), prices)


def test_budgets_that_cannot_act_are_refused():
    with pytest.raises(ValueError, match="no budget: give --budget_tokens"):
        Budget()
    with pytest.raises(ValueError, match=r"--budget_money 2 needs --prices"):
        Budget(money=2).check_prices(Prices(prompt=1))
    Budget(tokens=1).check_prices(Prices())
    with pytest.raises(ValueError, match="tokens"):
        Budget(tokens=0)
    with pytest.raises(ValueError, match="written"):
        Prices(written=-1)


def test_a_request_waits_for_others_that_may_turn_out_cheaper():
    """Budget 100, 60 on its way: 50 more fit only once the first one has cost 10."""

    async def both():
        account = Account(Budget(tokens=100), Prices(), Tokens(), Tokens())
        await account.admit(Tokens(prompt=60))
        second = asyncio.create_task(account.admit(Tokens(prompt=50)))
        await asyncio.sleep(0)
        assert not second.done()
        account.settle(Tokens(prompt=60), spent=Tokens(prompt=10), is_billed=True)
        await second
        assert account.spent.total == 10
        account.settle(Tokens(prompt=50), spent=None, is_billed=False)
        with pytest.raises(BudgetReached):
            await account.admit(Tokens(prompt=91))

    asyncio.run(both())


def test_a_request_without_a_reply_counts_at_its_worst():
    async def one():
        account = Account(
            Budget(tokens=100), Prices(prompt=1e6, written=1e6), Tokens(), Tokens(prompt=1)
        )
        await account.admit(Tokens(prompt=60))
        account.settle(Tokens(prompt=60), spent=None, is_billed=True)
        assert (account.spent.total, account.uncertain.total, account.money) == (0, 61, 61)

    asyncio.run(one())
