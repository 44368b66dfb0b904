"""What routers tell each other of their tenants: everything once, and nothing wrong."""

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.processes import until
from tempo_core.admission import Shares
from tempo_router.tenants import AT_ONCE, Exchange, Ledger, Reading, TotalsError

ENOUGH = 1e6
"""More than any corrections, so that what was charged stays above nothing, where it can be seen."""


class FakeTotals:
    """Totals in memory, which can be away, break off half-way, and be emptied."""

    def __init__(self):
        self.sums, self.epoch = {}, 1.0
        self.away = self.closed = False
        self.breaks_off = ""

    def empty(self):
        self.sums, self.epoch = {}, self.epoch + 1.0

    async def ping(self):
        if self.away:
            raise TotalsError("away")

    async def add(self, work, read):
        assert all(tokens >= 0.0 for tokens in work.values())
        if self.breaks_off == "before":
            raise TotalsError("broken off")
        for member, tokens in work.items():
            self.sums[member] = self.sums.get(member, 0.0) + tokens
        if self.breaks_off == "after":
            raise TotalsError("broken off")
        return Reading(self.epoch, {member: self.sums[member] for member in read if member in self.sums})

    async def close(self):
        self.closed = True


@pytest.fixture
def totals():
    return FakeTotals()


def routers(totals, count=2):
    """So many routers: what they charge, and how they exchange it."""
    shares = [Shares() for _ in range(count)]
    return *shares, *(Exchange(totals, each) for each in shares)


def charged(shares, *tenants):
    """What each has been charged; nobody has been lifted yet."""
    leads = shares.leads(["nobody", *tenants])
    return tuple(leads[tenant] for tenant in tenants)


ACTIONS = st.one_of(
    st.tuples(st.just("serve"), st.integers(0, 3), st.sampled_from("xyz"), st.integers(-1000, 1000)),
    st.tuples(st.just("exchange"), st.integers(0, 3)),
    st.tuples(st.just("away"), st.booleans()),
)


@given(st.integers(2, 4), st.lists(ACTIONS, max_size=60))
@settings(max_examples=100)
def test_whatever_came_first_all_routers_have_charged_the_same_in_the_end(count, actions):
    async def scenario():
        totals = FakeTotals()
        together = routers(totals, count)
        shares, exchanges = together[:count], together[count:]
        served = dict.fromkeys("xyz", ENOUGH)
        for tenant in served:
            shares[0].serve(tenant, ENOUGH)
        for action, *about in actions:
            if action == "serve":
                router, tenant, tokens = about
                shares[router % count].serve(tenant, float(tokens))
                served[tenant] += tokens
            elif action == "exchange":
                await exchanges[about[0] % count].exchange()
            else:
                (totals.away,) = about
        totals.away = False
        for each in shares:
            for tenant in served:
                each.charge(tenant, 0.0)  # a router reads the totals of tenants that it knows
        for exchange in (*exchanges, *exchanges):
            await exchange.exchange()
        assert {charged(each, *"xyz") for each in shares} == {tuple(served.values())}

    asyncio.run(scenario())


MISHAPS = st.one_of(
    st.tuples(st.just("serve"), st.integers(0, 2), st.integers(0, 1000)),
    st.tuples(st.just("exchange"), st.integers(0, 2)),
    st.tuples(st.just("break off"), st.sampled_from(["", "before", "after"])),
    st.tuples(st.just("empty")),
)


@given(st.lists(MISHAPS, max_size=60))
@settings(max_examples=200)
def test_whatever_becomes_of_the_totals_nobody_pays_less_than_for_here_or_more_than_for_everywhere(actions):
    async def scenario():
        totals = FakeTotals()
        together = routers(totals, 3)
        served = [0.0] * 3
        for action, *about in actions:
            if action == "serve":
                router, tokens = about
                together[router].serve("x", float(tokens))
                served[router] += tokens
            elif action == "exchange":
                await together[3 + about[0]].exchange()
            elif action == "break off":
                (totals.breaks_off,) = about
            else:
                totals.empty()
            for shares, here in zip(together, served, strict=False):
                assert here <= charged(shares, "x")[0] <= sum(served)

    asyncio.run(scenario())


