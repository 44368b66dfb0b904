"""What a pool is made of, as commands."""

from pathlib import Path

import pytest

from support.local import MANIFESTS, local
from tempo_api.manifest import ManifestError, build_pool, load_manifests
from tempo_operator.local.models import Model
from tempo_operator.local.parts import memory_gb, parts

FOLDER = Path("/run/small")


def made(old="", new="", **fields):
    assert old in MANIFESTS
    return parts(build_pool(load_manifests(MANIFESTS.replace(old, new))), local(FOLDER, **fields))


def named(name, all_parts):
    return next(part for part in all_parts if part.name == name)


def following(argv, option):
    return argv[argv.index(option) + 1]


def test_a_pool_is_an_engine_and_a_sidecar_for_each_replica_and_one_router():
    assert [part.name for part in made()] == ["engine-0", "sidecar-0", "engine-1", "sidecar-1", "router"]


def test_a_sidecar_waits_for_its_engine_and_the_router_for_all_sidecars():
    all_parts = made()
    assert named("sidecar-1", all_parts).depends_on == ("engine-1",)
    assert named("router", all_parts).depends_on == ("sidecar-0", "sidecar-1")


def test_every_part_listens_on_loopback_only():
    assert all(following(part.argv, "--host") == "127.0.0.1" for part in made())


def test_an_engine_loads_the_model_under_the_name_that_clients_use():
    argv = named("engine-1", made("model: /models/small", "model: m\n  servedModelName: fine")).argv
    assert following(argv, "--model") == "/models/small"
    assert following(argv, "--served-model-name") == "fine"
    assert following(argv, "--port") == "9101"


def test_arguments_of_the_pool_come_after_ours_and_those_of_the_command_line_last():
    argv = named("engine-0", made(engine_args=("--seed=1",))).argv
    assert argv[-2:] == ("--max-model-len=512", "--seed=1")


def test_the_environment_that_the_pool_asks_for_wins():
    env = named("engine-0", made()).env
    assert env["OMP_NUM_THREADS"] == "2"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_on_gpus_vllm_keeps_its_own_settings_and_every_engine_has_gpus_of_its_own():
    engines = [named(name, made(cpu=False, gpus=(("0", "1"), ("GPU-c", "GPU-d")))) for name in ("engine-0", "engine-1")]
    assert [engine.env["CUDA_VISIBLE_DEVICES"] for engine in engines] == ["0,1", "GPU-c,GPU-d"]
    for engine in engines:
        assert "--enforce-eager" not in engine.argv
        assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in engine.env


def test_where_gpus_cannot_be_told_vllm_finds_its_own():
    assert "CUDA_VISIBLE_DEVICES" not in named("engine-0", made(cpu=False)).env


def test_on_cpus_engines_are_not_compiled():
    engine = named("engine-0", made())
    assert "--enforce-eager" in engine.argv
    assert engine.env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_a_plugged_engine_schedules_with_tempo_and_reports_to_its_sidecar():
    engine, sidecar = made()[:2]
    assert following(engine.argv, "--scheduler-cls") == "tempo_vllm.scheduler.Tempo"
    assert engine.env["TEMPO_CONFIG_FILE"] == "/run/small/config.yaml"
    assert engine.env["TEMPO_STATUS_FILE"] == following(sidecar.argv, "--plugin-status")


def test_an_unplugged_engine_has_nothing_of_tempo():
    engine, sidecar = made(plugged=False)[:2]
    assert "tempo" not in " ".join([*engine.argv, *engine.env]).lower()
    assert "--plugin-status" not in sidecar.argv


def test_only_a_model_from_the_hub_may_use_the_network_and_more_time():
    near = named("engine-0", made())
    far = named("engine-0", made(model=Model("org/name", offline=False)))
    assert near.env["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in far.env
    assert far.ready_within_s > near.ready_within_s


def test_a_sidecar_knows_its_engine_and_the_router_its_sidecars():
    all_parts = made()
    assert following(named("sidecar-0", all_parts).argv, "--engine-url") == named("engine-0", all_parts).url
    router = named("router", all_parts)
    assert router.argv[:4] == ("py", "-m", "tempo_api.cli", "router")
    assert router.argv[-4:] == (
        *("--replica", "replica-0=http://127.0.0.1:9000"),
        *("--replica", "replica-1=http://127.0.0.1:9001"),
    )
    assert router.ready_url == "http://127.0.0.1:8000/readyz"


def test_what_a_sidecar_learns_of_a_model_is_there_for_the_next_run_and_for_no_other_model_or_sidecar():
    def learned(name="sidecar-0", *change, **fields):
        return following(named(name, made(*change, **fields)).argv, "--state-dir")

    assert learned() == "/run/small/learned/%2Fmodels%2Fsmall/replica-0"
    assert learned(state=Path("/kept")) == "/kept/%2Fmodels%2Fsmall/replica-0"
    others = (learned("sidecar-1"), learned("sidecar-0", "model: /models/small", "model: other"))
    assert len({learned(), *others}) == 3
    assert len(Path(learned("sidecar-0", "/models/small", "m" * 500)).parent.name) == 200


def test_keys_of_the_command_line_stand_in_for_the_secret_and_the_log_goes_where_the_router_s_does():
    wanted = "replicas: 2\n  router: {auth: {secretRef: {name: s}}, accessLog: true}"
    argv = named("router", made("replicas: 2", wanted, keys=Path("/k.yaml"))).argv
    assert (following(argv, "--keys"), following(argv, "--access-log")) == ("/k.yaml", "-")
    assert not {"--keys", "--access-log"} & set(named("router", made()).argv)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("replicas: 2", "replicas: 0", "TempoPool small: spec.replicas: is 0"),
        ("engine: {", "engine: {kind: Simulated, ", "TempoPool small: spec.engine.kind: must be VLLM for tempo up"),
        (
            "replicas: 2",
            "router: {auth: {secretRef: {name: s}}}",
            "spec.router.auth: .* a file of API keys with --keys",
        ),
        ("replicas: 2", "router: {tls: {secretRef: {name: s}}}", "spec.router.tls: tempo up speaks plain HTTP"),
        ("replicas: 2", "history: {redis: {secretRef: {name: s}}}", "spec.history.redis: .* as TEMPO_HISTORY"),
        ('value: "2"', "valueFrom: {}", r"TempoPool small: spec.engine.env\[0\]: must be a name and a value"),
    ],
)
def test_what_only_a_cluster_has_is_refused_with_its_path(old, new, message):
    with pytest.raises(ManifestError, match=message):
        made(old, new)


def test_memory_is_estimated_from_replicas_cache_and_weights():
    model = Model("m", offline=True, weight_bytes=500_000_000)
    pool = build_pool(load_manifests(MANIFESTS.replace("OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE")))
    assert memory_gb(pool, model) == pytest.approx(2 * (2.0 + 2.0 + 0.5))
    assert memory_gb(pool, model, cpu=False) == pytest.approx(2 * 2.0)
