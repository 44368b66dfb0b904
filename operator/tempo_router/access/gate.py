"""The keys in force, and the gate that asks for them."""

import hmac
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tempo_api.http.server import PROBES, Handler
from tempo_api.intake import Grant
from tempo_api.openai import APIError, Ending
from tempo_api.reload import file_stamp
from tempo_router.access.follow import follow
from tempo_router.access.keys import Key, KeysError, digest, read_keys
from tempo_router.access.log import entry_of
from tempo_router.access.principal import ALL, ANYBODY, Principal

log = logging.getLogger(__name__)

PRINCIPAL: Final = web.RequestKey("principal", Principal)
_AUTHORIZATION: Final = "authorization"
_INDEX: Final = 16
"""Bytes of a digest by which its key is found; no two keys ever share so many."""
_NOBODY: Final = (bytes(32), ANYBODY)
"""The digest of no key, so that a guess is compared with something wherever it leads."""


def principal_of(request: web.Request) -> Principal:
    """Who asks; anybody, where no keys are asked for."""
    found: Principal = request.get(PRINCIPAL, ANYBODY)
    return found


class Gate:
    """Lets in who has a key. A changed file takes effect at once; a bad change is logged once, and changes nothing.

    Args:
        path: the file of keys.

    Raises:
        KeysError: if the file is bad at the start, for then there is nothing to go on with.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = file_stamp(path)
        self._in_flight: dict[str, Counter[str]] = {}
        self._known: dict[bytes, tuple[bytes, Principal]] = {}
        self._take_over(read_keys(path))

    def admit(self, headers: Mapping[str, str]) -> Principal:
        """Whose key the request carries, as `Authorization: Bearer KEY`.

        How long this takes depends neither on how many keys there are nor on how near a guess comes: what is compared
        are digests, which for a near guess are no nearer, and the comparison that decides takes always the same time.

        Raises:
            APIError: `UNAUTHORIZED`.

        """
        scheme, _, key = headers.get(_AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not (key := key.strip()):
            raise APIError(Ending.UNAUTHORIZED, "An API key is needed; send it as Authorization: Bearer KEY.")
        presented = digest(key)
        known, principal = self._known.get(presented[:_INDEX], _NOBODY)
        if not hmac.compare_digest(known, presented):
            raise APIError(Ending.UNAUTHORIZED, "The API key is not known here.")
        return principal

    def poll(self) -> None:
        """Take the file's keys over, if it has changed to good ones since the last call. Never raises."""
        stamp = file_stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._take_over(read_keys(self._path))
        except KeysError as error:
            log.error("%s; going on with the %d keys known", error, len(self._known))
        else:
            log.info("%s: %d keys", self._path.name, len(self._known))

    def install(self, app: web.Application) -> None:
        """Ask for a key at every path but the probes', and follow the file while the app runs."""
        app.middlewares.append(self._middleware)
        app.cleanup_ctx.append(follow(self.poll, in_thread=True))  # a thousand keys take a while to parse

    def _take_over(self, keys: Iterable[Key]) -> None:
        """What tenants have in flight goes on counting; requests under way keep the principal that they came with."""
        keys = list(keys)
        self._in_flight = {key.name: self._in_flight.get(key.name, Counter()) for key in keys}
        self._known = {key.digest[:_INDEX]: (key.digest, self._principal(key)) for key in keys}

    def _principal(self, key: Key) -> Principal:
        most = {} if key.max_concurrent_requests is None else {ALL: key.max_concurrent_requests}
        return Principal(
            Grant(tenant=key.name, classes=key.classes),
            ceilings=most | key.ceilings,
            in_flight=self._in_flight[key.name],
            own_headers=frozenset({_AUTHORIZATION}),
        )

    @property
    def _middleware(self) -> Any:
        @web.middleware
        async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in PROBES:
                return await handler(request)
            principal = request[PRINCIPAL] = self.admit(request.headers)
            entry_of(request).tenant = principal.grant.tenant
            with principal.hold():
                return await handler(request)

        return ask
