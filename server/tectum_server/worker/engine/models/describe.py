"""A bundle in the contract's words: capabilities, spaces, input specification.

What the wire says of a model and does not depend on the worker's own limits.
"""

from __future__ import annotations

from collections.abc import Collection

from tectum.v1 import call_pb2, model_pb2
from tectum_core.bundle import Bundle
from tectum_core.bundle.spaces import SpaceName
from tectum_core.golden import GoldenReport
from tectum_core.model.bottleneck import code_count, codebook_size, latent_width
from tectum_server.worker.durations import duration

__all__ = ["describe"]

_SPACES: dict[
    SpaceName, tuple[call_pb2.VectorKind.ValueType, tuple[model_pb2.Modality.ValueType, ...]]
] = {
    "joint": (
        call_pb2.VECTOR_KIND_JOINT,
        (model_pb2.MODALITY_IMAGE, model_pb2.MODALITY_TEXT),
    ),
    "pooled": (call_pb2.VECTOR_KIND_POOLED, (model_pb2.MODALITY_IMAGE,)),
    "tokens": (call_pb2.VECTOR_KIND_TOKENS, (model_pb2.MODALITY_IMAGE,)),
    "clip_pooled": (call_pb2.VECTOR_KIND_POOLED, (model_pb2.MODALITY_CLIP,)),
    "clip_tokens": (call_pb2.VECTOR_KIND_TOKENS, (model_pb2.MODALITY_CLIP,)),
    "latent_action": (call_pb2.VECTOR_KIND_LATENT_ACTION, (model_pb2.MODALITY_FRAME_PAIR,)),
    "world_latent": (call_pb2.VECTOR_KIND_WORLD_LATENT, (model_pb2.MODALITY_FRAME_HISTORY,)),
}
_WORLD_ACTIONS = {
    "none": model_pb2.WORLD_ACTIONS_NONE,
    "real": model_pb2.WORLD_ACTIONS_REAL,
    "latent": model_pb2.WORLD_ACTIONS_LATENT,
}
_WORLD_LATENTS = {
    "pooled": call_pb2.VECTOR_KIND_POOLED,
    "tokens": call_pb2.VECTOR_KIND_TOKENS,
}
_READS_TEXTS = {model_pb2.CAPABILITY_EMBED_TEXTS, model_pb2.CAPABILITY_RECONSTRUCT_TEXTS}
"""Always; what fills in pictures and actions reads them if it was taught to."""
_READS_CLIPS = {model_pb2.CAPABILITY_EMBED_CLIPS, model_pb2.CAPABILITY_RECONSTRUCT_CLIPS}


def describe(bundle: Bundle, golden: GoldenReport, numerics: call_pb2.Numerics) -> model_pb2.Model:
    """The bundle as ModelService tells it, READY; limits, default and card are the caller's."""
    capabilities = _capabilities(bundle)
    return model_pb2.Model(
        name=bundle.name,
        version=bundle.version,
        state=model_pb2.MODEL_STATE_READY,
        capabilities=capabilities,
        spaces=[
            model_pb2.Space(
                space_id=space.space_id,
                kind=_SPACES[space.name][0],
                modalities=_SPACES[space.name][1],
                dimensions=space.width,
                truncations=space.truncations,
            )
            for space in bundle.spaces
        ],
        input=_input_spec(bundle, capabilities),
        numerics=numerics,
        golden=model_pb2.GoldenStatus(
            passed=True,
            max_abs_difference=golden.max_abs_difference,
            min_cosine=golden.min_cosine,
            outputs=golden.outputs,
        ),
        parameters=sum(parameter.numel() for parameter in bundle.model.parameters()),
    )


def _capabilities(bundle: Bundle) -> list[model_pb2.Capability.ValueType]:
    """What it has a part for, without what training is known not to have reached."""
    config, learnt = bundle.config.model, bundle.config.training.learnt
    latent = config.latent_action if learnt("latent_action") else None
    decodes = latent is not None and latent.decoded_steps > 0
    world, spaces = config.world_model, {space.name for space in bundle.spaces}
    rolls = "world_latent" in spaces
    paints = rolls and world is not None and world.decoder is not None
    present = {
        model_pb2.CAPABILITY_EMBED_IMAGES: learnt("vision"),
        model_pb2.CAPABILITY_EMBED_TEXTS: config.joint is not None and learnt("joint"),
        model_pb2.CAPABILITY_EMBED_CLIPS: config.video is not None and learnt("video"),
        model_pb2.CAPABILITY_RECONSTRUCT_IMAGES: config.pixel_decoder is not None
        and learnt("pixel_decoder"),
        model_pb2.CAPABILITY_RECONSTRUCT_CLIPS: config.video_decoder is not None
        and learnt("video_decoder"),
        model_pb2.CAPABILITY_RECONSTRUCT_TEXTS: config.fusion is not None
        and learnt("fusion.token_head"),
        model_pb2.CAPABILITY_RECONSTRUCT_ACTIONS: config.actions is not None
        and config.fusion is not None
        and learnt("fusion.action_head", "fusion.actions.embed"),
        model_pb2.CAPABILITY_PREDICT_LATENT_ACTIONS: latent is not None,
        model_pb2.CAPABILITY_DECODE_ACTIONS: decodes and learnt("latent_action.action_decoder"),
        model_pb2.CAPABILITY_PREDICT_FRAMES: latent is not None and latent.target == "pixels",
        model_pb2.CAPABILITY_ROLLOUT: rolls,
        model_pb2.CAPABILITY_DECODE_ROLLOUTS: paints and learnt("world_model.decoder"),
    }
    return [capability for capability, there in present.items() if there]


