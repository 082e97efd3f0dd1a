"""The engine: torch, the models, and the order of service. Never imports grpc.

`policy` decides what runs next, with no clock; `scheduling` sets it going; `computing` is what a
batch is to the predictor; `models` keeps what is served; `replay` plays arrivals back before the
same policy. `local` is an engine in this process, and `process` one of its own.
"""
