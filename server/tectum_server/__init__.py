"""The two servers: `worker` (gRPC, the model) and `gateway` (REST, no model).

Strangers to each other; they share only how a process writes its `logs`.
"""