def _input_spec(
    bundle: Bundle, capabilities: Collection[model_pb2.Capability.ValueType]
) -> model_pb2.InputSpec:
    """What the capabilities take; nothing of a part that none of them needs."""
    config, images = bundle.config.model, bundle.config.images
    learnt = bundle.config.training.learnt
    decodes = model_pb2.CAPABILITY_DECODE_ACTIONS in capabilities
    fills_actions = model_pb2.CAPABILITY_RECONSTRUCT_ACTIONS in capabilities
    spec = model_pb2.InputSpec(
        image=model_pb2.ImageInput(
            size=images.size,
            patch_size=config.vision.patch_size,
            resize_mode=model_pb2.ResizeMode.Value(f"RESIZE_MODE_{images.resize_mode.upper()}"),
            resize_to=images.resize_to or 0,
            interpolation=model_pb2.Interpolation.Value(
                f"INTERPOLATION_{images.interpolation.upper()}"
            ),
            mean=images.mean,
            standard_deviation=images.standard_deviation,
        )
    )
    reads_texts = (
        _READS_TEXTS.intersection(capabilities)
        or (fills_actions and learnt("fusion.from_text"))
        or (
            model_pb2.CAPABILITY_RECONSTRUCT_IMAGES in capabilities
            and config.pixel_decoder is not None
            and config.pixel_decoder.text_context
            and learnt("pixel_decoder.from_text")
        )
    )
    if config.text is not None and bundle.tokenizer is not None and reads_texts:
        spec.text.max_tokens = config.text.max_tokens
        spec.text.vocabulary_size = bundle.tokenizer.vocabulary_size
    reads_clips = _READS_CLIPS.intersection(capabilities)
    if config.video is not None and config.video.frame_interval is not None and reads_clips:
        spec.clip.frames = config.video.frames
        spec.clip.frame_interval.CopyFrom(duration(config.video.frame_interval))
        spec.clip.tubelet_frames = config.video.tubelet_frames
        spec.clip.patch_size = config.video.patch_size
    actions = bundle.config.actions
    rolls = model_pb2.CAPABILITY_ROLLOUT in capabilities
    world = config.world_model if rolls else None
    acts = world is not None and world.actions == "real"
    if config.actions is not None and actions is not None and (fills_actions or decodes or acts):
        spec.actions.names.extend(actions.names)
        spec.actions.step_interval.CopyFrom(duration(actions.step_interval))
        if fills_actions:
            spec.actions.max_steps = config.actions.max_steps
            if learnt("fusion.actions.embed_state"):
                spec.actions.state_names.extend(actions.state_names)
    latent = config.latent_action
    if latent is not None and model_pb2.CAPABILITY_PREDICT_LATENT_ACTIONS in capabilities:
        spec.latent_action.interval.CopyFrom(duration(latent.interval))
        spec.latent_action.tolerance.CopyFrom(duration(latent.tolerance))
        spec.latent_action.dimensions = latent_width(latent.bottleneck)
        spec.latent_action.codes = code_count(latent.bottleneck)
        spec.latent_action.codebook_size = codebook_size(latent.bottleneck)
        spec.latent_action.decoded_steps = latent.decoded_steps if decodes else 0
    if world is not None and bundle.model.world_model is not None:
        reads = world.actions != "none"
        each = (world.action_steps or 1) if reads else 0
        spec.world_model.interval.CopyFrom(duration(world.interval))
        spec.world_model.history = world.history
        spec.world_model.max_steps = world.max_steps
        spec.world_model.actions = _WORLD_ACTIONS[world.actions]
        spec.world_model.action_steps = each
        spec.world_model.action_dimensions = (
            bundle.model.world_model.action_width // each if reads else 0
        )
        spec.world_model.latents = _WORLD_LATENTS[world.latents]
        spec.world_model.latent_count = bundle.model.world_model.latent_count
    return spec
