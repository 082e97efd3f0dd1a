"""What a bundle is worth on held-out episodes: every number beside its controls.

Each measure reads the bundle through the same predictor that serves it. `probes` are the
linear tools and `perceptron` the one that is not; `context` is what all share, `report` runs
all and prints; the other modules measure, one kind of head each.
"""
