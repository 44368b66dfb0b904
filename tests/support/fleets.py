"""A fleet under a clock that only the test moves."""

from tempo_api.state import EngineState
from tempo_router.fleet import Fleet
from tempo_router.limits import Limits
from tempo_router.member import SAMPLE_S

LIMITS = Limits()


class VirtualClock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def ready_fleet(*names, limits=LIMITS):
    """Replicas that were probed once, and their clock."""
    clock = VirtualClock()
    fleet = Fleet({name: f"http://{name}/" for name in names}, clock, limits)
    for name in names:
        fleet.probed(name, ready=True)
    return fleet, clock


def facts(fleet, *args):
    """By name."""
    return {replica.name: replica for replica in fleet.candidates(*args)}


def run_at(fleet, clock, ticket, tokens_per_s):
    """One sampling window in which the replica brings so many tokens a second."""
    fleet.produced(ticket, round(tokens_per_s * SAMPLE_S))
    clock.now_s += SAMPLE_S
    fleet.probed(ticket.replica, ready=True)


def fail(fleet, name, times=LIMITS.failures):
    for _ in range(times):
        fleet.failed(name)


def serve(fleet, name, times=LIMITS.least_answers, *, status=200, after_s=0.0, streams=True):
    """Answers of one replica, each so long after its request."""
    tickets = [fleet.take(name, 1, streams=streams) for _ in range(times)]
    fleet._clock.now_s += after_s
    for ticket in tickets:
        fleet.answered(ticket, status)
        fleet.release(ticket)


def review(fleet, clock):
    """Long enough for the next look at outliers, which a line from somewhere sets off."""
    clock.now_s += 0.3
    for name in fleet.urls:
        fleet.pushed(name, EngineState(ready=True))
