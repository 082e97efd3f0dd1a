"""An outline is the model without its numbers, and without what torch computes on no device by."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.bundles import full_model, stack, vision, write_full

from tectum_core.architecture import (
    ActionBinsConfig,
    ActionConfig,
    ContinuousBottleneck,
    ConvolutionDynamicsConfig,
    LatentActionConfig,
    ModelConfig,
    StemConfig,
    VqBottleneck,
)
from tectum_core.model import PerceptionModel
from tectum_core.model.outline import outline

READ = """
import sys
from pathlib import Path

from tectum_core.bundle import read_bundle
from tectum_core.golden import check_golden
from tectum_core.predictor import Predictor

for folder in sys.argv[1:]:
    check_golden(Predictor(read_bundle(Path(folder), "full")))
print("torch._dynamo" in sys.modules)
"""


def latent(**changes: object) -> LatentActionConfig:
    found = full_model().latent_action
    assert found is not None
    return LatentActionConfig.model_validate(
        {**dict(found), "bottleneck": ContinuousBottleneck(), **changes}
    )


MODELS = {
    "whole": full_model(),
    "vq": full_model(latent_action=latent(bottleneck=VqBottleneck())),
    "convolutions": full_model(
        vision=vision(stem=StemConfig(widths=(4, 8, 12), blocks=1, groups=2)),
        latent_action=latent(dynamics=ConvolutionDynamicsConfig(widths=(8, 16))),
    ),
    "bins": full_model(
        vision=vision(transformer=stack(), pooling="attention", positions="learnt"),
        actions=ActionConfig(
            dimensions=4, state_dimensions=3, max_steps=8, bins=ActionBinsConfig(count=16)
        ),
        latent_action=latent(),
    ),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_it_has_every_name_shape_and_type_of_the_model(model: ModelConfig) -> None:
    whole, empty = PerceptionModel(model), outline(model)

    for tensors in ("named_parameters", "named_buffers"):
        found, wanted = (
            {key: (value.shape, value.dtype) for key, value in getattr(one, tensors)()}
            for one in (empty, whole)
        )
        assert found == wanted


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_it_takes_no_memory_for_weights_and_tables(model: ModelConfig) -> None:
    empty = outline(model)
    large = [*empty.parameters(), *(b for k, b in empty.named_buffers() if "positions" in k)]

    assert len(large) > 10
    assert all(tensor.is_meta for tensor in large)


def test_it_draws_no_number() -> None:
    before = torch.get_rng_state()

    outline(MODELS["bins"])

    assert torch.equal(torch.get_rng_state(), before)


def test_what_initialises_beside_an_outline_does_so() -> None:
    outline(MODELS["bins"])

    assert float(torch.nn.Linear(64, 64).weight.detach().std()) > 0.01


def test_a_bundle_is_read_and_proved_without_the_import_of_torchs_compiler(tmp_path: Path) -> None:
    for name in ("convolutions", "bins"):
        write_full(tmp_path / name, **dict(MODELS[name]))

    run = subprocess.run(
        [sys.executable, "-c", READ, *tmp_path.iterdir()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert run.stdout == "False\n", run.stderr[-2000:]
