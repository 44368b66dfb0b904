"""The operator as a process: kopf watches, a Lease elects, the controller acts, and probes are answered.

kopf's handlers here only pass on what was seen. They keep no state in the objects, so that kopf writes neither
annotations nor finalizers into them, and a restart changes nothing in the cluster.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import aiohttp
import kopf
from aiohttp import web

from tempo_api.http.server import make_app
from tempo_operator.controller import Controller, Settings
from tempo_operator.election import Candidate, Election, Terms
from tempo_operator.kinds import POD_MONITOR, POOL, SLO_CLASS, Kind
from tempo_operator.kube import Kube, KubeError, log_in
from tempo_operator.manifests import Options
from tempo_operator.manifests.names import POOL_LABEL
from tempo_operator.metrics import registry as metrics_registry
from tempo_operator.scrape import Scraper

log = logging.getLogger(__name__)

_STALE_S: Final = 60.0
"""The API has been silent for so long: not ready."""
_CLEAN_UP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Config:
    """The command line."""

    options: Options
    settings: Settings
    terms: Terms
    lease_namespace: str | None
    lease_name: str
    host: str
    port: int


class Backoffs:
    """How long to wait before one attempt and the next, without end: an API that is away for an hour comes back."""

    def __iter__(self) -> Iterator[float]:
        delay_s = 0.5
        while True:
            yield delay_s
            delay_s = min(2 * delay_s, 8.0)


class Operator:
    """Everything that one process holds.

    Args:
        config: the command line.

    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._election: Election | None = None
        self._kube = Kube(log_in, lambda: self._election is not None and self._election.leading)
        self._controller: Controller | None = None
        self._resources = AsyncExitStack()
        self._running: asyncio.Task[None] | None = None
        self._noticing: asyncio.Task[None] | None = None
        self._outdated = False
        self._stop = asyncio.Event()
        self._registry = kopf.OperatorRegistry()
        self.failure: BaseException | None = None
        """Why it ended, if not because it was asked to."""

    def run(self) -> bool:
        """Run until SIGTERM or SIGINT, or until the API has other kinds than it had; returns whether to begin again.

        kopf looks up once, as it starts, which of the kinds that are to be watched there are.

        Raises:
            kopf.LoginError: where no cluster is named.
            Exception: what made it end, also in `failure` where that has an explanation.

        """
        log_in()  # kopf would try again and again
        kopf.on.login(registry=self._registry)(lambda **_: log_in())
        kopf.on.startup(registry=self._registry, errors=kopf.ErrorsMode.PERMANENT)(self._start)
        kopf.on.cleanup(registry=self._registry)(self._end)
        namespaces = self._config.settings.namespaces
        kopf.run(
            registry=self._registry,
            settings=_kopf_settings(),
            standalone=True,
            clusterwide=namespaces is None,
            namespaces=list(namespaces or ()),
            stop_flag=self._stop,
        )
        return self._outdated

    async def _start(self, **_: Any) -> None:
        try:
            await self._set_up()
        except BaseException:
            await self._resources.aclose()
            raise

    async def _set_up(self) -> None:
        kube = await self._resources.enter_async_context(self._kube)
        await self._serve_probes()
        has_monitors = await self._wait_for_api()
        session = await self._resources.enter_async_context(aiohttp.ClientSession(trust_env=False))
        config = self._config
        options = replace(config.options, pod_monitor=has_monitors)
        controller = self._controller = Controller(kube, Scraper(session), options, config.settings)
        self._watch(controller)
        namespace = config.lease_namespace or kube.namespace or "default"
        candidate = Candidate(config.settings.identity, config.terms)
        self._election = Election(candidate, namespace, config.lease_name, config.terms)
        self._running = asyncio.create_task(self._election.run(kube, controller.lead))
        self._running.add_done_callback(self._ended)
        self._noticing = asyncio.create_task(self._notice_monitors(has_monitors))

    def _ended(self, running: "asyncio.Task[None]") -> None:
        """The election goes on for ever unless it is cancelled; anything else ends the process, to be started anew."""
        if not running.cancelled():
            self.failure = running.exception()
            log.critical("the controller failed", exc_info=self.failure)
            self._stop.set()

    async def _notice_monitors(self, had: bool) -> None:
        """Wait until the cluster is given PodMonitors, or loses them, and have everything begin anew."""
        while not self._outdated:
            await asyncio.sleep(self._config.settings.resync_s)
            with suppress(KubeError):
                self._outdated = await self._kube.serves(POD_MONITOR) != had
        log.info("the cluster has %s PodMonitors", "lost its" if had else "learned of")
        self._stop.set()

    async def _end(self, **_: Any) -> None:
        if self._noticing is not None:
            self._noticing.cancel()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running}, timeout=_CLEAN_UP_S)
        if self._election is not None:
            await self._election.resign(self._kube)
        await self._resources.aclose()
        self._stop.set()  # kopf waits five seconds for the task that waits for this

    def _watch(self, controller: Controller) -> None:
        for kind in controller.kinds:

            async def saw(event: Mapping[str, Any], kind: Kind = kind, **_: Any) -> None:
                controller.saw(kind, event["type"], event["object"])

            kopf.on.event(kind.group, kind.version, kind.plural, id=kind.plural, registry=self._registry)(saw)

    async def _wait_for_api(self) -> bool:
        """Wait until the API has Tempo's own kinds; whether it has PodMonitors too."""
        while True:
            try:
                if await self._kube.serves(POOL) and await self._kube.serves(SLO_CLASS):
                    return await self._kube.serves(POD_MONITOR)
                log.warning("the cluster has no TempoPool and SLOClass yet; install Tempo's CRDs")
            except KubeError as error:
                log.warning("waiting for the API: %s", error)
            await asyncio.sleep(2.0)

    async def _serve_probes(self) -> None:
        metrics = metrics_registry(self._leading, self._pools, lambda: self._kube.requests)
        app = make_app(
            ready=self._ready,
            registry=metrics,
            on_error=lambda *_: None,
            max_body_bytes=1024,
            max_in_flight=32,
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._resources.push_async_callback(runner.cleanup)
        host, port = self._config.host, self._config.port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            self.failure = OSError(f"can't listen on {host}:{port} ({error.strerror}); choose a --port")
            raise self.failure from error

    async def _ready(self) -> dict[str, Any]:
        fresh = time.monotonic() - self._kube.answered_s < _STALE_S
        return {"ready": self._controller is not None and fresh, "leading": self._leading(), "pools": self._pools()}

    def _leading(self) -> bool:
        return self._election is not None and self._election.leading

    def _pools(self) -> int:
        return self._controller.pools if self._controller else 0


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # needs no right to see all namespaces and CRDs
    settings.networking.request_timeout = 60.0
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = Backoffs()
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage()  # were it ever to write any
    settings.queueing.idle_timeout = settings.queueing.exit_timeout = 0.5  # a shutdown waits for them
    settings.process.ultimate_exiting_timeout = 30.0
    settings.watching.label_selectors[_is_part] = POOL_LABEL
    return settings


def _is_part(resource: Any) -> bool:
    return bool(resource.group != POOL.group)
