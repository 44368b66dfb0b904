"""Who may ask, what is written down of it, and how it is kept from others' eyes.

===========  =========================================================================================
`keys`       a file of API keys, parsed strictly
`principal`  what the holder of a key may have: tenant, classes, and how much at once
`gate`       keys in force, followed as their file changes; refuses who has none
`log`        one line of JSON a request: never a prompt, never a key
`lines`      carries lines to a file or to stderr without holding up a request
`tls`        a certificate and its key, followed as their files change
`follow`     how both are followed
===========  =========================================================================================

Each part installs itself into the router's app, and the router works without any of them. What a handler must know is
in the request: its `PRINCIPAL` (`principal_of`), and its `ENTRY` in the log (`entry_of`).
"""

from tempo_router.access.gate import Gate, principal_of
from tempo_router.access.keys import KeysError
from tempo_router.access.lines import Lines
from tempo_router.access.log import AccessLog, Entry, entry_of
from tempo_router.access.principal import Principal
from tempo_router.access.tls import TLSError, TLSFiles

__all__ = [
    "AccessLog",
    "Entry",
    "Gate",
    "KeysError",
    "Lines",
    "Principal",
    "TLSError",
    "TLSFiles",
    "entry_of",
    "principal_of",
]
