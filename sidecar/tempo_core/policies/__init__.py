"""Scheduling policies: peers with one signature, so that comparing two is a matter of a name."""

from collections.abc import Callable, Mapping
from typing import Final

from tempo_core.policies.andes import andes
from tempo_core.policies.attained import atlas, plas
from tempo_core.policies.fairness import vtc
from tempo_core.policies.gateways import llmd, smg
from tempo_core.policies.gmax import gmax
from tempo_core.policies.groups import qlm
from tempo_core.policies.guards import scorpio
from tempo_core.policies.ordered import edf, fcfs, priority
from tempo_core.policies.sized import sjf, srtf
from tempo_core.policies.stallfree import coloc, sarathi
from tempo_core.policies.tempo import tempo
from tempo_core.snapshot import Plan, Snapshot

Policy = Callable[[Snapshot, float], Plan]

POLICIES: Final[Mapping[str, Policy]] = {
    "fcfs": fcfs,
    "priority": priority,
    "sarathi": sarathi,
    "edf": edf,
    "sjf": sjf,
    "srtf": srtf,
    "plas": plas,
    "atlas": atlas,
    "vtc": vtc,
    "llmd": llmd,
    "smg": smg,
    "qlm": qlm,
    "coloc": coloc,
    "andes": andes,
    "scorpio": scorpio,
    "gmax": gmax,
    "tempo": tempo,
}
"""By name; `TempoPool.spec.scheduler.policy` offers some of them."""

schedule: Final = tempo
"""The policy that Tempo is named for."""
