"""The length model that reads the prompt: a quantile regression forest, grown out of process from what completed here.

features     a request as numbers: counts, hints and hashed words, never its text
sample       the completions to learn from: bounded, the latest likeliest, every class its share
grow         a forest from a sample, by quantile-forest; a process of its own (`python -m tempo_sidecar.forest.grow`)
trees        the forest as plain arrays, walked in the sidecar's own process
calibration  brings the shares of responses within each quantile back to nominal
trainer      runs `grow`, and survives whatever becomes of it
store        keeps the sample across restarts
model        all of it as a `tempo_sidecar.lengths.LengthModel`
"""
