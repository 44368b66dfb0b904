import socket
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from tempo_operator.cli import operator

ARGS = ["--image", "tempo:test"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The command, on a machine that has no cluster."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return lambda *args: CliRunner().invoke(operator, [*ARGS, *args])


@pytest.mark.parametrize("args", [(), ("--all-namespaces", "--namespace", "a")])
def test_it_asks_whose_pools_to_serve(run, args):
    result = run(*args)
    assert result.exit_code == 2
    assert "--namespace NAME (once or more), or --all-namespaces" in result.output


@pytest.mark.parametrize("peers", ["{", "7", "[7]"])
def test_peers_that_are_none_are_refused(run, peers):
    result = run("--all-namespaces", "--metrics-from", peers)
    assert result.exit_code == 2
    assert "--metrics-from" in result.output


def test_without_a_cluster_it_says_where_one_would_be_named(run):
    result = run("--all-namespaces")
    assert result.exit_code == 1
    assert "neither KUBECONFIG nor ~/.kube/config" in result.output


def test_a_port_that_is_taken_ends_it_with_one_line(tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
    names = {"current-context": "c", "clusters": [cluster], "contexts": [context], "users": [{"name": "c", "user": {}}]}
    kubeconfig.write_text(yaml.safe_dump(names))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "tempo_api.cli", "operator", *ARGS, "--namespace", "a"]
        result = subprocess.run(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={"KUBECONFIG": str(kubeconfig)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"Error: can't listen on 127.0.0.1:{port} (")
    assert last.endswith("choose a --port")


def test_help_has_examples(run):
    assert "tempo operator --image registry.example/tempo:0.1.0 --namespace models" in run("--help").output
