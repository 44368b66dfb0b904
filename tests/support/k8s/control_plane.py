"""A real control plane of one's own, from the programs in a folder: etcd, kube-apiserver, kube-controller-manager."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from support.k8s.proxy import kubeconfig_for
from support.local import free_port
from support.processes import until

TOKEN = "tempo-test-admin"

Away = Callable[[], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def switched(start: Callable[[], AbstractAsyncContextManager[object]]) -> AsyncIterator[Away]:
    """Run something; yields what has it stopped as long as a context lasts."""
    async with AsyncExitStack() as running:
        await running.enter_async_context(start())

        @asynccontextmanager
        async def away() -> AsyncIterator[None]:
            await running.aclose()
            yield
            await running.enter_async_context(start())

        yield away


@asynccontextmanager
async def control_plane(assets: Path, folder: Path) -> AsyncIterator[tuple[Path, Away]]:
    """Start it; yields the kubeconfig of an administrator, and what has the API server away."""
    etcd, api = free_port(), free_port()
    key = folder / "service-account.key"
    await _run("openssl", "genrsa", "-out", str(key), "2048")
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    kubeconfig = folder / "kubeconfig"
    user, server = {"token": TOKEN}, f"https://127.0.0.1:{api}"
    kubeconfig.write_text(yaml.safe_dump(kubeconfig_for(server, user, **{"insecure-skip-tls-verify": True})))
    async with AsyncExitStack() as running:
        await running.enter_async_context(_program(assets / "etcd", folder, *_etcd(etcd, free_port(), folder)))
        away = await running.enter_async_context(switched(lambda: _api_server(assets, api, etcd, key, folder)))
        controllers = [f"--kubeconfig={kubeconfig}", f"--service-account-private-key-file={key}", "--secure-port=0"]
        controllers.append("--leader-elect=false")
        await running.enter_async_context(_program(assets / "kube-controller-manager", folder, *controllers))
        yield kubeconfig, away


@asynccontextmanager
async def _api_server(assets: Path, port: int, etcd: int, key: Path, folder: Path) -> AsyncIterator[None]:
    """It answers once this is entered."""
    async with _program(assets / "kube-apiserver", folder, *_api_flags(port, etcd, key, folder)):
        await until(lambda: _answers(port), 60)
        yield


def _etcd(port: int, peer: int, folder: Path) -> list[str]:
    url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
    ]


def _api_flags(port: int, etcd: int, key: Path, folder: Path) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",  # or it looks for a default route, and ends where there is none
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--service-cluster-ip-range=10.0.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
    ]


@asynccontextmanager
async def _program(path: Path, folder: Path, *args: str) -> AsyncIterator[None]:
    with (folder / f"{path.name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(str(path), *args, stdout=log, stderr=log, env=os.environ)
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, command


async def _answers(port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"https://127.0.0.1:{port}/readyz", ssl=context) as answer,
        ):
            return answer.status == 200
    except aiohttp.ClientError:
        return False
