"""Load for a server of any kind: what is asked when, who asks it, and what came of it.

`traffic` says what is asked, `arrivals` when, `driving` asks it and keeps time, `target`, `worker`
and `gateway` know how a Tectum is asked, `report` and `chart` say what came of it. `driving` asks
whatever it is handed, so that benchmarks hold other servers to the same load.
"""
