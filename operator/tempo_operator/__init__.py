"""Pools made real: in a cluster (`tempo operator`), or as processes of one machine (`tempo up`, in `local`).

commands, manifests          what a pool is made of; pure
reconcile, drift             what is to be applied, created and deleted; pure
health, measure, status      what the pool's status says; `conditions` and `events` are its words; pure
store, workqueue             what is known of the cluster, and what is to be looked at
kube, scrape, election       the API, the pods' metrics, and the lease that says who acts
controller, runner           gather, decide, write; and the process around that, where kopf watches

Only `cli`, `kube` and `runner` know kopf; what is marked pure neither waits nor looks at a clock.
"""
