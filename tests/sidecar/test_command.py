"""`tempo sidecar` as a process: how it starts, and how it ends."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress

import aiohttp

from support.fake_engine import MODEL, FakeEngine
from support.serving import QUICKSTART, eventually

CHAT = {"model": MODEL, "messages": [], "stream": True}


@asynccontextmanager
async def command(engine_url, *more, config=QUICKSTART, port=0, drain_seconds=20):
    """`tempo sidecar` with its pipes; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tempo_api.cli", "sidecar", "--engine-url", engine_url, "--config", str(config)),
        *("--port", str(port), "--drain-seconds", str(drain_seconds), *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def ready_url(process):
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    assert line.startswith("tempo sidecar ready on http://127.0.0.1:")
    return line.split()[-1]


async def ended(process):
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, errors.decode()


async def test_sigterm_lets_a_running_stream_finish_and_exits_with_0():
    engine = FakeEngine(hold=asyncio.Event())
    async with engine.running(), command(engine.url) as process, aiohttp.ClientSession() as client:
        url = await ready_url(process)
        stream = await client.post(f"{url}/v1/chat/completions", json=CHAT)
        assert b"w0" in await stream.content.readany()
        process.send_signal(signal.SIGTERM)

        async def refuses():
            async with client.get(f"{url}/readyz") as answer:
                return answer.status == 503

        async with asyncio.timeout(10):
            while not await refuses():
                pass
        async with client.post(f"{url}/v1/chat/completions", json=CHAT) as late:
            assert late.status == 503
        engine.hold.set()
        assert (await stream.read()).endswith(b"data: [DONE]\n\n")
        assert (await ended(process))[0] == 0


async def test_a_drain_that_takes_too_long_is_cut_and_stops_the_engine():
    engine = FakeEngine(hold=asyncio.Event())
    async with engine.running(), command(engine.url, drain_seconds=0) as process, aiohttp.ClientSession() as client:
        url = await ready_url(process)
        await client.post(f"{url}/v1/chat/completions", json=CHAT)
        process.send_signal(signal.SIGINT)
        assert (await ended(process))[0] == 0
        await eventually(lambda: engine.disconnects == 1)


async def test_a_port_that_is_taken_is_one_line():
    async with FakeEngine().running() as engine:
        port = int(engine.url.rpartition(":")[2])
        async with command(engine.url, port=port) as process:
            code, errors = await ended(process)
    assert code == 1
    assert errors.splitlines()[-1].startswith(f"Error: can't listen on 127.0.0.1:{port}")
    assert "Traceback" not in errors


async def test_a_bad_manifest_is_one_line(tmp_path):
    config = tmp_path / "pool.yaml"
    config.write_text(QUICKSTART.read_text().replace("ttft", "tttf"))
    async with command("http://127.0.0.1:9", config=config) as process:
        code, errors = await ended(process)
    assert (code, errors.count("\n")) == (1, 1)
    assert errors.startswith("Error: pool.yaml: SLOClass chat: spec.objectives.tttf: unknown field")


async def test_what_was_learned_is_kept_and_used_by_the_next_start(tmp_path):
    more = ("--state-dir", str(tmp_path / "state"))
    body = {**CHAT, "messages": [{"role": "user", "content": "A word that nobody may find: xylophone."}]}
    async with FakeEngine().running() as engine, aiohttp.ClientSession() as client:
        for start in (1, 2):
            async with command(engine.url, *more) as process:
                url = await ready_url(process)
                async with client.get(f"{url}/metrics") as answer:
                    assert f"tempo_sidecar_length_sample {start - 1}.0" in await answer.text()
                async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
                    assert answer.status == 200
                    await answer.read()
                process.send_signal(signal.SIGTERM)
                code, errors = await ended(process)
                assert (code, "xylophone" in errors) == (0, False)
    for saved in (tmp_path / "state").iterdir():
        assert b"xylo" not in saved.read_bytes()
