"""The front: gRPC, validation, image decoding. Never imports torch.

`server` puts it together; `calls` is what every call passes through; `perception`,
`stream` and `models` are the servicers; `wire`, `images` and `frames` translate; `memory`
counts pixels before they are decoded; `status` turns failures into google.rpc.Status;
`access` knows who may call.
"""
