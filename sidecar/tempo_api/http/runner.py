"""Runs an app with limits on the heads of requests, and with errors about them in OpenAI's shape."""

import logging
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from tempo_api.openai import APIError, Ending, error_body

log = logging.getLogger(__name__)

MOST_LINE_BYTES: Final = 8 << 10
"""Of the request line: method and path."""
MOST_FIELD_BYTES: Final = 8 << 10
"""Of one header, name and value: a long token or a cookie fits."""
MOST_FIELDS: Final = 100
"""Headers; an SDK behind two gateways sends some forty."""


class Runner(web.AppRunner):
    """Like `web.AppRunner`, whose own answer to a head that can't be read is plain text.

    It logs a traceback for it, too; and both may hold the bytes at fault, which may be a key.
    """

    def __init__(self, app: web.Application, **options: Any) -> None:
        options |= {"max_line_size": MOST_LINE_BYTES, "max_field_size": MOST_FIELD_BYTES, "max_headers": MOST_FIELDS}
        super().__init__(app, **options)

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # the app makes it, and can't be told of what class
        return server


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what reached no handler, and close the connection."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        error = head_error(exc)
        log.debug("a request from %s was refused: %s", request.remote, error)
        response = web.Response(body=error_body(error), status=error.ending.status, content_type="application/json")
        response.force_close()
        return response


def head_error(problem: BaseException | None) -> APIError:
    """What a parser's complaint is to a caller, without the bytes that it complains of."""
    if isinstance(problem, LineTooLong):
        message = f"A header is larger than {MOST_FIELD_BYTES} bytes, or the URL than {MOST_LINE_BYTES}."
    elif "Too many headers" in str(problem):
        message = f"There are more than {MOST_FIELDS} headers."
    else:
        return APIError(Ending.INVALID_VALUE, "The request is not valid HTTP.")
    return APIError(Ending.HEADERS_TOO_LARGE, message)
