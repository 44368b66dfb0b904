"""The scheduler itself: pure functions over frozen facts.

Nothing here reads a clock, draws a random number, logs or does I/O; time is always an argument, in seconds. The vLLM
plug-in and every simulation call the same `schedule`, so what is measured is what ships. Only the standard library
and numpy are imported, and an import contract proves it.

=============  ========================================================================================
`slo`          what a class of traffic is promised: pattern, objectives, gain rule
`gain`         what a request earned, token by token (service gain; goodput with `decay: hard`)
`lengths`      how long a response will be: a quantile grid and what it says once g tokens are out
`steptime`     how long an engine step takes, fitted online
`snapshot`     the facts a policy sees and the plan it returns
`density`      what each request can still earn, and what it costs
`policies`     `tempo`, `fcfs`, `priority`: peers with one signature
`programs`     which stage of a program a call belongs to
`graphs`       what a running program will still need, from how programs like it went
`routing`      which replica a request goes to
`admission`    who waits at the router, and who is next
`crowds`       which tenant has more at the engines than its part
=============  ========================================================================================
"""
