from datetime import UTC, datetime

import pytest

from tempo_operator.election import Candidate, Terms

AT = datetime(2026, 1, 1, tzinfo=UTC)
TERMS = Terms()


@pytest.fixture
def me():
    return Candidate("me", TERMS)


def theirs(at=AT):
    return Candidate("they", TERMS).record(None, "ns", "lease", at)


def test_a_lease_that_is_not_there_or_nobodys_may_be_taken(me):
    assert me.may_take(None, 0.0)
    resigned = theirs()
    resigned["spec"]["holderIdentity"] = ""
    assert me.may_take(resigned, 0.0)


def test_anothers_lease_may_be_taken_when_it_was_seen_unchanged_for_its_length(me):
    assert not me.may_take(theirs(), 100.0)
    assert not me.may_take(theirs(), 100.0 + TERMS.lease_s - 0.1)
    assert me.may_take(theirs(), 100.0 + TERMS.lease_s)


def test_a_renewal_starts_the_wait_anew_whatever_time_it_bears(me):
    assert not me.may_take(theirs(), 100.0)
    long_ago = theirs(datetime(2020, 1, 1, tzinfo=UTC))
    assert not me.may_take(long_ago, 119.0)
    assert not me.may_take(long_ago, 138.0)
    assert me.may_take(long_ago, 139.0)


def test_the_record_counts_transitions_and_keeps_when_it_was_acquired(me):
    taken = me.record(theirs(), "ns", "lease", datetime(2026, 1, 2, tzinfo=UTC))
    assert taken["spec"]["leaseTransitions"] == 2
    renewed = me.record(taken, "ns", "lease", datetime(2026, 1, 3, tzinfo=UTC))
    assert renewed["spec"]["leaseTransitions"] == 2
    assert renewed["spec"]["acquireTime"] == taken["spec"]["acquireTime"]
    assert renewed["spec"]["renewTime"] == "2026-01-03T00:00:00.000000Z"


def test_a_leader_stops_well_before_another_may_take_over():
    for terms in (TERMS, Terms.of(3.0)):
        assert terms.renew_s < terms.lead_s < terms.lease_s
    assert TERMS.lease_s + 1.2 * TERMS.look_s < 30
