"""`tempo router` with keys, TLS and an access log, as it is typed."""

import json
import re
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from support.access import MANIFEST, write_certificate, write_keys
from tempo_router.cli import router


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(MANIFEST)
    return path


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["--keys", "absent.yaml"], "absent.yaml: can't be read: No such file"),
        (["--tls-cert", "a.crt"], "Give --tls-cert and --tls-key together."),
        (["--tls-cert", "a.crt", "--tls-key", "a.key"], "a.crt: can't be read: No such file"),
        (["--access-log", "absent/log"], "absent/log can't be written: No such file"),
    ],
)
def test_what_can_t_be_used_is_refused_in_one_line(pool, args, problem):
    result = CliRunner().invoke(router, ["--config", str(pool), "--replica", "r0=http://a", *args])
    assert (result.exit_code in {1, 2}, "Traceback" in result.output) == (True, False)
    assert problem in result.output


def test_a_pool_that_asks_for_keys_is_not_served_without(pool):
    pool.write_text(MANIFEST.replace("spec: {model", "spec: {router: {auth: {secretRef: {name: s}}}, model"))
    result = CliRunner().invoke(router, ["--config", str(pool), "--replica", "r0=http://a"])
    assert result.exit_code == 2
    assert "The pool's spec.router.auth asks for API keys; give the file with --keys." in result.output


def test_the_command_serves_over_tls_who_has_a_key_and_writes_it_down(pool, tmp_path):
    certificate, key = write_certificate(tmp_path)
    keys, log = write_keys(tmp_path / "keys.yaml", {"name": "a", "key": "sk-aaaaaaaa"}), tmp_path / "log"
    command = [
        Path(sys.executable).with_name("tempo"),
        "router",
        "--config",
        pool,
        "--replica",
        "r0=http://127.0.0.1:9",
    ]
    command += ["--port", "0", "--tls-cert", certificate, "--tls-key", key, "--keys", keys, "--access-log", log]
    context = ssl.create_default_context(cafile=certificate)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        ready = re.match(r"router ready on (https://127.0.0.1:\d+)\n", process.stdout.readline())
        url = f"{ready[1]}/v1/models"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url, context=context)
        request = urllib.request.Request(url, headers={"Authorization": "Bearer sk-aaaaaaaa"})
        with urllib.request.urlopen(request, context=context) as answer:
            assert json.load(answer)["data"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert [json.loads(line)["status"] for line in log.read_text().splitlines()] == [401, 200]
