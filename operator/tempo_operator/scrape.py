"""Reads the metrics pages of a pool's pods."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

import aiohttp

from tempo_operator.manifests.names import COMPONENT_LABEL, ROUTER_PORT, SIDECAR_PORT, router_port
from tempo_operator.measure import Reading, parse_metrics

log = logging.getLogger(__name__)

_TIMEOUT: Final = aiohttp.ClientTimeout(total=3.0)
_AT_ONCE: Final = 32
_LARGEST: Final = 1 << 20
_PORTS: Final = {"router": ROUTER_PORT, "engine": SIDECAR_PORT}


class Scraper:
    """Asks pods, so many at a time and each within three seconds, however many there are."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._limit = asyncio.Semaphore(_AT_ONCE)

    async def read(self, pods: Iterable[Mapping[str, Any]]) -> dict[str, Reading]:
        """What the pods say, by name; those that don't answer are left out."""
        urls = {str(pod["metadata"]["name"]): url for pod in pods if (url := metrics_url(pod))}
        answers = await asyncio.gather(*map(self._ask, urls.values()))
        return {name: answer for name, answer in zip(urls, answers, strict=True) if answer is not None}

    async def _ask(self, url: str) -> Reading | None:
        try:
            # A router's certificate is for its Service's name; here its pod is asked by address.
            async with self._limit, self._session.get(url, timeout=_TIMEOUT, ssl=False) as answer:
                answer.raise_for_status()
                page = await answer.content.read(_LARGEST)
                while not answer.content.at_eof() and len(page) < _LARGEST:
                    page += await answer.content.read(_LARGEST - len(page))
            return parse_metrics(page.decode())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.debug("%s: %s", url, error)
            return None


def metrics_url(pod: Mapping[str, Any]) -> str | None:
    """Where a pod's metrics are, if it is ready."""
    port = _PORTS.get((pod["metadata"].get("labels") or {}).get(COMPONENT_LABEL, ""))
    status = pod.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    address = status.get("podIP")
    if not (port and ready and address):
        return None
    host = f"[{address}]" if ":" in address else address
    return f"{_scheme(pod)}://{host}:{port}/metrics"


def _scheme(pod: Mapping[str, Any]) -> str:
    ports = [port.get("name") for container in pod["spec"]["containers"] for port in container.get("ports") or ()]
    return "https" if router_port(tls=True) in ports else "http"
