"""What a bundle is worth on held-out episodes: every number beside its controls.

Each measure reads the bundle through the same predictor that serves it. `probes` are the
linear tools, the other modules one measure each, `report` runs them all and prints.
"""
