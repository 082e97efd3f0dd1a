"""The policy set going: jobs, threads and the clock, and what callers and fronts are told."""
