"""HTTP is tested on both event loops: asyncio's own, on which all other tests run, and uvloop, which serves."""

import asyncio

import uvloop

ON_BOTH = {"test_http_upstream.py", "test_relay.py"}


def pytest_asyncio_loop_factories(item):
    loops = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ON_BOTH:
        loops["uvloop"] = uvloop.new_event_loop
    return loops
