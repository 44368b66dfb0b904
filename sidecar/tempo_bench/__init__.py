"""Seeded load against real endpoints, and reports of what came of it.

=================================  ====================================================================================
`workload`, `prompts`              what is sent and when: pure, seeded, fixed before the first request leaves
`client`, `driver`                 send it and stamp what comes back; open loop, closed loop for finding capacity
`accounting`, `summary`            judge it: gain and attainment by the core's ledgers, percentiles; pure
`capacity`                         units per second at saturation; pure
`progress`, `tables`, `figures`    show it: while it lasts, in the terminal, as pictures
`report`                           the HTML file
`results`                          `summary.json` and `requests.jsonl`
`pool`, `measure`                  a pool as a child process; one workload through one endpoint
`demo`, `single`                   `tempo bench demo` and `tempo bench load`
`replay`, `workload_file`          `tempo bench replay`: a trace, with its own lengths
`overhead`, `hops`, `passes`       `tempo bench overhead`, with `stand_in` as its engine and `passthrough` as its peer
=================================  ====================================================================================
"""
