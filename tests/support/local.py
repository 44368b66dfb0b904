"""What the tests of `tempo up` share: manifests, and parts that are small Python servers."""

import socket
import sys
from pathlib import Path

from tempo_operator.local.models import Model
from tempo_operator.local.parts import Local, Part, Ports

MANIFESTS = """
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: chat}
spec: {pattern: Latency, objectives: {ttft: 2s, tbt: 150ms}, default: true}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: batch}
spec: {pattern: BestEffort, gain: {weight: 0.5}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {name: small}
spec:
  model: /models/small
  replicas: 2
  engine: {args: ["--max-model-len=512"], env: [{name: OMP_NUM_THREADS, value: "2"}]}
"""

FAKE_SERVER = """
import http.server, os, signal, sys, time
port, notes, name, mood = int(sys.argv[1]), *sys.argv[2:]
note = lambda what: open(notes, "a").write(f"{what} {name}\\n")
if mood == "crash":
    sys.exit("the fake crashed on purpose")
def stop(*_):
    note("end")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mood == "stubborn" else stop)
class FakePart(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if mood == "never ready" else 200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", port), FakePart)
note("start")
server.serve_forever()
"""


_given: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on, never the same twice."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def fake_part(folder: Path, name: str, *depends_on: str, mood: str = "good", **fields) -> Part:
    """A part that notes its start and its end in `folder/notes`; `mood` says how it behaves."""
    port = free_port()
    argv = (sys.executable, "-c", FAKE_SERVER, str(port), str(folder / "notes"), name, mood)
    defaults = {"ready_within_s": 20.0, "end_within_s": 20.0}
    return Part(name, argv, f"http://127.0.0.1:{port}", depends_on=depends_on, **defaults | fields)


def local(folder: Path, replicas: int = 2, **fields) -> Local:
    """A run on made-up ports."""
    ports = Ports(8000, tuple(9000 + r for r in range(replicas)), tuple(9100 + r for r in range(replicas)))
    return Local(
        **{"folder": folder, "ports": ports, "model": Model("/models/small", offline=True), "python": "py"} | fields
    )
