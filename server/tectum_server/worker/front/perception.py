"""PerceptionService, but for the stream: requests read, jobs run, answers built."""

from __future__ import annotations

from typing import Any

from tectum.v1 import (
    embed_pb2,
    latent_action_pb2,
    model_pb2,
    perception_pb2_grpc,
    reconstruct_pb2,
    rollout_pb2,
)
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call, Context
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.messages.wire import out_of_range
from tectum_server.worker.front.methods import latents, reconstruction, rollouts, similarity
from tectum_server.worker.front.methods.batches import compute_items
from tectum_server.worker.front.methods.clips import read_clips
from tectum_server.worker.front.methods.texts import checked_text
from tectum_server.worker.front.methods.vectors import VectorRequest
from tectum_server.worker.front.sharing import Sharing
from tectum_server.worker.front.stream.stream import PerceptionStream
from tectum_server.worker.jobs import EmbedClips, EmbedImages, EmbedTexts, Item

__all__ = ["Perception"]


class Perception(perception_pb2_grpc.PerceptionServiceServicer):
    """The service. Every method goes through `calls`, which see to all that is common."""

    def __init__(self, calls: Calls, images: ImageReader, sharing: Sharing) -> None:
        self._calls = calls
        self._images = images
        self._sharing = sharing

    async def EmbedImages(  # noqa: N802 - the contract's names
        self, request: embed_pb2.EmbedImagesRequest, context: Context
    ) -> embed_pb2.EmbedImagesResponse:
        """Pictures to vectors."""
        return await self._calls.unary("EmbedImages", request, context, self._embed_images)

    async def EmbedTexts(  # noqa: N802
        self, request: embed_pb2.EmbedTextsRequest, context: Context
    ) -> embed_pb2.EmbedTextsResponse:
        """Texts to vectors."""
        return await self._calls.unary("EmbedTexts", request, context, self._embed_texts)

    async def EmbedClips(  # noqa: N802
        self, request: embed_pb2.EmbedClipsRequest, context: Context
    ) -> embed_pb2.EmbedClipsResponse:
        """Clips to vectors."""
        return await self._calls.unary("EmbedClips", request, context, self._embed_clips)

    async def ComputeSimilarity(  # noqa: N802
        self, request: embed_pb2.ComputeSimilarityRequest, context: Context
    ) -> embed_pb2.ComputeSimilarityResponse:
        """Cosines, logits and softmaxes of two lists."""

        async def work(
            request: embed_pb2.ComputeSimilarityRequest, call: Call
        ) -> embed_pb2.ComputeSimilarityResponse:
            return await similarity.compare(request, call, self._calls, self._images)

        return await self._calls.unary("ComputeSimilarity", request, context, work)

    async def Reconstruct(  # noqa: N802
        self, request: reconstruct_pb2.ReconstructRequest, context: Context
    ) -> reconstruct_pb2.ReconstructResponse:
        """Hide and fill in."""

        async def work(
            request: reconstruct_pb2.ReconstructRequest, call: Call
        ) -> reconstruct_pb2.ReconstructResponse:
            return await reconstruction.reconstruct(request, call, self._calls, self._images)

        return await self._calls.unary("Reconstruct", request, context, work)

    async def PredictLatentActions(  # noqa: N802
        self, request: latent_action_pb2.PredictLatentActionsRequest, context: Context
    ) -> latent_action_pb2.PredictLatentActionsResponse:
        """What changed between neighbouring frames."""

        async def work(
            request: latent_action_pb2.PredictLatentActionsRequest, call: Call
        ) -> latent_action_pb2.PredictLatentActionsResponse:
            return await latents.predict(request, call, self._calls, self._images)

        return await self._calls.unary("PredictLatentActions", request, context, work)

    async def Rollout(  # noqa: N802
        self, request: rollout_pb2.RolloutRequest, context: Context
    ) -> rollout_pb2.RolloutResponse:
        """What would be seen if this or that were done."""

        async def work(
            request: rollout_pb2.RolloutRequest, call: Call
        ) -> rollout_pb2.RolloutResponse:
            return await rollouts.roll_out(request, call, self._calls, self._images)

        return await self._calls.unary("Rollout", request, context, work)

    async def StreamPerception(  # type: ignore[override]  # noqa: N802
        self, _: Any, context: Context
    ) -> None:
        """A live camera; see `stream`, which reads and writes through the context."""
        stream = PerceptionStream(self._calls, self._images, self._sharing, context)
        await stream.run()

    async def _embed_images(
        self, request: embed_pb2.EmbedImagesRequest, call: Call
    ) -> embed_pb2.EmbedImagesResponse:
        wanted = VectorRequest.of(request.vector, call)
        count = len(request.images)
        with self._calls.admit_items(count, "images", call, {EmbedImages.name: count}):
            given = {f"images[{index}]": image for index, image in enumerate(request.images)}
            pixels = await self._images.read_all(given, call)
            items = [p if isinstance(p, Failure) else Item((p,)) for p in pixels]
            operation = EmbedImages(wanted.vector)
            outputs = await compute_items(self._calls, call, operation, items, "images")
        results = wanted.results(call, outputs, "images")
        return embed_pb2.EmbedImagesResponse(info=call.info(), results=results)

    async def _embed_texts(
        self, request: embed_pb2.EmbedTextsRequest, call: Call
    ) -> embed_pb2.EmbedTextsResponse:
        call.served.require(model_pb2.CAPABILITY_EMBED_TEXTS)
        wanted = VectorRequest.of(request.vector, call)
        if wanted.vector != "joint":
            raise out_of_range("vector.kind", "texts are always JOINT")
        limit = self._calls.settings.max_text_bytes
        count = len(request.texts)
        with self._calls.admit_items(count, "texts", call, {EmbedTexts.name: count}):
            items: list[Item | Failure] = []
            for index, text in enumerate(request.texts):
                try:
                    items.append(Item(text=checked_text(text, limit, f"texts[{index}]")))
                except Failure as failure:
                    items.append(failure)
            outputs = await compute_items(self._calls, call, EmbedTexts(), items, "texts")
        results = wanted.results(call, outputs, "texts")
        return embed_pb2.EmbedTextsResponse(info=call.info(), results=results)

    async def _embed_clips(
        self, request: embed_pb2.EmbedClipsRequest, call: Call
    ) -> embed_pb2.EmbedClipsResponse:
        call.served.require(model_pb2.CAPABILITY_EMBED_CLIPS)
        wanted = VectorRequest.of(request.vector, call, "clip_")
        count = len(request.clips)
        self._calls.check_count(count, "clips")
        places = max(count, sum(len(clip.frames) for clip in request.clips))
        with self._calls.admit_items(places, "clips", call, {EmbedClips.name: count}):
            given = {f"clips[{index}]": clip for index, clip in enumerate(request.clips)}
            pixels = await read_clips(given, call, self._images)
            items = [p if isinstance(p, Failure) else Item((p,)) for p in pixels]
            operation = EmbedClips(wanted.vector)
            outputs = await compute_items(self._calls, call, operation, items, "clips")
        results = wanted.results(call, outputs, "clips")
        return embed_pb2.EmbedClipsResponse(info=call.info(), results=results)
