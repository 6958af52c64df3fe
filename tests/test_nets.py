"""Networks turn any image shape they promise into vectors and back, refuse the others in words, and use the class."""

from itertools import pairwise
from typing import get_args

import pytest
import torch

from fabulate.errors import ConfigError
from fabulate.nets import MLP, NETWORKS, Conv, Network
from fabulate.nets.blocks import ACTIVATIONS, Activation
from fabulate.nets.conv import LARGEST_SIDE, SMALLEST_SIDE, sizes
from fabulate.seeds import generator, seeded
from fabulate.types import ImageShape
from tiny import NARROW

CLASSES = 3
SMALL = {kind: cls(**NARROW.get(kind, {})) for kind, cls in NETWORKS.items()}
NETS = [SMALL[cls().kind] for cls in get_args(get_args(Network)[0])]  # encoders and decoders


def normal(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=generator(0, "nets"))


def check_shapes(net: MLP | Conv, shape: ImageShape, classes: int = 0) -> None:
    y = torch.zeros(2, dtype=torch.int64) if classes else None
    with torch.no_grad():
        assert net.encoder(shape, 5, classes)(normal(2, *shape), y).shape == (2, 5)
        assert net.decoder(5, shape, classes)(normal(2, 5), y).shape == (2, *shape)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", range(8, 65))
def test_conv_takes_every_side_from_8_to_64(side, channels):
    check_shapes(Conv(width=2), ImageShape(channels, side, side))


@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("shape", [(1, 8, 64), (3, 64, 8), (3, 9, 11), (1, 33, 16), (3, 63, 10)], ids=str)
@pytest.mark.parametrize("net", NETS, ids=lambda net: net.kind)
def test_networks_take_images_that_are_not_square(net, shape, classes):
    check_shapes(net, ImageShape(*shape), classes)


@pytest.mark.parametrize("side", range(8, 65))
def test_sizes_halve_rounding_up_until_a_side_is_at_most_four(side):
    scales = sizes(ImageShape(1, side, LARGEST_SIDE))
    assert scales[0] == (side, LARGEST_SIDE)
    assert min(scales[-1]) <= 4 < min(scales[-2])
    for (height, width), (lower, narrower) in pairwise(scales):
        assert (lower, narrower) == (-(-height // 2), -(-width // 2))


@pytest.mark.parametrize("shape", [(1, 7, 7), (1, 65, 65), (3, 8, 65), (3, 7, 64)], ids=str)
def test_conv_refuses_other_sides_in_words(shape):
    assert (SMALLEST_SIDE, LARGEST_SIDE) == (8, 64)
    shape = ImageShape(*shape)
    words = f"takes sides from 8 to 64, and the images are {shape}; use --size, e.g. --size 32, or --network mlp"
    for build in (lambda: Conv().encoder(shape, 5), lambda: Conv().decoder(5, shape)):
        with pytest.raises(ConfigError, match=words):
            build()


@pytest.mark.parametrize("shape", [(1, 129, 129), (3, 8, 129)], ids=str)
def test_mlp_refuses_sides_beyond_128_in_words(shape):
    check_shapes(MLP(hidden=(2,)), ImageShape(1, 128, 128))
    shape = ImageShape(*shape)
    for build in (lambda: MLP().encoder(shape, 5), lambda: MLP().decoder(5, shape)):
        with pytest.raises(ConfigError, match=f"takes sides up to 128, and the images are {shape}; use --size"):
            build()


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.kind)
def test_the_class_changes_every_output_and_is_not_seen_without_classes(net):
    shape = ImageShape(3, 9, 11)
    zero, one = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    for build, given in ((net.encoder, (shape, 5)), (net.decoder, (5, shape))):
        x = normal(4, *shape) if build == net.encoder else normal(4, 5)
        with torch.no_grad():
            network = build(*given, CLASSES)
            assert (network(x, zero) != network(x, one)).flatten(1).any(1).all()
            network = build(*given)
            assert torch.equal(network(x, zero), network(x))


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.kind)
def test_each_image_and_each_code_is_seen_alone(net):
    shape = ImageShape(1, 9, 11)
    with torch.no_grad(), seeded(0):
        for network, x in ((net.encoder(shape, 5), normal(6, *shape)), (net.decoder(5, shape), normal(6, 5))):
            network = network.train().double()
            x = x.double()
            torch.testing.assert_close(network(x)[:2], network(x[:2]))


@pytest.mark.parametrize("side", [8, 28, 64])
def test_initial_weights_keep_the_signal(side):
    """A code's differences reach the image, and an image's the code, whatever the depth (He et al. 2015)."""
    shape = ImageShape(1, side, side)
    with torch.no_grad(), seeded(0):
        for network, x in (
            (Conv().encoder(shape, 64), normal(64, *shape)),
            (Conv().decoder(32, shape), normal(64, 32)),
        ):
            assert 0.2 < network(x).std(0).mean() < 5


def test_every_activation_of_the_type_is_in_the_table():
    assert set(get_args(Activation)) == ACTIVATIONS.keys()
    assert all(net.kind == kind for kind, net in SMALL.items())


def test_mlp_layers_are_those_asked_for_mirrored_in_the_decoder():
    shape = ImageShape(1, 28, 28)

    def layers(network: torch.nn.Module) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, torch.nn.Linear)]

    encoder = layers(MLP(hidden=(30, 20)).encoder(shape, 5, CLASSES))
    assert encoder == [(784 + CLASSES, 30), (30, 20), (20, 5)]
    assert layers(MLP(hidden=(30, 20)).decoder(5, shape, CLASSES)) == [(5 + CLASSES, 20), (20, 30), (30, 784)]
