"""The front: gRPC, validation, image decoding. Never imports torch.

`server` puts it together; `door` asks who may call; `messages` are bytes until they are counted;
`calls` is what every call passes through; `perception` and `models` are the servicers, `methods`
what their methods are asked and answer, `stream` the one that lasts; `images` makes pixels of
pictures, which `memory` counts before they are decoded; `status` turns failures into
google.rpc.Status.
"""
