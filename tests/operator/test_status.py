import pytest

from support.crd import schema
from tempo_operator.conditions import Problem, Reason
from tempo_operator.events import transitions
from tempo_operator.health import Workload, pod_problem, workload
from tempo_operator.measure import Counts, Figures
from tempo_operator.status import State, conditions, next_status, worth_writing

READY = Workload(wanted=2, present=2, ready=2)
ROUTER = Workload(wanted=1, present=1, ready=1)
NOW = "2026-01-01T00:00:00Z"


def state(engines=READY, routers=ROUTER, problem=None, figures=None, *, measured=True):
    return State(engines, routers, problem, figures, measured, "a=b", "http://pool-router.ns.svc")


def figures(**classes):
    known = {name: Counts(*counts) for name, counts in classes.items()}
    return Figures(known, held={"idle": 0}, waiting=3, fallback=(), seconds=60)


def reasons(*args, before=(), **kwargs):
    return {condition.type: condition.reason for condition in conditions(state(*args, **kwargs), before)}


def pool(status=None, generation=4):
    return {"metadata": {"name": "p", "namespace": "ns", "generation": generation}, "status": status}


@pytest.mark.parametrize(
    ("engines", "routers", "reason"),
    [
        (READY, ROUTER, Reason.ALL_REPLICAS_READY),
        (Workload(2, 2, 1), ROUTER, Reason.SOME_REPLICAS_READY),
        (Workload(2, 2, 0), ROUTER, Reason.NO_REPLICA_READY),
        (READY, Workload(1, 1, 0), Reason.ROUTER_NOT_READY),
        (Workload(0, 0, 0), ROUTER, Reason.SCALED_TO_ZERO),
    ],
)
def test_ready_says_how_many_serve(engines, routers, reason):
    assert reasons(engines, routers)["Ready"] == reason


def test_attaining_is_unknown_without_metrics_or_traffic():
    assert reasons()["Attaining"] == Reason.NO_METRICS
    assert reasons(figures=figures())["Attaining"] == Reason.NO_TRAFFIC


def test_one_class_that_misses_is_named_however_well_the_others_do():
    found = conditions(state(figures=figures(chat=(1000, 1000, 0), tool=(10, 5, 0))), ())
    attaining = next(condition for condition in found if condition.type == "Attaining")
    assert attaining.reason == Reason.OBJECTIVES_MISSED
    assert "tool" in attaining.message
    assert "chat" not in attaining.message


def test_attaining_does_not_flap_at_the_limit():
    missed = [{"type": "Attaining", "status": "False"}]
    assert reasons(figures=figures(chat=(100, 91, 0)))["Attaining"] == Reason.OBJECTIVES_MET
    assert reasons(figures=figures(chat=(100, 91, 0)), before=missed)["Attaining"] == Reason.OBJECTIVES_MISSED
    assert reasons(figures=figures(chat=(100, 93, 0)), before=missed)["Attaining"] == Reason.OBJECTIVES_MET


def test_what_waits_for_a_person_is_stalled_and_degraded():
    problem = Problem(Reason.INSUFFICIENT_GPUS, "no")
    found = reasons(Workload(2, 2, 1), problem=problem)
    assert found["Progressing"] == Reason.STALLED
    assert found["Degraded"] == Reason.INSUFFICIENT_GPUS
    assert next_status(pool(), state(problem=problem), NOW)["reason"] == "InsufficientGPUs"


def test_a_roll_out_is_progress():
    assert reasons(Workload(2, 2, 2, rolling=True))["Progressing"] == Reason.ROLLING_OUT


def test_the_same_state_is_the_same_status_at_any_time():
    first = next_status(pool(), state(figures=figures(chat=(100, 99, 333.3))), NOW)
    again = next_status(pool(first), state(figures=figures(chat=(100, 99, 333.4))), "2026-01-02T00:00:00Z")
    assert again == first
    assert not worth_writing(again, first, 1e9)
    assert first["gainPerSecond"] == 5.6
    assert first["attainment"] == 0.99
    assert first["observedGeneration"] == 4


def test_a_transition_has_its_own_time_and_the_others_keep_theirs():
    first = next_status(pool(), state(), NOW)
    later = next_status(pool(first), state(routers=Workload(1, 1, 0)), "2026-01-02T00:00:00Z")
    times = {condition["type"]: condition["lastTransitionTime"] for condition in later["conditions"]}
    assert times["Ready"] == "2026-01-02T00:00:00Z"
    assert times["Degraded"] == NOW


def test_figures_alone_are_written_less_than_once_a_minute_and_states_at_once():
    old = next_status(pool(), state(figures=figures(chat=(100, 99, 100))), NOW)
    busier = next_status(pool(old), state(figures=figures(chat=(100, 99, 900))), NOW)
    assert not worth_writing(busier, old, 60.0)
    assert worth_writing(busier, old, 75.0)
    smaller = next_status(pool(old), state(Workload(2, 2, 1), figures=figures(chat=(100, 99, 100))), NOW)
    assert worth_writing(smaller, old, 0.0)


