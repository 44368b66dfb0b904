"""How patient the router is with its replicas."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """When a replica counts as stale, as lost, and as worse than its peers; and how it comes back."""

    stale_s: float = 1.0
    """Who pushes its state and has said nothing for this long is stale: four heartbeats."""
    losses: int = 2
    """Probes or streams in a row that broke, were refused or fell silent; one lost packet should move no traffic."""
    gone_s: float = 5.0
    """Who is lost and has said nothing for so long is done for. A process that was only stopped goes on with what it
    has, and one that died says so: its connections break."""
    probe_every_s: float = 0.5
    probe_timeout_s: float = 2.0
    first_pause_s: float = 0.05
    """Before a stream that broke is opened again; twice as long each time."""
    longest_pause_s: float = 1.0
    ask_again_s: float = 10.0
    """How long a sidecar that has no stream, or sends what no one can read, is probed before it is asked again."""

    failures: int = 2
    """Requests in a row that did not get through."""
    window_s: float = 10.0
    """How long answers count."""
    least_answers: int = 10
    """Within the window; fewer say nothing, and as many streams for their first bytes to be compared."""
    error_share: float = 0.5
    """Of the latest answers, and twice the peers' share: 5xx that only one replica gives are its own fault."""
    slower: float = 5.0
    """Times the peers' median time to a stream's first byte."""
    slow_s: float = 0.5
    """A median below this is not slow, whatever the peers'."""
    silent_s: float = 10.0
    """Who owes streams and has brought nothing for so long, and as long as all that it has would take, hangs."""
    out_s: float = 1.0
    """The first ejection; each one that follows soon after is twice as long."""
    longest_out_s: float = 60.0
