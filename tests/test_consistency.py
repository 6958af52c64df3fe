"""Consistency models: what holds without noise, where learning begins, and the verb that begins with a flow."""

from pathlib import Path

import pytest
import torch

import fabulate
from fabulate.cli import main
from fabulate.models.families.consistency import Consistency, ConsistencyConfig, ConsistencySampling
from fabulate.models.families.flow import Flow, FlowConfig
from fabulate.nets import UNet
from fabulate.samplers import HIGHEST
from fabulate.seeds import generator, seeded
from fabulate.types import Batch, ImageShape
from tiny import Case, make

SHAPE = ImageShape(1, 8, 8)


def noise(n: int = 3) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=generator("noise"))


@pytest.mark.parametrize("target", ["x_skip", "eps", "v", "velocity", "edm"])
@pytest.mark.parametrize("path", ["linear", "cosine", "ddpm"])
def test_without_noise_an_image_is_its_own_end(path, target):
    with seeded(0, "weights"):
        model = Consistency(ConsistencyConfig(path=path, target=target, network=UNet(width=8)), SHAPE).eval()
    x = noise()
    with torch.no_grad():
        far, near = ((model.denoiser(None)(x, torch.tensor(s)) - x).abs().max() for s in (0.02, 0.002))
    assert near < 0.2 * far
    assert model.loss(Batch(noise(64).tanh()))["loss"].isfinite()


def test_a_level_for_each_image_is_as_that_level_for_all():
    model = make(Case("consistency", "unet")).eval()
    u, levels = noise(), torch.tensor([0.1, 1.0, 30.0])
    with torch.no_grad():
        together = model.denoiser(None)(u, levels.view(3, 1, 1, 1))
        alone = [model.denoiser(None)(u[i : i + 1], level) for i, level in enumerate(levels)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_loss_is_0_where_all_points_have_one_end_and_not_where_they_have_several(monkeypatch):
    model, batch = make(Case("consistency", "unet")), Batch(noise(16).tanh())
    monkeypatch.setattr("fabulate.models.families.consistency.LOWEST", 0.0)  # below it the image itself is the end
    monkeypatch.setattr(model, "denoiser", lambda y: lambda u, s: torch.zeros_like(u))
    assert float(model.loss(batch)["loss"]) == pytest.approx(0, abs=1e-6)
    monkeypatch.setattr(model, "denoiser", lambda y: lambda u, s: u)
    assert float(model.loss(batch)["loss"]) > 1


def test_one_evaluation_is_the_end_of_the_noise_and_more_noise_is_less_each_time():
    model = make(Case("consistency", "unet")).eval()
    model.sampling = ConsistencySampling(evaluations=1)
    seen: list[float] = []
    z = noise().flatten(1)
    with torch.no_grad():
        end = model.denoiser(None)(noise() * HIGHEST, torch.tensor(HIGHEST)).clamp(-1, 1)
        assert torch.equal(model.decode(z), end)
        denoiser = model.denoiser
        model.denoiser = lambda y: lambda u, s: seen.append(float(s)) or denoiser(y)(u, s)
        model.sampling = ConsistencySampling(evaluations=4)
        model.decode(z)
    assert len(seen) == 4 and seen == sorted(seen, reverse=True) and seen[0] == HIGHEST and seen[-1] > 0.5


def ends(capsys, *words: object) -> tuple[int, str]:
    """The exit code of a command, and all it said."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    else:
        code = 0
    return code, " ".join("".join(capsys.readouterr()).split())


@pytest.mark.slow
def test_distil_begins_with_the_flow_and_tells_what_few_evaluations_cost(tmp_path: Path, capsys):
    flow, out = tmp_path / "flow", tmp_path / "flow-distilled"
    fabulate.train("flow", "digits", out=flow, steps=3, conditional=True, network=UNet(width=8), quiet=True)
    code, said = ends(capsys, "distil", flow, "--steps", 2, "-n", 20)
    assert code == 0, said
    assert "Begins with weights of" in said and "100% of the numbers" in said
    assert "20 samples each, compared with 179 test images, features: classifier" in said
    assert (out / "evaluations.png").exists()
    student = fabulate.load(out)
    assert student.family == "consistency" and student.classes == fabulate.load(flow).classes
    assert "is finished" in ends(capsys, "distil", flow, "--steps", 2, "-n", 20)[1]


def test_distil_refuses_before_any_training(tmp_path: Path, capsys):
    fabulate.train("vae", "digits", out=tmp_path / "vae", steps=2, quiet=True)
    code, said = ends(capsys, "distil", tmp_path / "vae")
    assert code == 2 and "is a vae, which draws at once; a flow is what can be distilled" in said
    code, said = ends(capsys, "distil", tmp_path / "vae", "-n", 1)
    assert code == 2 and "greater than or equal to 2" in said
    assert not (tmp_path / "vae-distilled").exists()


def test_weights_of_a_flow_are_taken_over_and_no_other_familys(tmp_path: Path):
    with seeded(0, "weights"):
        Flow(FlowConfig(network=UNet(width=8)), SHAPE).save_pretrained(tmp_path / "flow")
    tiny = {"steps": 1, "quiet": True, "network": UNet(width=8)}
    fabulate.train("consistency", "digits", begin_from=tmp_path / "flow", out=tmp_path / "run", **tiny)
    fabulate.train("ae", "digits", steps=1, quiet=True, out=tmp_path / "ae")
    with pytest.raises(fabulate.errors.ConfigError, match="of the family ae, and this is consistency"):
        fabulate.train("consistency", "digits", begin_from=tmp_path / "ae", out=tmp_path / "other", **tiny)