def test_each_class_has_its_attainment_gain_queue_and_drops():
    known = {"chat": Counts(100, 90, 600.0, 5), "tool": Counts(10, 11, 20.0), "gone": Counts()}
    found = Figures(known, held={"chat": 3, "batch": 12, "tool": 0}, waiting=17, fallback=(), seconds=60)
    status = next_status(pool(), state(figures=found), NOW)
    assert status["queued"] == 17
    assert status["classes"] == [
        {"name": "batch", "gainPerSecond": 0.0, "queued": 12, "dropped": 0},
        {"name": "chat", "gainPerSecond": 10.0, "attainment": 0.9, "queued": 3, "dropped": 5},
        {"name": "tool", "gainPerSecond": 0.33, "attainment": 1.0, "queued": 0, "dropped": 0},
    ]


def test_a_status_has_room_for_as_many_classes_as_its_schema():
    many = figures(**{f"c{n}": (1, 1, 1) for n in range(99)})
    limit = schema("TempoPool")["properties"]["status"]["properties"]["classes"]["maxItems"]
    assert len(next_status(pool(), state(figures=many), NOW)["classes"]) == limit


def test_a_problem_told_at_any_length_fits_into_a_condition():
    told = next_status(pool(), state(problem=Problem(Reason.APPLY_REFUSED, "x" * 10**6)), NOW)["conditions"]
    assert max(len(condition["message"]) for condition in told) == 2000


def test_figures_stay_while_nobody_answers():
    old = next_status(pool(), state(figures=figures(chat=(100, 99, 100))), NOW)
    silent = next_status(pool(old), state(), NOW)
    assert silent["attainment"] == 0.99
    assert {c["type"]: c["reason"] for c in silent["conditions"]}["Attaining"] == "NoMetrics"


def test_a_new_leader_leaves_what_the_last_one_measured_until_it_knows_better():
    old = next_status(pool(), state(figures=figures(chat=(100, 99, 100))), NOW)
    assert next_status(pool(old), state(measured=False), "2026-01-02T00:00:00Z") == old


def test_events_tell_what_became_of_a_pool():
    good = next_status(pool(), state(figures=figures(chat=(10, 10, 1))), NOW)["conditions"]
    problem = Problem(Reason.IMAGE_UNAVAILABLE, "image gone")
    bad = next_status(pool(), state(Workload(2, 2, 0), problem=problem), NOW)["conditions"]
    assert {note.reason for note in transitions([], good)} == {"Ready", "Attaining"}
    assert [(note.type, note.reason) for note in transitions(good, bad)] == [
        ("Warning", "ImageUnavailable"),
        ("Warning", "NoReplicaReady"),
    ]
    assert {note.reason for note in transitions(bad, good)} == {"Recovered", "Ready", "Attaining"}
    assert transitions(good, good) == []


def test_a_workload_rolls_until_its_controller_has_replaced_every_pod():
    document = {"metadata": {"generation": 2}, "spec": {"replicas": 2}}
    rest = {"observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "currentRevision": "a", "updateRevision": "a"}
    assert not workload(document | {"status": rest}).rolling
    assert workload(document | {"status": rest | {"updateRevision": "b", "updatedReplicas": 1}}).rolling
    assert workload(document | {"status": rest | {"observedGeneration": 1}}).rolling
    assert workload(None) == Workload()


def pod(name="e-0", **status):
    return {"metadata": {"name": name}, "status": status}


def test_a_pod_that_cannot_start_says_why_in_words_that_stay_the_same():
    waiting = {"name": "engine", "image": "x:1", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "40s"}}}
    problem = pod_problem([pod("e-1"), pod("e-0", containerStatuses=[waiting])])
    assert problem.reason == Reason.CRASHING
    assert "40s" not in problem.message
    assert pod_problem([pod(containerStatuses=[{"name": "engine", "state": {"running": {}}}])]) is None


def test_a_secret_that_is_not_there_is_named():
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "shared" not found'}
    problem = pod_problem([pod("e-0", containerStatuses=[{"name": "sidecar", "state": {"waiting": waiting}}])])
    assert problem.message == (
        'pod e-0: container sidecar can\'t be made (CreateContainerConfigError): secret "shared" not found'
    )


def test_a_pod_without_a_node_lacks_gpus_or_something_else():
    def unschedulable(message):
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return pod_problem([pod(conditions=[condition])]).reason

    assert unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.") == Reason.INSUFFICIENT_GPUS
    assert unschedulable("0/3 nodes are available: 3 Insufficient memory.") == Reason.UNSCHEDULABLE
