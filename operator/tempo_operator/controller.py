"""Makes the cluster hold what its pools ask for: gather what is known, decide, write.

Everything here is level-triggered: an event only says that something is worth a look, and a look compares all that is
wanted with all that is there. Doing it twice, late, or after a restart changes nothing.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from tempo_operator.conditions import Condition, Problem, Reason, written
from tempo_operator.drift import Patience, content, covers, same_version
from tempo_operator.events import Note, event, transitions
from tempo_operator.health import pod_problem, workload
from tempo_operator.kinds import CHILDREN, DEPLOYMENT, EVENT, POD, POOL, SLO_CLASS, STATEFUL_SET, Kind, kind_of
from tempo_operator.kube import Document, Kube, KubeError, RefusedError
from tempo_operator.manifests import Options, pool_objects
from tempo_operator.manifests.names import POOL_LABEL, Names
from tempo_operator.measure import WINDOW_S, Figures, Meter
from tempo_operator.reconcile import Plan, class_names, name_conflict, owned_by, parse_class, plan
from tempo_operator.scrape import Scraper
from tempo_operator.status import State, next_status, worth_writing
from tempo_operator.store import PoolKey, Store
from tempo_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

Key = tuple[Kind, str, str]
"""Kind, namespace and name of a pool or class."""
_WORKERS: Final = 24
_RETRY_S: Final = 2.0
_AGAIN_S: Final = 60.0
"""When to try again what the API refused; somebody may have granted it."""
_SAY_AGAIN_S: Final = 300.0
"""How often the same kind of event is worth saying of a pool."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the controller goes about it; times in seconds."""

    identity: str
    namespaces: Collection[str] | None
    """Whose pools; None: all."""
    look_s: float = 15.0
    """How often the pods' metrics are read."""
    resync_s: float = 300.0
    """How often everything is listed again."""


