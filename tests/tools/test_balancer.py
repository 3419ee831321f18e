"""Power of two choices, ejection and re-admission, on a clock of our own."""

import collections

import pytest

from jaxtool.tools.balancer import Balancer


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_less_busy_of_two_is_taken():
    balancer = Balancer(["a", "b"])
    busy = balancer.choose()
    busy.in_flight = 5
    assert all(balancer.choose().address != busy.address for _ in range(20))


def test_calls_spread_over_many_servers():
    balancer = Balancer([str(i) for i in range(8)])
    taken = collections.Counter()
    for _ in range(400):
        endpoint = balancer.choose()
        endpoint.in_flight += 1
        taken[endpoint.address] += 1
    assert max(taken.values()) - min(taken.values()) <= 6


def test_a_sick_server_is_left_out_and_comes_back():
    clock = _Clock()
    balancer = Balancer(["a", "b"], clock)
    sick = balancer.choose()
    balancer.failed(sick)
    assert balancer.num_ejected == 1
    assert {balancer.choose().address for _ in range(20)} == {"a", "b"} - {sick.address}
    clock.now = 0.6
    assert sick.address in {balancer.choose().address for _ in range(50)}
    balancer.failed(sick)
    clock.now = 1.3
    assert balancer.num_ejected == 1, "the second ejection lasts longer"
    balancer.succeeded(sick)
    assert balancer.num_ejected == 0


def test_when_all_are_sick_the_first_to_return_is_tried():
    clock = _Clock()
    balancer = Balancer(["a", "b"], clock)
    first, second = balancer.choose(), None
    balancer.failed(first)
    second = balancer.choose()
    clock.now = 0.1
    balancer.failed(second)
    assert balancer.choose() is first
    assert balancer.choose(avoid=first) is second


def test_a_server_that_is_sick_for_long_is_tried_again_after_30_seconds():
    clock = _Clock()
    balancer = Balancer(["a", "b"], clock)
    sick = balancer.choose()
    for _ in range(20):  # 0.5 s doubled twenty times would be six days
        balancer.failed(sick)
    clock.now = 29.9
    assert balancer.num_ejected == 1
    clock.now = 30.0
    assert balancer.num_ejected == 0


@pytest.mark.parametrize("addresses", [[], ["a", "a"]])
def test_bad_address_lists_are_refused(addresses):
    with pytest.raises(ValueError, match="address"):
        Balancer(addresses)
