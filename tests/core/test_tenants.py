"""What tenants have been served, as the counters of VTC have it."""

from hypothesis import given
from hypothesis import strategies as st

from support.baselines import job
from tempo_core.snapshot import Entry
from tempo_core.tenants import MOST_IDLE, TenantCounters


def waits(tenant, prompt=10):
    return Entry(job(tenant, prompt=prompt, tenant=tenant))


def runs(tenant, generated=0, prompt=10):
    return Entry(job(tenant, prompt=prompt, tenant=tenant), generated, prompt + generated, running=True)


def ended(**tokens):
    """Counters of tenants that got so many tokens, and have nothing live."""
    counters = TenantCounters()
    for tenant, count in tokens.items():
        counters.end(runs(tenant, (count - 10) // 2))
    return counters


def test_a_prompt_counts_once_it_is_admitted_and_each_token_twice():
    live = [waits("a"), runs("b", 0), runs("c", 5), waits("d")._replace(generated=5)]
    assert TenantCounters().served(live) == {"a": 0.0, "b": 10.0, "c": 20.0, "d": 20.0}


def test_what_has_ended_stays_counted():
    assert ended(a=100, b=30).served([runs("a"), runs("b")]) == {"a": 110.0, "b": 40.0}


def test_who_begins_to_wait_is_lifted_to_the_least_served_of_those_that_waited():
    counters = ended(idle=10, busy=900, busier=2000, busiest=3000)
    counters.served([waits("busy"), waits("busier")])
    live = [waits("busy"), waits("busier"), waits("idle"), waits("busiest"), waits("new")]
    both = {"busy": 900.0, "idle": 900.0, "new": 900.0, "busier": 2000.0, "busiest": 3000.0}
    assert counters.served(live) == both
    assert counters.served(live) == both, "lifted once"


def test_where_nobody_goes_on_waiting_the_last_to_wait_is_the_measure():
    counters = ended(a=50, b=10)
    counters.served([waits("a"), runs("b")])
    assert counters.served([runs("a"), runs("b")]) == {"a": 60.0, "b": 20.0}
    assert counters.served([runs("a"), runs("b"), waits("b")]) == {"a": 60.0, "b": 60.0}


def test_one_tenant_is_not_counted_and_the_second_joins_where_the_first_one_is():
    counters = TenantCounters()
    assert counters.served([waits("a"), runs("a", 40)]) == {}
    counters.end(runs("a", 45))
    assert counters.served([]) == {}
    assert counters.served([waits("b"), runs("a")]) == {"a": 110.0, "b": 110.0}


def test_of_many_tenants_those_furthest_ahead_are_remembered_and_those_with_live_requests():
    counters = TenantCounters()
    live = [waits("first"), runs("second", 5)]
    for tenant, count in (("first", 1), ("second", 2), *((f"t{i}", i + 3) for i in range(10 * MOST_IDLE))):
        counters.end(runs(tenant, count))
        assert counters.served(live).keys() == {"first", "second"}
        assert len(counters._past) <= 2 * MOST_IDLE
    assert counters.served(live) == {"first": 12.0, "second": 34.0}
    last, forgotten = f"t{10 * MOST_IDLE - 1}", "t0"
    counters.end(runs("first", 500))
    seen = counters.served([*live, waits(last), waits(forgotten)])
    assert seen[last] == 10 + 2 * (10 * MOST_IDLE + 2)
    assert seen[forgotten] == seen["first"], "whoever is forgotten begins with who has least"


looks = st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 9)), max_size=6))


@given(looks)
def test_who_waits_twice_in_a_row_never_falls_behind_for_those_that_join(looks):
    """Whoever joins is at least at the least of those that go on waiting."""
    counters, before = ended(a=100, b=200, c=300), set()
    for look in looks:
        live = [runs(tenant, count) if running else waits(tenant) for tenant, running, count in look]
        served = counters.served(live)
        waiting = {entry.job.tenant for entry in live if not entry.running}
        if served and waiting & before:
            assert min(served[t] for t in waiting) == min(served[t] for t in waiting & before)
        before = waiting or before
        for entry in live:
            if entry.running:
                counters.end(entry)
