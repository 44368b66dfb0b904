"""What is checked before anything is started, so that the error names its cause and not its consequence."""

import socket
from contextlib import ExitStack

import psutil

from tempo_operator.commands import LOOPBACK
from tempo_operator.local.errors import UpError
from tempo_operator.local.parts import Ports


def choose_ports(router: int, replicas: int) -> Ports:
    """Free ports for all parts, the router's being `router` (0: any).

    Raises:
        UpError: where something listens there already, or it may not be used.

    """
    with ExitStack() as held:
        try:
            router = _hold(held, router)
        except PermissionError as error:
            raise UpError(f"port {router} is not for ordinary users; choose one above 1023 with --port") from error
        except OSError as error:
            raise UpError(f"port {router} is taken; stop what listens there, or choose another with --port") from error
        free = [_hold(held, 0) for _ in range(2 * replicas)]
    return Ports(router, tuple(free[:replicas]), tuple(free[replicas:]))


def require_memory(needed_gb: float) -> None:
    """Check that the engines will fit.

    Raises:
        UpError: where they won't.

    """
    free_gb = psutil.virtual_memory().available / 1e9
    if free_gb < needed_gb:
        raise UpError(
            f"not enough memory: the engines need about {needed_gb:.1f} GB and {free_gb:.1f} GB are free; "
            "close other programs, or ask for fewer replicas or a smaller model"
        )


def _hold(held: ExitStack, port: int) -> int:
    probe = held.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind((LOOPBACK, port))
    bound: int = probe.getsockname()[1]
    return bound
