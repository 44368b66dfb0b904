"""The engine's pod: who listens where, what vLLM is told, and how nothing is cut off when it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.pool_objects import OPTIONS, containers, made, part, routers, template
from support.processes import wait_until


def following(argv, option):
    return argv[argv.index(option) + 1]


def env(container):
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def mounts(container):
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("kind", ["VLLM", "Simulated"])
def test_the_engine_listens_on_loopback_and_only_the_sidecar_on_the_pod_s_address(kind):
    parts = containers(made(engine={"kind": kind}))
    assert following(parts["engine"]["command"], "--host") == "127.0.0.1"
    assert "ports" not in parts["engine"]
    assert following(parts["sidecar"]["command"], "--engine-url") == "http://127.0.0.1:8002"
    assert following(parts["engine"]["command"], "--port") == "8002"
    assert [port["containerPort"] for port in parts["sidecar"]["ports"]] == [8001]


def test_vllm_is_told_its_model_its_scheduler_and_last_what_the_pool_says():
    spec = {"model": "org/m", "servedModelName": "fine", "engine": {"tensorParallelSize": 2, "args": ["--seed=1"]}}
    argv = containers(made(**spec))["engine"]["command"]
    assert following(argv, "--model") == "org/m"
    assert following(argv, "--served-model-name") == "fine"
    assert following(argv, "--tensor-parallel-size") == "2"
    assert following(argv, "--scheduler-cls") == "tempo_vllm.scheduler.Tempo"
    assert argv[-1] == "--seed=1"


def test_the_plug_in_is_laid_where_the_engine_s_python_looks_before_the_engine_starts():
    parts = containers(made())
    assert list(parts) == ["plugin", "sidecar", "engine"]
    library = parts["plugin"]["command"][-1]
    assert mounts(parts["plugin"])[library] == mounts(parts["engine"])[library]
    assert env(parts["engine"])["PYTHONPATH"] == library


def test_plug_in_and_sidecar_share_configuration_and_status():
    parts = containers(made())
    engine, sidecar = parts["engine"], parts["sidecar"]["command"]
    assert env(engine)["TEMPO_CONFIG_FILE"] == following(sidecar, "--config")
    assert env(engine)["TEMPO_STATUS_FILE"] == following(sidecar, "--plugin-status")
    assert mounts(engine)["/tempo/run"] == mounts(parts["sidecar"])["/tempo/run"]


def test_what_the_sidecar_learns_outlives_its_container():
    parts, spec = containers(made()), template(made())["spec"]
    volume = mounts(parts["sidecar"])[following(parts["sidecar"]["command"], "--state-dir")]
    assert volume in {v["name"] for v in spec["volumes"]}


def test_the_sidecar_is_a_native_one_whose_word_makes_the_pod_ready():
    sidecar = containers(made())["sidecar"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8001}


def test_a_configuration_is_mounted_whole_because_a_single_file_would_never_change():
    for container in (*containers(made()).values(), routers(made())):
        assert not any("subPath" in mount for mount in container.get("volumeMounts", ()))


def test_the_environment_that_the_pool_asks_for_wins_but_the_plug_in_stays_on_the_path():
    asked = [{"name": "HF_HOME", "value": "/models"}, {"name": "PYTHONPATH", "value": "/more"}]
    asked.append({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})
    entries = containers(made(engine={"env": asked}))["engine"]["env"]
    assert len({entry["name"] for entry in entries}) == len(entries)
    found = {entry["name"]: entry for entry in entries}
    assert found["HF_HOME"]["value"] == "/models"
    assert found["PYTHONPATH"]["value"] == "/tempo/lib:/more"
    assert found["TOKEN"] == asked[2]


def test_a_pool_s_own_volume_takes_the_place_of_ours():
    volumes = [{"name": "models", "persistentVolumeClaim": {"claimName": "c"}}]
    spec = {"volumes": volumes, "volumeMounts": [{"name": "models", "mountPath": "/tempo/cache"}]}
    objects = made(engine=spec)
    assert mounts(containers(objects)["engine"])["/tempo/cache"] == "models"
    assert volumes[0] in template(objects)["spec"]["volumes"]


def test_an_engine_gets_the_gpus_it_is_spread_over_unless_the_pool_says_otherwise():
    def asked_for(**engine):
        return containers(made(engine=engine))["engine"]["resources"]

    assert asked_for(tensorParallelSize=4) == {"limits": {"nvidia.com/gpu": "4"}}
    assert asked_for(resources={"requests": {"cpu": 4}}) == {"requests": {"cpu": "4"}}, "as the API server keeps it"


def test_pods_go_where_the_pool_says():
    placement = {"nodeSelector": {"gpu": "h100"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    spec = template(made(engine=placement))["spec"]
    assert {key: spec[key] for key in placement} == placement


def test_engines_are_replaced_one_at_a_time_each_once_the_last_is_ready():
    spec = part(made(), "StatefulSet", "demo-engine")["spec"]
    assert spec["updateStrategy"] == {"type": "RollingUpdate"}
    assert spec["podManagementPolicy"] == "Parallel"  # or one that never starts would hold up its own repair


def test_a_simulated_engine_needs_no_gpu_no_plug_in_and_no_image_but_tempo_s():
    parts = containers(made(engine={"kind": "Simulated", "args": ["--profile=mine"]}))
    assert list(parts) == ["sidecar", "engine"]
    assert parts["engine"]["image"] == OPTIONS.image
    assert parts["engine"]["command"][:2] == ["tempo", "sim-engine"]
    assert parts["engine"]["command"][-1] == "--profile=mine"
    assert "nvidia.com/gpu" not in str(parts)


def test_a_pod_has_longer_to_end_than_its_requests():
    objects = made()
    for kind, name in (("StatefulSet", "demo-engine"), ("Deployment", "demo-router")):
        assert template(objects, kind, name)["spec"]["terminationGracePeriodSeconds"] > OPTIONS.drain_s
    for container in (containers(objects)["sidecar"], routers(objects)):
        assert following(container["command"], "--drain-seconds") == str(OPTIONS.drain_s)


def test_the_engine_s_last_act_leaves_the_note_that_its_sidecar_follows_and_waits_for_the_answer(tmp_path):
    parts = containers(made())
    note = following(parts["sidecar"]["command"], "--drain-file")
    shell, flag, script = parts["engine"]["lifecycle"]["preStop"]["exec"]["command"]
    here = tmp_path / Path(note).name
    script = script.replace(note, str(here))
    with subprocess.Popen([shell, flag, script]) as hook:
        wait_until(lambda: here.exists() or hook.poll() is not None, 10)
        (tmp_path / f"{here.name}ed").touch()
        assert hook.wait(10) == 0


def test_a_new_engine_in_the_pod_takes_the_notes_away():
    parts = containers(made())
    note = following(parts["sidecar"]["command"], "--drain-file")
    assert parts["engine"]["lifecycle"]["postStart"]["exec"]["command"] == ["rm", "-f", note, f"{note}ed"]


def test_what_is_laid_for_the_engine_is_enough_to_import_the_plug_in(tmp_path):
    module = containers(made())["plugin"]["command"][2]
    subprocess.run([sys.executable, "-m", module, str(tmp_path)], check=True)
    subprocess.run([sys.executable, "-m", module, str(tmp_path)], check=True)
    probe = "import tempo_vllm.mixin as m, tempo_vllm.status, tempo_vllm.ranked_queue; print(m.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", probe], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, check=True
    )
    assert told.stdout.decode().startswith(str(tmp_path))
