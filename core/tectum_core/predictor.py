"""Inference in process: uint8 pictures, words and actions in, numpy out.

What the worker's engine runs, what golden outputs are made of, and what evaluation
reads: one corridor from raw input to numbers. Knows no wire, no queues, no time.

Letters: B batch, H×W source pixels, S the model's side, N patches, D width, J joint width,
L text tokens, T action steps, A numbers in an action, C codes, k decoded steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tectum_core.bundle import Bundle, Part
from tectum_core.bundle.config import PARTS
from tectum_core.change import clip_change
from tectum_core.inputs import CapabilityMissing, Inputs
from tectum_core.launching import EmbeddingLane
from tectum_core.masks import visible_indices
from tectum_core.model import Context, PatchPrediction, PatchTarget, unpatchify
from tectum_core.model.vision import VisionTransformer, patchify
from tectum_core.numerics import REFERENCE, Numerics, accelerate, exact_float32
from tectum_core.outputs import (
    FilledImages,
    FilledTexts,
    Float32,
    LatentActions,
    Picture,
    Rollouts,
    Uint8Image,
    as_numpy,
    as_rows,
)
from tectum_core.preprocess import to_pixels
from tectum_core.rollouts import RolloutRequest, roll_out
from tectum_core.tokenizer import EncodedText
from tectum_core.vectors import VectorName, picture_vectors, text_vectors

__all__ = ["CapabilityMissing", "Predictor", "VectorName"]

_BEHIND: dict[VectorName, tuple[Part, ...]] = {
    "joint": ("joint",), "pooled": ("vision", "vision.pool"), "tokens": ("vision",),
}  # fmt: skip


class Predictor:
    """A bundle on a device.

    Every method takes a whole batch and is a pure function of each item: what its
    neighbours are changes nothing beyond the last bits of float32.

    From the first one on, float32 means float32 in the whole process (`exact_float32`).
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str | torch.device = "cpu",
        numerics: Numerics = REFERENCE,
    ) -> None:
        """Move a bundle to a device.

        Args:
            bundle: its model moves too.
            device: a torch device.
            numerics: what trunks compute in. Spaces are those of the weights as they were read.

        Raises:
            ImportError: int8 without torchao.
        """
        exact_float32()
        self.numerics = numerics
        self.config = bundle.config
        self.device = torch.device(device)
        if numerics == REFERENCE:
            self.bundle, self.model = bundle, bundle.model.to(self.device).eval()
        else:
            spaces = bundle.spaces
            self.model = accelerate(bundle.model.to(self.device).eval(), numerics)
            self.bundle = replace(bundle, model=self.model, told_spaces=spaces)
        self._inputs = Inputs(self.bundle, self.device)
        self.lane: EmbeddingLane | None = None
        """What embeds in its place, by the same kernels, launched otherwise."""

    @torch.inference_mode()
    def fitted(self, pictures: Uint8Image) -> Tensor:
        """A picture uint8[H, W, 3], or a clip with a leading T, brought to the model's size.

        Every method takes it in the other's place, and answers with the same bits.
        """
        return self._inputs.fitted(pictures)

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Picture], vector: VectorName) -> Float32:
        """Vectors of pictures.

        Args:
            images: uint8[H, W, 3] each, of any sizes.
            vector: which of the bundle's spaces.

        Returns:
            float32[B, J], [B, D] or [B, N, D].

        Raises:
            CapabilityMissing: "joint" without a joint space.
        """
        self._require(*_BEHIND[vector])
        if self.lane and (flight := self.lane.images(images, vector)):
            return flight.result()
        pixels = self._inputs.pixels(images)
        return as_numpy(picture_vectors(self.model, self.model.vision, pixels, vector))

    @torch.inference_mode()
    def embed_clips(self, clips: Sequence[Picture], vector: VectorName) -> Float32:
        """Vectors of clips uint8[T, H, W, 3], "pooled" or "tokens"; else as embed_images."""
        if self.model.video is None:
            raise CapabilityMissing("this model has no video path")
        if vector == "joint":
            raise CapabilityMissing("this model's clips have no joint space")
        self._require("video", *(("video.pool",) if vector == "pooled" else ()))
        if self.lane and (flight := self.lane.clips(clips, vector)):
            return flight.result()
        pixels = self._inputs.clip_pixels(clips)
        return as_numpy(picture_vectors(self.model, self.model.video, pixels, vector))

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """Texts in the joint space: float32[B, J], unit length."""
        return self.embed_encoded([self.encode(text) for text in texts])

    @torch.inference_mode()
    def embed_encoded(self, texts: Sequence[EncodedText]) -> Float32:
        """What `encode` made of texts, in the joint space: float32[B, J], unit length."""
        if self.model.joint is not None and self.model.text is not None:
            self._require("joint")
        if self.lane and (flight := self.lane.texts(texts)):
            return flight.result()
        ids, seen = self._inputs.ids([text.ids for text in texts])
        return as_numpy(text_vectors(self.model, ids, seen))

    def encode(self, text: str) -> EncodedText:
        """A text's tokens as the model reads them."""
        return self._inputs.encode(text)

    @torch.inference_mode()
    def logits(self, cosine: Float32) -> Float32:
        """The joint space's logits for cosines of any shape."""
        if self.model.joint is None:
            raise CapabilityMissing("this model has no joint space")
        self._require("joint")
        return as_numpy(self.model.joint.logits(torch.from_numpy(cosine).to(self.device)))

    @torch.inference_mode()
    def image_importance(self, images: Sequence[Picture]) -> Float32:
        """How much the trunk's last block attends to each patch of pictures: float32[B, N]."""
        self._require("vision")
        return as_numpy(self.model.vision.importance(self._inputs.pixels(images)))

    @torch.inference_mode()
    def clip_importance(self, clips: Sequence[Picture]) -> Float32:
        """The same for each tubelet of clips uint8[T, H, W, 3]."""
        if self.model.video is None:
            raise CapabilityMissing("this model has no video path")
        self._require("video")
        return as_numpy(self.model.video.importance(self._inputs.clip_pixels(clips)))

    @torch.inference_mode()
    def clip_change(self, clips: Sequence[Picture]) -> Float32:
        """How much each tubelet's pixels differ from the frames about it: float32[B, N]."""
        if self.model.video is None:
            raise CapabilityMissing("this model has no video path")
        return as_numpy(clip_change(self._inputs.clip_pixels(clips), self.model.video.config))

    @torch.inference_mode()
    def fill_images(
        self, images: Sequence[Picture], hidden: Tensor, texts: Sequence[str] | None = None
    ) -> FilledImages:
        """Paint hidden patches of pictures from the visible ones.

        Args:
            images: uint8[H, W, 3] each.
            hidden: bool[B, N], equally many in each row.
            texts: an instruction for each picture; None: for none of them.
        """
        if self.model.pixel_decoder is None:
            raise CapabilityMissing("this model reconstructs no images")
        self._require("pixel_decoder")
        if texts is not None and not self.model.pixel_decoder.config.text_context:
            raise CapabilityMissing("this model's image decoder reads no text")
        self._require_inputs({"pixel_decoder.from_text": texts})
        text = text_seen = None
        if texts is not None and self.model.text is not None:
            ids, text_seen = self._inputs.ids([self.encode(item).ids for item in texts])
            text = self.model.text(ids, text_seen).tokens
        keep = visible_indices(hidden).to(self.device)
        pixels = self._inputs.pixels(images)
        visible = self.model.vision(pixels, keep).tokens
        prediction = self.model.pixel_decoder(visible, keep, text, text_seen)
        target = self.model.pixel_decoder.target(
            patchify(pixels, self.config.model.vision.patch_size)
        )
        return self._painted(self.model.vision, pixels.unsqueeze(2), hidden, prediction, target)

    @torch.inference_mode()
    def fill_clips(self, clips: Sequence[Picture], hidden: Tensor) -> FilledImages:
        """Paint hidden tubelets of clips uint8[T, H, W, 3]; hidden as in fill_images."""
        if self.model.video is None or self.model.video_decoder is None:
            raise CapabilityMissing("this model reconstructs no clips")
        self._require("video_decoder")
        config = self.model.video.config
        keep = visible_indices(hidden).to(self.device)
        pixels = self._inputs.clip_pixels(clips)
        visible = self.model.video(pixels, keep).tokens
        prediction = self.model.video_decoder(visible, keep)
        target = self.model.video_decoder.target(
            patchify(pixels, config.patch_size, config.tubelet_frames)
        )
        return self._painted(self.model.video, pixels, hidden, prediction, target)

    @torch.inference_mode()
    def fill_texts(
        self,
        ids: Sequence[Sequence[int]],
        images: Sequence[Picture] | None = None,
        places: Sequence[Sequence[int]] | None = None,
    ) -> FilledTexts:
        """Guess hidden tokens.

        Args:
            ids: token ids of each text, hidden ones already the mask token.
            images: a picture for each text; None: for none of them.
            places: of each text, the tokens that are wanted; None: all.
        """
        if self.model.fusion is None or self.model.text is None:
            raise CapabilityMissing("this model reconstructs no texts")
        self._require("fusion.token_head")
        self._require_inputs({"fusion.from_image": images})
        padded, seen = self._inputs.ids(ids)
        text = self.model.text(padded, seen).tokens
        image = None if images is None else self.model.vision(self._inputs.pixels(images)).tokens
        logits = self.model.fusion.fill_text(text, seen, image)
        if places is not None:  # before a whole vocabulary for every token leaves the device
            row = [number for number, some in enumerate(places) for _ in some]
            logits = logits[row, [place for some in places for place in some]]
        return FilledTexts(as_numpy(logits.float().softmax(dim=-1)))

    @torch.inference_mode()
    def fill_actions(
        self,
        actions: Float32,
        hidden: Tensor,
        images: Sequence[Picture] | None = None,
        texts: Sequence[str] | None = None,
        states: Float32 | None = None,
    ) -> Float32:
        """Predict hidden steps of action sequences.

        Args:
            actions: float32[B, T, A] in the robot's units.
            hidden: bool[B, T].
            images: the picture at each sequence's first step; None: for none of them.
            texts: an instruction for each; None: for none of them.
            states: float32[B, S] in the robot's units; None: unknown.

        Returns:
            float32[B, T, A]: visible steps as given, hidden ones predicted.
        """
        scaling = self.config.actions
        if self.model.fusion is None or scaling is None:
            raise CapabilityMissing("this model reconstructs no actions")
        self._require("fusion.action_head")
        self._require_inputs(
            {
                "fusion.actions.embed": None if bool(hidden.all()) else actions,
                "fusion.actions.embed_state": states,
                "fusion.from_image": images,
                "fusion.from_text": texts,
            }
        )
        text = text_seen = None
        if texts is not None and self.model.text is not None:
            ids, text_seen = self._inputs.ids([self.encode(item).ids for item in texts])
            text = self.model.text(ids, text_seen).tokens
        context = Context(
            image=None if images is None else self.model.vision(self._inputs.pixels(images)).tokens,
            text=text,
            text_seen=text_seen,
            state=None
            if states is None
            else scaling.standardise_state(self._inputs.tensor(states)),
        )
        given, mask = self._inputs.tensor(actions), hidden.to(self.device)
        predicted = self.model.fusion.fill_actions(scaling.standardise(given), mask, context)
        return as_numpy(torch.where(mask[:, :, None], scaling.restore(predicted.float()), given))

    @torch.inference_mode()
    def latent_actions(
        self,
        earlier: Sequence[Picture],
        later: Sequence[Picture],
        decode_actions: bool = False,
        predict_frames: bool = False,
    ) -> LatentActions:
        """Name what changed between pairs of frames uint8[H, W, 3]."""
        module = self.model.latent_action
        if module is None:
            raise CapabilityMissing("this model predicts no latent actions")
        if decode_actions and module.action_decoder is None:
            raise CapabilityMissing("this model decodes no actions")
        if predict_frames and module.config.target != "pixels":
            raise CapabilityMissing("this model predicts no frames, but its trunk's tokens")
        self._require("latent_action")
        if decode_actions:
            self._require("latent_action.action_decoder")
        count = len(earlier)
        pixels = self._inputs.pixels([*earlier, *later])
        small = module.frames(pixels)
        reads_trunk = module.config.reads_trunk
        trunk = self.model.vision(pixels) if reads_trunk else None
        pair = None if trunk is None else (trunk.tokens[:count], trunk.tokens[count:])
        bottled = module.infer(small[:count], small[count:], pair)
        actions = frames = predicted = None
        if decode_actions and self.config.actions is not None:
            seen = self.model.vision(pixels[:count]) if trunk is None else trunk
            decoded = module.decode_actions(bottled.vectors, seen.pooled[:count])
            actions = as_numpy(self.config.actions.restore(decoded.float()))
        if predict_frames:
            predicted = module.predict(
                small[:count], bottled.vectors, None if pair is None else pair[0]
            ).float()
            frames = as_rows(to_pixels(predicted, self.config.images))
        return LatentActions(
            vectors=as_numpy(bottled.vectors.flatten(1)),
            codes=None if bottled.codes is None else bottled.codes.cpu().numpy(),
            actions=actions,
            frames=frames,
            predicted=predicted,
        )

    @torch.inference_mode()
    def rollout(self, asked: RolloutRequest) -> Rollouts:
        """Predict what would be seen.

        Raises:
            CapabilityMissing: there is no world model, or none with a decoder.
            ValueError: shapes that do not fit.
        """
        world = self.model.world_model
        if world is None:
            raise CapabilityMissing("this model has no world model")
        if asked.decode_frames and world.decoder is None:
            raise CapabilityMissing("this model decodes no predicted frames")
        self._require(*self.rollout_reads, "world_model")
        self._require_inputs({"world_model.decoder": asked.decode_frames or None})
        return roll_out(world, self.config, asked, self.device)

    @property
    def rollout_reads(self) -> tuple[Part, ...]:
        """What makes the vectors that a world model reads."""
        world = self.config.model.world_model
        return () if world is None else _BEHIND[world.latents]

    def _require(self, *parts: Part) -> None:
        if lacking := [PARTS[part] for part in parts if not self.config.training.learnt(part)]:
            raise CapabilityMissing(f"this bundle's {lacking[0]} was not trained")

    def _require_inputs(self, given: Mapping[Part, object]) -> None:
        """Of these, None is what was not given, and needs nothing."""
        self._require(*(part for part, value in given.items() if value is not None))

    def _painted(
        self,
        trunk: VisionTransformer,
        pixels: Tensor,
        hidden: Tensor,
        prediction: PatchPrediction,
        target: PatchTarget,
    ) -> FilledImages:
        config = trunk.config
        mask = hidden.to(self.device)
        true = patchify(pixels, config.patch_size, config.tubelet_frames)
        mixed = torch.where(mask[:, :, None], prediction.pixels().float(), true)
        painted = unpatchify(
            mixed, config.patch_size, config.tubelet_frames, config.steps
        ).transpose(1, 2)
        error = (prediction.values.float() - target.values).square().mean(dim=-1)
        return FilledImages(
            seen=as_rows(to_pixels(pixels.transpose(1, 2), self.config.images)),
            filled=as_rows(to_pixels(painted, self.config.images)),
            error=as_numpy(error.masked_fill(~mask, float("nan"))),
            painted=painted,
        )
