import pytest

from tempo_sidecar.rate import BusyRate


def run(rate, start_s, seconds, tokens_per_s):
    rate.begin(start_s)
    for tick in range(1, seconds * 10 + 1):
        rate.add(tokens_per_s // 10)
        rate.tokens_per_s(start_s + tick / 10)
    rate.end(start_s + seconds)


def test_the_rate_is_that_of_the_busy_time():
    rate = BusyRate()
    run(rate, 0.0, 5, 100)
    run(rate, 1000.0, 5, 100)
    assert rate.tokens_per_s(2000.0) == pytest.approx(100.0, rel=0.01)


def test_the_rate_follows_an_engine_that_slows_down():
    rate = BusyRate()
    run(rate, 0.0, 60, 1000)
    run(rate, 60.0, 60, 100)
    assert rate.tokens_per_s(120.0) == pytest.approx(100.0, rel=0.1)


def test_nothing_seen_is_a_rate_of_zero_and_a_clock_set_back_does_no_harm():
    rate = BusyRate()
    assert rate.tokens_per_s(5.0) == 0.0
    rate.begin(5.0)
    rate.add(10)
    rate.end(4.0)
    assert rate.tokens_per_s(3.0) >= 0.0
