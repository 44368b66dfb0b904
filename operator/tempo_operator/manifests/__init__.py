"""What a pool is made of in a cluster, as pure functions: manifests in, Kubernetes objects out.

    pool_objects(pool, classes, options)    everything the operator applies for a pool, in the order of application
    options.Options                         what the operator's own settings say
    names                                   what the children are called, their labels and ports

Nothing here talks to a cluster. Equal input gives equal output, so that what is applied twice changes nothing.
"""

from tempo_operator.manifests.options import Options
from tempo_operator.manifests.pool import pool_objects

__all__ = ["Options", "pool_objects"]
