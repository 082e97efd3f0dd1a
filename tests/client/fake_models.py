"""The models a fake worker says it has."""

from tests.client.fake_answers import JOINT, LATENT, POOLED
from tests.client.fake_errors import duration

from tectum.v1 import call_pb2, model_pb2

INTERVAL = 0.05
"""Seconds between two frames of the fake model's latent actions."""


def model(name: str, *, default: bool = False, card: str = "") -> model_pb2.Model:
    """A model that can do everything."""
    spec = model_pb2.InputSpec(
        image=model_pb2.ImageInput(
            size=64,
            patch_size=8,
            resize_mode=model_pb2.RESIZE_MODE_STRETCH,
            interpolation=model_pb2.INTERPOLATION_BICUBIC,
            mean=[0.5, 0.5, 0.5],
            standard_deviation=[0.25, 0.25, 0.25],
        ),
        text=model_pb2.TextInput(max_tokens=32, vocabulary_size=1000),
        latent_action=model_pb2.LatentActionInput(
            interval=duration(INTERVAL), tolerance=duration(0.01), dimensions=8
        ),
        world_model=model_pb2.WorldModelInput(
            interval=duration(INTERVAL),
            history=2,
            max_steps=4,
            actions=model_pb2.WORLD_ACTIONS_REAL,
            action_steps=1,
            action_dimensions=2,
            latents=call_pb2.VECTOR_KIND_POOLED,
            latent_count=1,
        ),
    )
    return model_pb2.Model(
        name=name,
        version="0123abcd",
        state=model_pb2.MODEL_STATE_READY,
        default_model=default,
        # The last one is a capability that no SDK of today has a word for.
        capabilities=[1, 2, 8, 99],  # type: ignore[list-item]
        spaces=[
            model_pb2.Space(
                space_id=JOINT,
                kind=call_pb2.VECTOR_KIND_JOINT,
                modalities=[model_pb2.MODALITY_IMAGE, model_pb2.MODALITY_TEXT],
                dimensions=8,
                truncations=[4],
            ),
            model_pb2.Space(
                space_id=POOLED,
                kind=call_pb2.VECTOR_KIND_POOLED,
                modalities=[model_pb2.MODALITY_IMAGE],
                dimensions=8,
            ),
            model_pb2.Space(
                space_id=LATENT,
                kind=call_pb2.VECTOR_KIND_LATENT_ACTION,
                modalities=[model_pb2.MODALITY_FRAME_PAIR],
                dimensions=8,
            ),
        ],
        input=spec,
        limits=model_pb2.Limits(
            max_items=16,
            max_message_bytes=64 << 20,
            max_pixels=1 << 20,
            max_text_bytes=4096,
            max_queued_items=256,
            control_deadline=duration(0.25),
            interactive_deadline=duration(5),
            bulk_deadline=duration(120),
        ),
        numerics=call_pb2.Numerics(precision="float32", engine="arithmetic"),
        golden=model_pb2.GoldenStatus(passed=True, max_abs_difference=0, min_cosine=1, outputs=3),
        parameters=8,
        card=card,
    )
