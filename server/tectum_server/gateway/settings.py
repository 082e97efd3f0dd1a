"""How a gateway is set up: where it listens, which worker it calls, and its bounds."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from tectum_server.gateway.schemas.common import MOST_ITEMS

MEBIBYTE = 1024 * 1024


class GatewaySettings(BaseModel):
    """Everything about a gateway; the defaults suit one on the worker's own machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; `0.0.0.0` or `::` for every interface."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on. 0: any free one, which the log names."""
    worker_address: str = "127.0.0.1:50051"
    """The worker, as `host:port` or any target gRPC understands."""
    worker_tls: bool = False
    """Whether to reach the worker by TLS."""
    worker_roots: Path | None = None
    """Root certificates for the worker's, PEM; implies TLS. None: those that come with gRPC."""
    readiness_model: str = ""
    """The model whose health decides /readyz. Empty: the worker's own health."""

    max_body_bytes: PositiveInt = 64 * MEBIBYTE
    """Largest request body; a larger one is refused while it is being read."""
    max_text_body_bytes: PositiveInt = 4 * MEBIBYTE
    """The same for routes that take no pictures."""
    max_buffered_bytes: PositiveInt = 512 * MEBIBYTE
    """All bodies being held at once; beyond it requests are refused with QUEUE_FULL."""
    max_files: int = Field(default=256, ge=1, le=MOST_ITEMS)
    """Files in one multipart request."""
    max_concurrent_requests: PositiveInt = 256
    """Requests in flight; beyond it they are refused with QUEUE_FULL."""
    body_seconds: PositiveFloat = 60.0
    """How long a body may take to arrive."""
    shutdown_seconds: NonNegativeFloat = 30.0
    """How long requests in flight may take to finish after SIGTERM."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines to write; one line a request is `info`."""

    @property
    def tls(self) -> bool | Path:
        """How the SDK shall reach the worker."""
        return self.worker_roots if self.worker_roots is not None else self.worker_tls