class Controller:
    """One per process; acts while `lead` runs, and only learns otherwise.

    Args:
        kube: the API.
        scraper: reads metrics.
        options: of the pools' objects.
        settings: of the controller.

    """

    def __init__(self, kube: Kube, scraper: Scraper, options: Options, settings: Settings) -> None:
        self._kube = kube
        self._scraper = scraper
        self._options = options
        self._settings = settings
        self._store = Store(POOL_LABEL)
        self._queue: WorkQueue[Key] | None = None
        self._odd: dict[PoolKey, dict[tuple[Kind, str], str]] = {}
        self._meters: dict[PoolKey, Meter] = {}
        self._figures: dict[PoolKey, Figures | None] = {}
        self._written_s: dict[PoolKey, float] = {}
        self._patience: Patience[PoolKey] = Patience()
        self._said_s: dict[tuple[PoolKey, str], float] = {}

    @property
    def kinds(self) -> list[Kind]:
        """What it must be told of."""
        children = [kind for kind in CHILDREN if self._options.pod_monitor or kind.group != "monitoring.coreos.com"]
        return [SLO_CLASS, POOL, *children, POD]

    @property
    def pools(self) -> int:
        """How many there are."""
        return len(self._store.pools)

    def saw(self, kind: Kind, change: str | None, document: Mapping[str, Any]) -> None:
        """A watch says that the object is there, or that it was deleted."""
        document = {"apiVersion": kind.api_version, "kind": kind.name, **document}
        if change == "DELETED":
            self._store.remove(kind, document)
        elif not self._store.put(kind, document):
            return
        self._touch(kind, document)

    async def lead(self) -> None:
        """Act until cancelled; first learn everything, or what is not known yet would look as if it were not there."""
        await self._list_all(until_done=True)
        self._queue = WorkQueue(self._look)
        for name in self._store.classes:
            self._queue.add((SLO_CLASS, "", name))
        for key in self._store.pools:
            self._queue.add((POOL, *key))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._queue.run(_WORKERS))
                group.create_task(self._keep_in_step())
                group.create_task(self._keep_looking())
        finally:
            self._queue = None
            self._figures.clear()  # these two go stale while another leads
            self._meters.clear()

    # -- what to look at --------------------------------------------------------------------------------------------

    def _touch(self, kind: Kind, document: Document) -> None:
        if self._queue is None:
            return
        if kind is SLO_CLASS:
            name = document["metadata"]["name"]
            self._queue.add((SLO_CLASS, "", name))
            for key, pool in self._store.pools.items():
                names = class_names(pool)
                if names is None or name in names:
                    self._queue.add((POOL, *key))
        elif pool_key := self._store.pool_of(kind, document):
            self._queue.add((POOL, *pool_key))

    async def _keep_in_step(self) -> None:
        """List everything now and then, and look at what has changed."""
        while True:
            await asyncio.sleep(self._settings.resync_s)
            await self._list_all()

    async def _list_all(self, *, until_done: bool = False) -> None:
        """List every kind; where that fails, leave it at that or begin again."""
        while True:
            try:
                for kind in self.kinds:
                    try:
                        await self._list(kind)
                    except RefusedError as error:
                        if error.status != 404:  # that kind is gone, and so are its objects
                            raise
            except KubeError as error:
                log.warning("can't list what there is: %s", error)
                if until_done:
                    await asyncio.sleep(max(_RETRY_S, error.retry_after_s or 0.0))
                    continue
            return

    async def _list(self, kind: Kind) -> None:
        everywhere = self._settings.namespaces is None or not kind.namespaced
        namespaces = [None] if everywhere else self._settings.namespaces or ()
        selector = "" if kind in {POOL, SLO_CLASS} else POOL_LABEL
        listed = [await self._kube.list(kind, namespace, selector) for namespace in namespaces]
        documents = [document for page, _ in listed for document in page]
        for document in self._store.replace(kind, documents, min(version for _, version in listed)):
            self._touch(kind, document)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._settings.look_s)
            await asyncio.gather(*map(self._read_metrics, list(self._store.pools)))

    async def _read_metrics(self, key: PoolKey) -> None:
        pods = self._parts_of(key, POD)
        readings = await self._scraper.read(pods)
        meter = self._meters.setdefault(key, Meter())
        meter.forget(set(meter.pods) - {pod["metadata"]["name"] for pod in pods})
        now_s = time.monotonic()
        figures = meter.note(readings, now_s) if readings else None
        if figures is None and meter.silent_s(now_s) < WINDOW_S:
            return  # one lost answer is no reason to know nothing
        if figures is not None and figures.seconds == 0.0:
            return  # and one reading says nothing yet
        if figures != self._figures.get(key) or key not in self._figures:
            self._figures[key] = figures
            if self._queue is not None:
                self._queue.add((POOL, *key))

    # -- a look -----------------------------------------------------------------------------------------------------

    async def _look(self, key: Key) -> None:
        kind, namespace, name = key
        if kind is SLO_CLASS:
            await self._look_at_class(name)
        else:
            await self._look_at_pool((namespace, name))

    async def _look_at_pool(self, key: PoolKey) -> None:
        pool = self._store.pools.get(key)
        if pool is None:
            self._forget(key)
            return
        if "deletionTimestamp" in pool["metadata"]:
            return
        build = partial(pool_objects, options=self._options)
        todo = plan(pool, self._store.classes, self._store.parts(key), build, self._odd.get(key, {}))
        wait_s = self._patience.wait_s(key, time.monotonic()) if todo.drifted else 0.0
        if wait_s and self._queue is not None:
            log.warning("pool %s/%s: somebody keeps changing %s", *key, ", ".join(todo.drifted))
            self._queue.add_after((POOL, *key), wait_s)
            return
        problem = todo.problem or await self._carry_out(key, pool, todo)
        await self._write_status(key, pool, problem)

    async def _carry_out(self, key: PoolKey, pool: Document, todo: Plan) -> Problem | None:
        uid = pool["metadata"]["uid"]
        try:
            in_the_way = await asyncio.gather(*map(self._find, todo.create))
            for document, there in zip(todo.create, in_the_way, strict=True):
                if there is not None and not owned_by(there, uid):
                    return self._look_again(key, name_conflict(kind_of(document), document["metadata"]["name"]))
            changed = [await self._apply(key, document) for document in (*todo.create, *todo.apply)]
        except RefusedError as error:
            if not error.final:
                raise
            return self._look_again(key, Problem(Reason.APPLY_REFUSED, str(error)))
        for document in todo.delete:
            await self._kube.delete(kind_of(document), document)
        if repaired := [name for name in todo.drifted if name in changed]:
            text = f"put back what other hands had changed: {', '.join(repaired)}"
            await self._say(key, pool, Note("Normal", "DriftRepaired", text))
        return None

    async def _find(self, document: Document) -> Document | None:
        metadata = document["metadata"]
        return await self._kube.get(kind_of(document), metadata["namespace"], metadata["name"])

    async def _apply(self, key: PoolKey, document: Document) -> str | None:
        """Returns the object in words, or None if it stays as it was: the API keeps some things in words of its own."""
        kind, name = kind_of(document), document["metadata"]["name"]
        before = self._store.parts(key).get((kind, name))
        answer = await self._kube.apply(kind, document)
        self._store.put(kind, answer)
        odd = self._odd.setdefault(key, {})
        odd.pop((kind, name), None)
        if not covers(answer, document):
            odd[kind, name] = content(answer)
        return None if before is not None and same_version(answer, before) else f"{kind.name} {name}"

    def _look_again(self, key: PoolKey, problem: Problem) -> Problem:
        if self._queue is not None:
            self._queue.add_after((POOL, *key), _AGAIN_S)
        return problem

    # -- status -----------------------------------------------------------------------------------------------------

    async def _write_status(self, key: PoolKey, pool: Document, problem: Problem | None) -> None:
        now = _now()
        new, old = next_status(pool, self._state(key, pool, problem), now), pool.get("status") or {}
        written_s = self._written_s.get(key, 0.0)
        if not worth_writing(new, old, time.monotonic() - written_s):
            return
        await self._apply_status(POOL, pool, new)
        self._written_s[key] = time.monotonic()
        for note in transitions(old.get("conditions") or (), new["conditions"]):
            await self._say(key, pool, note)

    def _state(self, key: PoolKey, pool: Document, problem: Problem | None) -> State:
        figures = self._figures.get(key)
        names = Names(key[1], key[0])
        parts = self._store.parts(key)
        problem = problem or pod_problem(self._parts_of(key, POD))
        if problem is None and figures and figures.fallback:
            text = f"the engine orders its queue itself in {', '.join(figures.fallback)}; see the sidecar's metrics"
            problem = Problem(Reason.SCHEDULER_FALLBACK, text)
        return State(
            engines=workload(parts.get((STATEFUL_SET, names.engines))),
            routers=workload(parts.get((DEPLOYMENT, names.router))),
            problem=problem,
            figures=figures,
            measured=key in self._figures,
            selector=f"{POOL_LABEL}={key[1]},app.kubernetes.io/component=engine",
            url=names.router_url(pool["spec"].get("router") or {}),
        )

    async def _look_at_class(self, name: str) -> None:
        document = self._store.classes.get(name)
        if document is None or "deletionTimestamp" in document["metadata"]:
            return
        found = parse_class(document)
        accepted = (
            Condition("Accepted", "False", found.reason, found.message)
            if isinstance(found, Problem)
            else Condition("Accepted", "True", Reason.ACCEPTED)
        )
        old, generation = document.get("status") or {}, document["metadata"].get("generation", 1)
        conditions = written([accepted], old.get("conditions") or (), generation, _now())
        new = {"observedGeneration": generation, "conditions": conditions}
        if new != old:
            await self._apply_status(SLO_CLASS, document, new)

    async def _apply_status(self, kind: Kind, seen: Document, status: Document) -> None:
        metadata = {name: seen["metadata"][name] for name in ("namespace", "name", "uid") if name in seen["metadata"]}
        document = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "status": status}
        answer = await self._kube.apply(kind, document, "status")
        self._store.put(kind, answer)
        if answer["metadata"].get("generation") != seen["metadata"].get("generation"):
            self._touch(kind, answer)  # somebody changed it meanwhile, and the event of that will be no news

    async def _say(self, key: PoolKey, pool: Document, note: Note) -> None:
        """Post an event; one that can't be posted is only logged, for the status says the same."""
        log.info("pool %s/%s: %s: %s", *key, note.reason, note.message)
        now_s = time.monotonic()
        if now_s - self._said_s.get((key, note.message), -_SAY_AGAIN_S) < _SAY_AGAIN_S:
            return
        self._said_s = {said: at_s for said, at_s in self._said_s.items() if now_s - at_s < _SAY_AGAIN_S}
        self._said_s[key, note.message] = now_s
        try:
            await self._kube.create(EVENT, event(pool, note, self._settings.identity, _now()))
        except KubeError as error:
            log.warning("can't post the event: %s", error)

    def _parts_of(self, key: PoolKey, kind: Kind) -> list[Document]:
        return [part for (kind_, _), part in self._store.parts(key).items() if kind_ is kind]

    def _forget(self, key: PoolKey) -> None:
        for known in (self._odd, self._meters, self._figures, self._written_s):
            known.pop(key, None)
        self._patience.forget(key)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
