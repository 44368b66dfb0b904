"""Routers with keys, TLS and access logs, and certificates to try them with."""

import json
import ssl
import subprocess
from contextlib import asynccontextmanager

import aiohttp
import yaml
from aiohttp import web

from support.fake_engine import MODEL
from support.processes import until
from tempo_api.http.runner import Runner
from tempo_api.reload import Reloader
from tempo_router.app import build_app

MANIFEST = f"""
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: chat}}
spec: {{pattern: Latency, objectives: {{ttft: 2s, tbt: 100ms}}, default: true}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: batch}}
spec: {{pattern: BestEffort}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {{name: test}}
spec: {{model: {MODEL}}}
"""


class Guarded:
    """A router that runs, and a client for it."""

    def __init__(self, url, port, session):
        self.url, self.port, self.session = url, port, session

    async def ask(self, path="/v1/echo", method="POST", key=None, **options):
        """Status, headers, and the body: as an object where it is one."""
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {key}"} if key else {})
        async with self.session.request(method, self.url + path, headers=headers, **options) as answer:
            body = await answer.read()
            return answer.status, answer.headers, json.loads(body) if body.startswith(b"{") else body


@asynccontextmanager
async def guarded(engine, folder, *parts, tls=None):
    """A router before `engine` with these parts of `tempo_router.access` installed, once it is ready."""
    path = folder / "pool.yaml"
    path.write_text(MANIFEST)
    async with engine.running():
        app = build_app(Reloader(path), {"r0": engine.url})
        for part in (*parts, tls):
            if part:
                part.install(app)
        async with listening(app, tls.context if tls else None) as (url, port), aiohttp.ClientSession() as session:
            running = Guarded(url, port, session)

            async def ready():
                return (await running.ask("/readyz", "GET", ssl=False))[0] == 200

            await until(ready)
            yield running


@asynccontextmanager
async def listening(app: web.Application, context: ssl.SSLContext | None = None):
    """The app's base URL and port, served as `run_server` does."""
    runner = Runner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{port}", port
    finally:
        await runner.cleanup()


def write_keys(path, *entries):
    """A file of keys."""
    path.write_text(yaml.safe_dump({"keys": list(entries)}))
    return path


def write_certificate(folder, name="localhost"):
    """A certificate for 127.0.0.1 that signs itself, and its key: the paths of both."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key
