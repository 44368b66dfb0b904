"""A simulated engine and fleet: what a policy would earn, without a GPU.

The policy that it calls is the one that ships (`tempo_core.policies`); the engine around it is a discrete-event model
of continuous batching. Nothing here reads a clock, so a run is a function of its workload, policy and seed.
"""
