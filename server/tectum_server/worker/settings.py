"""What an operator can set on a worker; checked once, at the door."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

__all__ = ["WorkerSettings"]

_BLOCK_SHARE = 0.25
"""Of the deadline that a CONTROL call has by default, the longest batch before it."""
_Port = Annotated[int, Field(ge=0, le=65535)]


class WorkerSettings(BaseModel):
    """A worker's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    repository: str
    """Where bundles are: a folder or any fsspec URL."""
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Models to load, `name` or `name@version`, the first the default; `*` after it: whatever else
    the repository has, as far as it loads."""
    watch: Annotated[float, Field(ge=0)] = 0.0
    """Seconds between two looks at the repository: what is the latest there of a model that was
    named without a version is loaded, and with `*` models come and go. 0: only an admin's LoadModel
    and UnloadModel change what serves."""
    model_memory_bytes: PositiveInt | None = None
    """Bytes that models' weights may take together, and on a GPU what is recorded of them. Whoever
    does not fit in makes the model that was longest unused make room, never the default one; a call
    for it is refused with MODEL_LOADING, and has it loaded again. A newer version needs room beside
    the older one. None: as many as they take."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: _Port = 50051
    """gRPC port; 0 picks a free one."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics."""
    metrics_port: _Port = 9464
    """Port of the metrics; 0 turns them off."""
    tls_certificate: Path | None = None
    """PEM certificate chain; with `tls_key`, the port speaks TLS."""
    tls_key: Path | None = None
    """PEM private key."""
    tokens: Path | None = None
    """JSON file of the tokens that may call, `{"tokens": [{"name", "sha256", "roles": ["infer",
    "admin"]}]}`; None: anybody, on loopback."""
    allow_anonymous: bool = False
    """Listen beyond loopback without tokens: for networks that are private by other means."""
    reflection: bool = True
    """Whether gRPC reflection answers."""

    engine: Literal["process", "inline"] = "process"
    """Where the model runs: in a process of its own, or in this one (tests, tiny deployments)."""
    engines: Annotated[int, Field(ge=1, le=64)] = 1
    """Engine processes that serve the same models, each with its own queue; a request goes to
    whichever has least to do before it. With the device `cuda`, engine k has `cuda:k`, of those
    that `CUDA_VISIBLE_DEVICES` leaves, and sees no other; else all have the one that is named. An
    engine that dies leaves the others serving. What is said of queues and of models' memory holds
    for each."""
    fronts: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that speak gRPC and read images, on one port: for where one of them is the
    bottleneck. A connection stays with one of them, the system's choice. What is said of threads
    that read images, of streams and of memory holds for each."""
    device: str = "cpu"
    """A torch device, e.g. `cuda:0`."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Torch's threads for one operator; 0: torch's own choice, and where several engines share the
    processor, an equal part of its cores for each."""
    precision: Literal["float32", "bfloat16", "int8", "auto"] = "float32"
    """What a model's trunks compute in; all else is float32. `auto`: the fastest of float32 and
    bfloat16, each compiled or not, that reproduces the bundle's golden outputs within its own
    tolerance (a cosine of 0.999, unless it says otherwise), tried once for each kind of host and
    shape of model, and kept in the user's cache. `int8` needs the extra `int8`."""
    compiled: bool = False
    """Whether trunks are compiled by torch.compile, which needs a C++ compiler and up to a minute
    before the model serves; what was compiled is kept in the user's cache."""
    graphs: bool = True
    """On a GPU, record and replay CUDA graphs: each batch that embeds is one launch, beside which
    the next is sent and the last one fetched. False: all is launched kernel by kernel, one batch at
    a time. Elsewhere there are none."""
    max_batch: PositiveInt = 32
    """Largest batch."""
    invariant: bool = False
    """Whether every item is computed by itself, so that its numbers are the same to the last bit
    whatever else is asked at the time. Costs what batches save."""
    decode_threads: PositiveInt = 2
    """Threads that read images."""
    request_memory_bytes: PositiveInt = 256 * 2**20
    """Bytes that requests that are there may hold, twice over: once in the front, for encoded
    images, decoded pixels and the frames that streams keep, and once in the memory shared with the
    engine, for what waits there. Of several fronts each has as much, and so has each pair of a
    front and an engine. What is still arriving is bounded by `max_arriving`, and by
    `max_streams`."""
    response_memory_bytes: PositiveInt = 128 * 2**20
    """Shared memory for answers on their way out, of each pair of a front and an engine."""

    shared_memory_bytes: Annotated[int, Field(ge=0)] = 0
    """POSIX shared memory that each front may give to streams of clients on this host that run as
    the same user: six frames of each, more where more than one may wait (`depth`), under a name of
    the worker's that is gone when they have it.
    0: none."""

    max_items: PositiveInt = 64
    """Items in one request."""
    max_message_bytes: PositiveInt = 64 * 2**20
    """Bytes of one request."""
    max_arriving: PositiveInt = 16
    """Messages that may be under way to each front for longer than 0.1 s at once; one more is
    refused with QUEUE_FULL. Nobody knows how long a message is before it is there, so each may take
    `max_message_bytes` and 8 MiB until then, beside `request_memory_bytes`."""
    arrival_timeout: PositiveFloat = 10.0
    """Seconds that a call's message may take to arrive; then it is refused with
    DEADLINE_PASSED."""
    max_pixels: PositiveInt = 16 * 2**20
    """Pixels of one image."""
    max_text_bytes: PositiveInt = 4096
    """UTF-8 bytes of one text."""
    max_queued_items: PositiveInt = 256
    """Items of calls that may wait at once, in each engine. CONTROL may fill all of these places,
    INTERACTIVE seven eighths and BULK three quarters: what is left is kept for who cannot wait.
    Streams have places of their own, one frame's each."""
    max_block_ms: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Longest predicted time of a batch, milliseconds, with anything but CONTROL in it while
    CONTROL calls or streams come (one in the last 10 s), and with streams' frames in it while
    CONTROL calls do: batches are not interrupted, so this is how long the next call may have to
    wait for the engine. A single item is run whatever it takes. `auto`: a quarter of
    `control_deadline` while CONTROL calls come, and as long as the largest batch takes otherwise,
    CONTROL streams or not. 0: always as long as that takes."""
    kept_share: Annotated[float, Field(ge=0, le=0.25)] = 0.05
    """Share of the engine's time that INTERACTIVE and BULK each have while anything of them waits,
    however much comes of higher classes. 0: what is overtaken may wait until its deadline."""
    record: str | None = None
    """File to add to, a JSON line for each request (when it came, what of, its class and deadline,
    whether its caller left, nothing that it holds), for each frame of a stream that had a place
    before the engine, and for each batch, at most 64 MiB; `benchmarks/replay.py` tries other limits
    on it. Frames that gave way before they had a place, and streams' `depth`, are not recorded.
    Engines after the first add their number to its name. None: nothing is recorded."""
    max_streams: PositiveInt = 64
    """Streams open at once, in each front."""
    control_deadline: PositiveFloat = 0.25
    """Seconds a CONTROL call has that sets no deadline."""
    interactive_deadline: PositiveFloat = 10.0
    """Seconds an INTERACTIVE call has that sets no deadline."""
    bulk_deadline: PositiveFloat = 120.0
    """Seconds a BULK call has that sets no deadline."""
    compute_timeout: PositiveFloat = 30.0
    """Seconds that a batch may take, or ten times what it was predicted to take if that is longer:
    then the engine is stuck and ends, and another begins. One of which nothing at all is heard for
    so long is ended. Loading, compiling and warming up are no batches."""
    drain_timeout: PositiveFloat = 30.0
    """Seconds that shutting down waits for what is in flight."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged."""

    @field_validator("models")
    @classmethod
    def _led_by_a_default(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if models[0] == "*":
            raise PydanticCustomError(
                "no_default", "found * first; allowed: a name first, which is the default, then *"
            )
        return models

    @field_validator("max_block_ms", mode="wrap")
    @classmethod
    def _auto_or_so_many(
        cls, found: object, handler: ValidatorFunctionWrapHandler
    ) -> int | Literal["auto"]:
        try:
            return cast("int | Literal['auto']", handler(found))
        except ValidationError as error:
            told = "found {found}; allowed: auto, or whole milliseconds, 0 for any"
            raise PydanticCustomError("block", told, {"found": str(found)}) from error

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.precision == "auto" and self.compiled:
            raise _wrong("compiled", "found True; allowed: False where precision is auto")
        return self

    @model_validator(mode="after")
    def _in_processes(self) -> Self:
        for name in ("engines", "fronts"):
            if self.engine == "inline" and (count := getattr(self, name)) > 1:
                raise _wrong(name, f"found {count}; allowed: 1 where engine is inline")
        return self

    @model_validator(mode="after")
    def _safe_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            given = "tls_certificate" if self.tls_key is None else "tls_key"
            told = f"found {getattr(self, given)} alone; tls_certificate and tls_key come together"
            raise _wrong(given, told)
        if self.tokens is None and not self.allow_anonymous and not _loopback(self.host):
            raise _wrong(
                "host",
                f"found {self.host}, and listening there without tokens lets anybody call; "
                "allowed: loopback, or with --tokens, or with --allow-anonymous if the network is "
                "private by other means",
            )
        return self

    def for_engine(self, number: int = 0) -> dict[str, Any]:
        """What `engine.local.EngineSettings` is made of, of one of the engines."""
        several = self.engines > 1
        device = f"cuda:{number}" if several and self.device == "cuda" else self.device
        threads = self.threads
        if several and not threads and device == "cpu":
            threads = max(_cores() // self.engines, 1)
        return {
            "repository": self.repository,
            "models": self.models,
            "device": device,
            "precision": self.precision,
            "compiled": self.compiled,
            "graphs": self.graphs,
            "threads": threads,
            "max_batch": 1 if self.invariant else self.max_batch,
            "max_queued_items": self.max_queued_items,
            "max_block_ms": None if self.max_block_ms == "auto" else self.max_block_ms or None,
            "calls_block_ms": self._calls_block_ms if self.max_block_ms == "auto" else None,
            "kept_share": self.kept_share,
            "compute_timeout": self.compute_timeout,
            "record": f"{self.record}.{number}" if self.record and number else self.record or "",
            "model_memory_bytes": self.model_memory_bytes,
            "watch": self.watch,
        }

    @property
    def _calls_block_ms(self) -> int:
        """What is left of a CONTROL call's time by then is enough for it and what goes before."""
        return max(round(1000 * self.control_deadline * _BLOCK_SHARE), 1)

    @property
    def places(self) -> int:
        """Items that may be under way at once in one front: as many as all engines' queues hold."""
        return self.max_queued_items * self.engines

    @property
    def address(self) -> str:
        """Where the worker listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _wrong(field: str, description: str) -> PydanticCustomError:
    """What does not hold of one setting because of another."""
    told = {"field": field, "description": description}
    return PydanticCustomError("together", "{description}", told)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
