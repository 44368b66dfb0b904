"""How late a server's event loop is, seen from outside: the time `/healthz` takes, asked again and again.

    python -m tempo_bench.routers.lag PORT SECONDS

A process of its own, as the load generator's loop is late too. Prints the times in seconds as a JSON list. They
hold the way there and back and whatever else had the processor: the loop's own lag is no more than this.
"""

import json
import socket
import sys
import time
from typing import Final

_EVERY_S: Final = 0.01
_TIMEOUT_S: Final = 10.0
_REQUEST: Final = b"GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n"


def measure(port: int, seconds: float) -> list[float]:
    """Times of the answers. One that does not come within ten seconds counts as ten, and nothing more is asked.

    Raises:
        OSError: if the server can't be reached, or hangs up.

    """
    times: list[float] = []
    until_s = time.perf_counter() + seconds
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        while (asked_s := time.perf_counter()) < until_s:
            connection.sendall(_REQUEST)
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                return [*times, _TIMEOUT_S]
            if not answer.startswith(b"HTTP/1.1 200"):
                raise ConnectionError("/healthz is not well")
            times.append(time.perf_counter() - asked_s)
            time.sleep(_EVERY_S)
    return times


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), float(sys.argv[2]))))  # noqa: T201  # its output
