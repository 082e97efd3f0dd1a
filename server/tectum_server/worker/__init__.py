"""The worker: fronts that speak gRPC and decode images, and an engine that owns the model.

Rooms: `front` (the wire: servicers, validation, decoding), `engine` (torch, models,
scheduling), `link` (what joins them: shared memory and small messages), `jobs` (the
vocabulary they share), `failure` (every way a call can fail), `shares` (who may fill how
much of a queue), `supervisor` (processes).
"""
