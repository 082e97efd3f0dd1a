"""The engine: torch, the models, and the order of service. Never imports grpc."""
