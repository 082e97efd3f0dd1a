"""Tectum's SDK: perception for robots over gRPC.

    import tectum

    with tectum.Client("127.0.0.1:50051", timeout=0.1) as client:
        vectors = client.embed_images([frame]).vectors

`Client` is for threads, `AsyncClient` for asyncio; they have the same methods. The SDK needs
numpy and grpcio, knows the contract (`tectum.v1`), and neither models nor image files.

It is imported when a name of it is first asked for (PEP 562): whoever wants the contract alone,
as a worker does, imports `tectum.v1` and gets neither the SDK nor grpc.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tectum.aio import AsyncClient
    from tectum.aio_stream import AsyncStream
    from tectum.calls import CallOptions, InferenceOptions
    from tectum.client import Client
    from tectum.conversation import StreamReady
    from tectum.errors import (
        BundleRejected,
        Cancelled,
        CapabilityMissing,
        ClientClosed,
        DeadlineExceeded,
        DeadlineTooShort,
        InternalError,
        InvalidInput,
        ItemFailed,
        NotFound,
        Overloaded,
        PermissionDenied,
        PreconditionFailed,
        SpaceMismatch,
        TectumError,
        TooLarge,
        Unauthenticated,
        Unavailable,
        Violation,
    )
    from tectum.images import ClipLike, ImageLike
    from tectum.inputs import Frame, Mask
    from tectum.models import (
        ActionInput,
        ClipInput,
        GoldenStatus,
        ImageInput,
        InputSpec,
        LatentActionInput,
        Limits,
        Model,
        Rejection,
        Space,
        TextInput,
        WorldModelInput,
    )
    from tectum.opening import StreamOptions
    from tectum.reconstructions import (
        ActionReconstruction,
        ClipReconstruction,
        ImageReconstruction,
        TextReconstruction,
        TokenCandidate,
        TokenReconstruction,
    )
    from tectum.requests import SimilarityItem
    from tectum.results import (
        Batch,
        Embedding,
        EmbeddingBatch,
        FrameResult,
        ItemError,
        LatentAction,
        LatentActionBatch,
        Numerics,
        ResponseInfo,
        Similarity,
        SimilarityError,
        Timings,
    )
    from tectum.rollouts import Rollout, RolloutBatch
    from tectum.shell import __version__
    from tectum.stream import Stream
    from tectum.vocabulary import (
        Capability,
        FrameStatus,
        Health,
        Interpolation,
        LatentActionStatus,
        Modality,
        ModelState,
        Priority,
        ResizeMode,
        Side,
        VectorKind,
        WorldActions,
    )

__all__ = [
    "ActionInput",
    "ActionReconstruction",
    "AsyncClient",
    "AsyncStream",
    "Batch",
    "BundleRejected",
    "CallOptions",
    "Cancelled",
    "Capability",
    "CapabilityMissing",
    "Client",
    "ClientClosed",
    "ClipInput",
    "ClipLike",
    "ClipReconstruction",
    "DeadlineExceeded",
    "DeadlineTooShort",
    "Embedding",
    "EmbeddingBatch",
    "Frame",
    "FrameResult",
    "FrameStatus",
    "GoldenStatus",
    "Health",
    "ImageInput",
    "ImageLike",
    "ImageReconstruction",
    "InferenceOptions",
    "InputSpec",
    "InternalError",
    "Interpolation",
    "InvalidInput",
    "ItemError",
    "ItemFailed",
    "LatentAction",
    "LatentActionBatch",
    "LatentActionInput",
    "LatentActionStatus",
    "Limits",
    "Mask",
    "Modality",
    "Model",
    "ModelState",
    "NotFound",
    "Numerics",
    "Overloaded",
    "PermissionDenied",
    "PreconditionFailed",
    "Priority",
    "Rejection",
    "ResizeMode",
    "ResponseInfo",
    "Rollout",
    "RolloutBatch",
    "Side",
    "Similarity",
    "SimilarityError",
    "SimilarityItem",
    "Space",
    "SpaceMismatch",
    "Stream",
    "StreamOptions",
    "StreamReady",
    "TectumError",
    "TextInput",
    "TextReconstruction",
    "Timings",
    "TokenCandidate",
    "TokenReconstruction",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "VectorKind",
    "Violation",
    "WorldActions",
    "WorldModelInput",
    "__version__",
]

_MODULES = (
    "aio", "aio_stream", "calls", "client", "conversation", "errors", "images", "inputs", "models",
    "opening", "reconstructions", "requests", "results", "rollouts", "shell", "stream",
    "vocabulary",
)  # fmt: skip

# Unseen by type checkers, to whom any name at all would be one of this module's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the SDK whole; from then on its names are ordinary ones."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for module in _MODULES:
            found = vars(importlib.import_module(f"{__name__}.{module}"))
            globals().update({key: found[key] for key in __all__ if key in found})
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
