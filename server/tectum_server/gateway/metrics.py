"""What Prometheus may scrape. Labels are route templates and status codes, never raw paths."""

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.types import Scope

UNMATCHED = "unmatched"
"""The route of requests that no route took."""
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds: from a small vector to a class's longest default deadline."""


class Metrics:
    """One gateway's measurements, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.duration = Histogram(
            "tectum_gateway_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            ["route", "code"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "tectum_gateway_requests_in_flight",
            "Requests being answered now.",
            registry=self.registry,
        )

    def exposition(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)


def route_of(scope: Scope) -> str:
    """The template of the route that took a request: `/v1/models/{name}`."""
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        return template
    # Of FastAPI's own routes (the document of them all) only the endpoint is told; none has
    # parameters, so their path is their template.
    return str(scope["path"]) if "endpoint" in scope and not scope["path_params"] else UNMATCHED
