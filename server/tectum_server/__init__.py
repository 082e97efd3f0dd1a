"""The two servers: `worker` (gRPC, the model) and `gateway` (REST, no model).

Strangers to each other; they share how a process writes its `logs`, says why it cannot listen
(`listening`), and ends with who began it (`lifeline`).
"""
