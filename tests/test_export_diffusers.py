"""Export to diffusers; where diffusers is installed, the same noise gives the same image there."""

import pytest
import torch

from fabulate.errors import ConfigError, RunError
from fabulate.models.families.flow import Flow, FlowConfig
from fabulate.models.families.vae import VAE, VAEConfig
from fabulate.models.spaces import PCA
from fabulate.nets import DiT, UNet
from fabulate.paths import PATHS, STEPS
from fabulate.samplers import SOLVERS
from fabulate.seeds import generator, seeded
from fabulate.share.diffusers import betas, to_diffusers
from fabulate.types import ImageShape

GRAY, COLOUR = ImageShape(1, 8, 8), ImageShape(3, 32, 32)
CLASSES = ("cat", "dog", "horse")


def model(path="cosine", target="v", shape=GRAY, classes=(), **network):
    with seeded(0, "weights"):
        made = Flow(FlowConfig(path=path, target=target, network=UNet(width=8, patch=1, **network)), shape, classes)
    return made.eval()


@pytest.mark.parametrize("path", ["cosine", "ddpm"])
def test_betas_are_the_path(path):
    kept = torch.cumprod(1 - torch.tensor(betas(path), dtype=torch.float64), 0)
    times = (torch.arange(STEPS, dtype=torch.float64) + 1) / (STEPS + 1)
    torch.testing.assert_close(kept, PATHS[path].level(times).alpha.square(), rtol=1e-9, atol=0)
    assert 0 < min(betas(path)) < max(betas(path)) < 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VAE(VAEConfig(), GRAY), "this is a vae; train a flow"),
        (lambda: model("linear", "velocity"), "path linear with the target velocity; train it with --preset diffusers"),
        (lambda: model("cosine", "edm"), "with the target edm"),
        (
            lambda: Flow(FlowConfig(path="cosine", target="v", network=DiT(width=32, depth=1)), GRAY),
            "this is a dit; train",
        ),
        (lambda: Flow(FlowConfig(path="cosine", target="v"), ImageShape(1, 28, 28)), "this is a unet with patch 4"),
        (lambda: model(shape=ImageShape(1, 9, 9)), "sides that are multiples of 2, and the images are 9x9 gray"),
        (
            lambda: Flow(FlowConfig(path="cosine", target="v", network=UNet(width=8, patch=1), space=PCA()), GRAY),
            "work on pixels, and this flow on pca",
        ),
    ],
)
def test_what_diffusers_cannot_run_is_refused_in_words(tmp_path, make, words):
    with pytest.raises(ConfigError, match=words):
        to_diffusers(make(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        to_diffusers(model(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# Against diffusers itself

of_diffusers = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its use of numpy


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'fabulate[diffusers]'")


def noise(shape, n=2, seed=0):
    return torch.randn(n, *shape, generator=generator(seed, "exchange"))


@pytest.mark.parametrize("classes", [(), CLASSES], ids=["plain", "classes"])
@pytest.mark.parametrize("shape", [GRAY, COLOUR], ids=str)
def test_the_exported_network_computes_the_same(diffusers, tmp_path, shape, classes):
    here = model(shape=shape, classes=classes, blocks=2)
    there = diffusers.UNet2DModel.from_pretrained(to_diffusers(here, tmp_path / "out") / "unet").eval()
    x, y = noise(shape), torch.tensor([2, len(CLASSES)]) if classes else None
    for i in (0, 500, 999):
        with torch.no_grad():
            ours = here.network(x, torch.full((2,), (i + 1) / (STEPS + 1)), y)
            theirs = there(x, i, class_labels=y).sample
        assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("path", ["cosine", "ddpm"])
def test_the_same_noise_gives_the_same_image_there(diffusers, tmp_path, path):
    here, steps = model(path), 20
    pipeline = diffusers.DDIMPipeline.from_pretrained(to_diffusers(here, tmp_path / "out"))
    scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps)
    x = noise(here.shape)
    times = (scheduler.timesteps.double() + 1) / (STEPS + 1)
    alpha, sigma, *_ = here.path.level(times)
    levels = torch.cat([sigma / alpha, torch.zeros(1)])
    theirs = x.clone()
    with torch.no_grad():
        for i in scheduler.timesteps:
            theirs = scheduler.step(pipeline.unet(theirs, i).sample, i, theirs).prev_sample
        ours = SOLVERS["euler"].walk(here.denoiser(None), x / float(alpha[0]), list(levels), None)
    assert (ours - theirs).abs().max() < 1e-4


@of_diffusers
@pytest.mark.parametrize("scheduler", ["DDPM", "DDIM", "DPMSolverMultistep"])
def test_pipelines_sample_the_exported_model(diffusers, tmp_path, scheduler):
    pipeline = diffusers.DDPMPipeline.from_pretrained(to_diffusers(model(), tmp_path / "out"))
    pipeline.scheduler = getattr(diffusers, f"{scheduler}Scheduler").from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler == "DDIM":
        pipeline = diffusers.DDIMPipeline(unet=pipeline.unet, scheduler=pipeline.scheduler)
        pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        batch_size=2, num_inference_steps=5, generator=torch.Generator().manual_seed(0), output_type="np"
    ).images
    assert images.shape == (2, 8, 8, 1)
    assert (images == images).all()


# Our solvers against its schedulers, step by step, on the exact denoiser of a Gaussian

STD = 0.5


@of_diffusers
@pytest.mark.parametrize(
    ("name", "scheduler", "options"),
    [
        ("euler", "DDIMScheduler", {}),
        ("dpm2", "DPMSolverMultistepScheduler", {"solver_order": 2, "final_sigmas_type": "zero"}),
        (
            "dpm3",
            "DPMSolverMultistepScheduler",
            {"solver_order": 3, "final_sigmas_type": "zero", "lower_order_final": False},
        ),
        ("ancestral", "DDPMScheduler", {"variance_type": "fixed_small"}),
    ],
)
def test_solvers_walk_as_diffusers_schedulers_do(diffusers, name, scheduler, options):
    common = {"trained_betas": betas("ddpm"), "prediction_type": "sample", "timestep_spacing": "trailing"}
    clip = {} if scheduler.startswith("DPM") else {"clip_sample": False}
    theirs = getattr(diffusers, scheduler)(num_train_timesteps=STEPS, **common, **clip, **options)
    steps = 10  # a divisor of 1,000: else diffusers' DDIM steps to other times than its own list says
    theirs.set_timesteps(steps)
    alpha, sigma, *_ = PATHS["ddpm"].level((theirs.timesteps.double() + 1) / (STEPS + 1))
    levels = list(torch.cat([sigma / alpha, torch.zeros(1)]))
    ends = list(torch.cat([alpha, torch.ones(1)]))

    def denoise(u, s):
        return STD**2 / (STD**2 + s**2) * u

    x = noise(GRAY, n=3).double()
    chances = [noise(GRAY, n=3, seed=i).double() for i in range(steps)]
    seen = []  # what each step of ours begins at, in their scale

    def watched(u, s):
        seen.append(u * ends[len(seen)])
        return denoise(u, s)

    waiting = iter(chances)
    last = SOLVERS[name].walk(watched, x / ends[0], levels, lambda: next(waiting))
    seen.append(last)
    y = x
    for k, i in enumerate(theirs.timesteps):
        assert (seen[k] - y).abs().max() < 1e-4
        predicted = denoise(y / ends[k], levels[k])
        if name == "ancestral":
            y = ancestral_step(theirs, predicted, i, y, chances[k])
        else:
            y = theirs.step(predicted, i, y).prev_sample
    assert (last - y).abs().max() < 1e-4


def test_ipndm_walks_as_diffusers_does(diffusers):
    """Its scheduler follows the cosine path and is given v; at its first time u is infinite, so from the second."""
    theirs = diffusers.IPNDMScheduler(num_train_timesteps=STEPS)
    theirs.set_timesteps(12)
    alpha, sigma, *_ = PATHS["cosine"].level(theirs.timesteps[1:].double())
    levels = [*(sigma / alpha), torch.tensor(0.0)]
    x = noise(GRAY, n=3).double()

    def denoise(u, s):
        return STD**2 / (STD**2 + s**2) * u

    ours = SOLVERS["ipndm"].walk(denoise, x / alpha[0], levels, None)
    for k, t in enumerate(theirs.timesteps[1:]):
        image = denoise(x / alpha[k], levels[k])
        eps = (x - alpha[k] * image) / sigma[k]
        x = theirs.step(alpha[k] * eps - sigma[k] * image, t, x).prev_sample
    assert (ours - x).abs().max() < 1e-4


def ancestral_step(scheduler, predicted, i, y, chance):
    """One step of DDPMScheduler with our noise: its mean (variance switched off by the last step's rule) is not public,
    so the generator is made to give our numbers."""
    from unittest.mock import patch

    with patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: chance):
        return scheduler.step(predicted, i, y).prev_sample