async def test_a_correction_downwards_is_told_as_well_even_after_the_totals_were_emptied(totals):
    here, there, sends, learns = routers(totals)
    here.serve("x", 1000.0)
    there.joins("x")
    for exchange in (sends, learns):
        await exchange.exchange()
    totals.empty()
    here.serve("x", -900.0)
    for exchange in (sends, learns):
        await exchange.exchange()
    assert charged(there, "x") == charged(here, "x") == (100.0,)


async def test_totals_that_were_emptied_charge_and_credit_nobody_and_are_counted_anew(totals):
    here, there, sends, learns = routers(totals)
    here.serve("x", 1000.0)
    there.serve("x", 10.0)
    for exchange in (sends, learns, sends):
        await exchange.exchange()
    totals.empty()
    there.serve("x", 2.0)
    for exchange in (learns, sends):
        await exchange.exchange()
    assert charged(here, "x") == charged(there, "x") == (1012.0,)


async def test_a_total_that_fell_charges_and_credits_nobody_and_is_counted_from_there(totals):
    here, there, sends, learns = routers(totals)
    here.serve("x", 1000.0)
    there.serve("x", 10.0)
    for exchange in (sends, learns, sends):
        await exchange.exchange()
    totals.sums[b"+x"] = 900.0  # a replica took over, say, that was behind
    for exchange in (learns, sends):
        await exchange.exchange()
    there.serve("x", 5.0)
    for exchange in (learns, sends):
        await exchange.exchange()
    assert charged(here, "x") == charged(there, "x") == (1015.0,)


def test_totals_are_forgotten_beyond_a_bound():
    ledger = Ledger()
    for number in range(20_001):
        ledger.adds({b"%d" % number: 5.0})
    assert ledger.news(Reading(1.0, {b"20000": 5.0, b"0": 5.0})) == {b"20000": 0.0, b"0": 5.0}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_broke_off_half_way_is_not_charged_twice(totals, when):
    here, there, sends, learns = routers(totals)
    here.serve("x", 1000.0)
    there.joins("x")
    totals.breaks_off = when
    await sends.exchange()
    totals.breaks_off = ""
    for exchange in (sends, learns, sends):
        await exchange.exchange()
    assert (charged(here, "x"), charged(there, "x")) == ((1000.0,), (1000.0 if when == "after" else 0.0,))


async def test_of_many_tenants_all_are_told_in_the_end(totals):
    here, _, sends, _ = routers(totals)
    for number in range(AT_ONCE + 1):
        here.serve(str(number), 1.0)
    await sends.exchange()
    assert sum(totals.sums.values()) == AT_ONCE
    await sends.exchange()
    assert sum(totals.sums.values()) == AT_ONCE + 1


async def test_that_totals_are_away_and_back_is_said_once(totals, caplog):
    *_, exchange = routers(totals)
    caplog.set_level(logging.INFO)
    seen = [exchange.shared]
    for totals.away in (False, True, True, False, False):
        await exchange.exchange()
        seen.append(exchange.shared)
    assert seen == [None, True, False, False, True, True]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "away" in caplog.text


async def test_a_watch_goes_on_while_totals_are_away_and_closes_them_at_its_end(totals):
    here, _, exchange, _ = routers(totals)
    here.serve("x", 5.0)
    totals.away = True
    watching = asyncio.create_task(exchange.watch(interval_s=0.001))

    async def shared_is(expected):
        return exchange.shared is expected

    await until(lambda: shared_is(False))
    totals.away = False
    await until(lambda: shared_is(True))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert totals.sums == {b"+x": 5.0}
    assert totals.closed
