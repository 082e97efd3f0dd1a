"""The gateway: Tectum over HTTP, for the web and for tools.

    from tectum_server.gateway import GatewaySettings, serve

    serve(GatewaySettings(worker_address="worker:50051"))

It holds no model. Every request becomes one call of the SDK's, so the rules of the contract are
kept in one place, the worker, and their errors come back as problem+json. Many gateways may
face many workers.
"""

from tectum_server.gateway.app import create_app
from tectum_server.gateway.serve import serve
from tectum_server.gateway.settings import GatewaySettings
from tectum_server.listening import CannotListen

__all__ = ["CannotListen", "GatewaySettings", "create_app", "serve"]
