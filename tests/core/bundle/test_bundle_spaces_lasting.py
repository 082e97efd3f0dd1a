"""Ids of spaces outlive the classes that they are made of."""

import json
from dataclasses import replace

import torch
from pydantic import BaseModel, create_model
from tests.bundles import (
    full_model,
    stack,
)
from tests.core.bundle.spaces import ids, in_memory, moved

from tectum_core.architecture import (
    TextConfig,
)
from tectum_core.bundle import Bundle
from tectum_core.tokenizer import Tokenizer


def later(config: BaseModel) -> BaseModel:
    """The same as a later version may know it: with a field more, at its default."""
    kind = type(config)
    grown = create_model(f"Later{kind.__name__}", __base__=kind, dropout=(float, 0.0))
    return grown.model_validate(config.model_dump())


def test_a_field_added_with_a_default_moves_no_id(full_bundle: Bundle) -> None:
    architecture = full_bundle.config.model
    parts = ("vision", "video", "text", "joint", "latent_action", "world_model")
    grown = {part: later(getattr(architecture, part)) for part in parts}
    assert all("dropout" in part.model_dump() for part in grown.values())
    config = full_bundle.config.model_copy(
        update={
            "images": later(full_bundle.config.images),
            "model": architecture.model_copy(update=grown),
        }
    )

    assert moved(full_bundle, replace(full_bundle, config=config)) == set()


def test_how_the_tokenizers_file_is_laid_out_moves_nothing(full_bundle: Bundle) -> None:
    assert full_bundle.tokenizer is not None
    told = json.loads(full_bundle.tokenizer.json)
    told["truncation"] = {
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip

    other = Tokenizer(json.dumps(dict(reversed(told.items())), indent=2))

    assert moved(full_bundle, replace(full_bundle, tokenizer=other)) == set()


WORDS = """{"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": [],
"model": {"type": "WordLevel", "vocab": {"[PAD]": 0, "[UNK]": 1, "open": 2}, "unk_token": "[UNK]"}}
"""


def test_ids_are_what_they_were_in_the_first_release() -> None:
    # Callers keep vectors under these ids: where one moves without need, their indexes are lost.
    bundle = in_memory(full_model(text=TextConfig(transformer=stack(), vocabulary_size=3)))
    for weight in bundle.model.state_dict().values():
        weight.copy_((torch.arange(weight.numel()) % 7 - 3).view(weight.shape) / 8)

    assert ids(replace(bundle, tokenizer=Tokenizer(WORDS))) == {
        "pooled": "85c4a0b3e265cf2b",
        "tokens": "044e5646e1a575e4",
        "joint": "de858e6527242741",
        "clip_pooled": "f98fd70a6e988446",
        "clip_tokens": "65a195f65035421d",
        "latent_action": "8a7111e1b93941f2",
        "world_latent": "37152d6218002f8c",
    }
