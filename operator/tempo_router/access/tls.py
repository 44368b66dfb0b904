"""A certificate and its key, from files that may change while the router runs."""

import logging
import ssl
from pathlib import Path

from aiohttp import web

from tempo_api.reload import file_stamp
from tempo_router.access.follow import follow

log = logging.getLogger(__name__)


class TLSError(ValueError):
    """Files that can't be used; the text is one line: which, what is wrong, and what to give."""


class TLSFiles:
    """TLS 1.2 and up with a certificate and its key, in PEM.

    Changed files count for every connection that is made afterwards; a bad change is logged once, and changes nothing.

    Args:
        certificate: with the intermediate ones, if there are.
        key: its private key, not encrypted.

    Raises:
        TLSError: if the files are bad at the start.

    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._seen = self._stamps()
        self.context = self._load(_context())
        """For the server, as long as it runs."""

    def poll(self) -> bool:
        """Take the files over if they have changed to good ones since the last call; whether they had. Never raises."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            self._load(_context())  # first apart: a bad pair would spoil the context that is in use
            self._load(self.context)
        except TLSError as error:
            log.error("%s; going on with the certificate known", error)
            return False
        log.info("%s: new certificate taken over", self._files[0].name)
        return True

    def install(self, app: web.Application) -> None:
        """Follow the files while the app runs."""
        app.cleanup_ctx.append(follow(self.poll))

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [file_stamp(path) for path in self._files]

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        certificate, key = self._files
        for path in self._files:
            _check_readable(path)
        try:
            context.load_cert_chain(certificate, key, password="")  # never ask for one at a terminal
        except OSError as error:  # SSLError among them
            reason = f" ({error.reason})" if isinstance(error, ssl.SSLError) and error.reason else ""
            raise TLSError(
                f"{certificate}, {key}: no certificate and its key{reason}; give two PEM files, the key not encrypted"
            ) from error
        return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _check_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise TLSError(f"{path}: can't be read: {error.strerror}") from error
