"""Networks turn any image shape they promise into vectors and back, refuse the others in words, and use the class."""

import copy
from itertools import pairwise
from typing import get_args

import pytest
import torch

from fabulate.errors import ConfigError
from fabulate.nets import DCGAN, MLP, NETWORKS, Conv, Network
from fabulate.nets.blocks import ACTIVATIONS, LARGEST_SIDE, NORMS, SMALLEST_SIDE, Activation, ByClass, Norm, Residual
from fabulate.nets.conv import kernel, sizes
from fabulate.seeds import generator, seeded
from fabulate.types import ImageShape
from tiny import NARROW

CLASSES = 3
SMALL = {kind: cls(**NARROW.get(kind, {})) for kind, cls in NETWORKS.items()}
NETS = [SMALL[cls().kind] for cls in get_args(get_args(Network)[0])]  # encoders and decoders
PER_SAMPLE = [*(net for net in NETS if net.per_sample), Conv(width=4, blocks=2, norm="group", activation="silu")]
assert {"mlp", "conv"} <= {net.kind for net in PER_SAMPLE}


def normal(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=generator(0, "nets"))


def check_shapes(net: MLP | Conv | DCGAN, shape: ImageShape, classes: int = 0) -> None:
    y = torch.zeros(2, dtype=torch.int64) if classes else None
    with torch.no_grad():
        assert net.encoder(shape, 5, classes)(normal(2, *shape), y).shape == (2, 5)
        assert net.decoder(5, shape, classes)(normal(2, 5), y).shape == (2, *shape)


@pytest.mark.parametrize("net", [Conv(width=2, blocks=1), DCGAN(width=2)], ids=lambda net: net.kind)
@pytest.mark.parametrize("side", [8, 9, 15, 16, 17, 31, 32, 33, 50, 63, 64])
def test_convolutional_networks_take_every_side_from_8_to_64(side, net):
    for channels in (1, 3):
        check_shapes(net, ImageShape(channels, side, side))


@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("shape", [(1, 8, 64), (3, 64, 8), (3, 9, 11), (1, 33, 16), (3, 63, 10)], ids=str)
@pytest.mark.parametrize("net", NETS, ids=lambda net: net.kind)
def test_networks_take_images_that_are_not_square(net, shape, classes):
    check_shapes(net, ImageShape(*shape), classes)


@pytest.mark.parametrize("side", range(8, 65))
def test_kernels_lead_from_each_size_to_its_half_and_back(side):
    down = torch.nn.Conv2d(1, 1, kernel((side, 7)), stride=2, padding=1, bias=False)
    up = torch.nn.ConvTranspose2d(1, 1, kernel((side, 7)), stride=2, padding=1, bias=False)
    with torch.no_grad():
        halved = down(torch.ones(1, 1, side, 7))
        assert halved.shape[2:] == (-(-side // 2), 4)
        assert up(halved).shape[2:] == (side, 7)
        up.weight.fill_(1.0)
        covered = up(torch.ones_like(halved))[0, 0, 1:-1, 3]  # how often the critic's gradient reaches a pixel
    assert (covered == covered[0]).all() == (side % 2 == 0)


@pytest.mark.parametrize("side", range(8, 65))
def test_sizes_halve_rounding_up_until_a_side_is_at_most_four(side):
    scales = sizes(ImageShape(1, side, LARGEST_SIDE))
    assert scales[0] == (side, LARGEST_SIDE)
    assert min(scales[-1]) <= 4 < min(scales[-2])
    for (height, width), (lower, narrower) in pairwise(scales):
        assert (lower, narrower) == (-(-height // 2), -(-width // 2))


@pytest.mark.parametrize("net", [Conv(width=2), DCGAN(width=2)], ids=lambda net: net.kind)
@pytest.mark.parametrize("side", [65, 100, 127, 255, 256])
def test_convolutional_networks_take_sides_up_to_256_and_any_channels(net, side):
    for shape in ((1, side, side), (2, 8, side), (4, side, 47)):
        check_shapes(net, ImageShape(*shape))


def test_the_channels_of_dcgan_stop_at_eight_times_its_width():
    assert DCGAN().channels(ImageShape(3, 64, 64)) == [3, 128, 256, 512, 1024]  # the paper's
    assert DCGAN().channels(ImageShape(3, 256, 256)) == [3, 128, 256, 512, 1024, 1024, 1024]


@pytest.mark.parametrize(
    ("net", "shape", "words"),
    [
        (net, shape, f"the {net.kind} network takes sides from 8 to 256, .*--size 32, or --network {other}")
        for net, other in ((Conv(), "mlp"), (DCGAN(), "conv"))
        for shape in ((1, 7, 7), (1, 257, 257), (3, 8, 257), (3, 7, 256))
    ],
)
def test_convolutional_networks_refuse_other_sides_in_words(net, shape, words):
    assert (SMALLEST_SIDE, LARGEST_SIDE) == (8, 256)
    shape = ImageShape(*shape)
    for build in (lambda: net.encoder(shape, 5), lambda: net.decoder(5, shape)):
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


def both_halves(net: MLP | Conv | DCGAN, shape: ImageShape) -> list[tuple[torch.nn.Module, torch.Tensor]]:
    """Encoder and decoder in float64, and something to give to each."""
    with seeded(0):
        halves = ((net.encoder(shape, 5), normal(6, *shape)), (net.decoder(5, shape), normal(6, 5)))
    return [(network.double(), x.double()) for network, x in halves]


@pytest.mark.parametrize("net", PER_SAMPLE, ids=lambda net: net.kind)
def test_each_image_and_each_code_is_seen_alone(net):
    with torch.no_grad():
        for network, x in both_halves(net, ImageShape(1, 9, 11)):
            torch.testing.assert_close(network.train()(x)[:2], network(x[:2]))


@pytest.mark.parametrize("net", [net for net in NETS if not net.per_sample], ids=lambda net: net.kind)
def test_batch_normalisation_sees_the_batch_in_training_and_each_image_alone_in_use(net):
    with torch.no_grad():
        for network, x in both_halves(net, ImageShape(1, 9, 11)):
            assert not torch.allclose(network.train()(x)[:2], network(x[:2]))
            torch.testing.assert_close(network.eval()(x)[:2], network(x[:2]))


def test_the_order_of_pixels_in_memory_changes_nothing_but_speed():
    """Inside, the channels of a pixel lie side by side: outputs and Adam's steps are those of the plain order."""
    results = []
    for order in (torch.channels_last, torch.contiguous_format):
        moved = []
        for network, x in both_halves(Conv(width=4, blocks=1), ImageShape(3, 9, 11)):
            network.to(memory_format=order)
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
            for _ in range(3):
                optimizer.zero_grad()
                network(x).square().sum().backward()
                optimizer.step()
            assert any(not p.is_contiguous() for p in network.parameters()) == (order == torch.channels_last)
            state = copy.deepcopy(network).state_dict()
            moved += [network(x), *(state[name].contiguous() for name in state)]
        results.append(moved)
    torch.testing.assert_close(results[0], results[1])


def test_a_residual_block_adds_a_soft_branch():
    x = normal(2, 8, 5, 5)
    with torch.no_grad():
        for norm in NORMS:
            block = Residual(8, norm, "relu", scale=0.3)
            torch.testing.assert_close(block(x), x + 0.3 * block.branch(x))
            block.scale = 0.0
            assert torch.equal(block(x), x)


def test_group_normalisation_makes_groups_of_channels_standard():
    y = NORMS["group"](16)(5 + 3 * normal(4, 16, 6, 6)).unflatten(1, (8, 2))  # 8 groups of 2 channels
    torch.testing.assert_close(y.mean((2, 3, 4)), torch.zeros(4, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((2, 3, 4), correction=0), torch.ones(4, 8), atol=1e-4, rtol=0)
    assert all(NORMS["group"](channels)(normal(2, channels, 2, 2)).isfinite().all() for channels in range(1, 20))


def test_a_class_that_weighs_features_makes_the_projection_critic():
    """w . f (1 + g_y) is w . f + e_y . f with e_y = w * g_y (Miyato, Koyama 2018)."""
    features, y = normal(6, 7), torch.tensor([0, 1, 2, 2, 1, 0])
    by_class, last = ByClass(7, CLASSES), torch.nn.Linear(7, 1)
    embedding = last.weight * by_class.gain  # (K, F)
    expected = last(features).squeeze(1) + (embedding[y] * features).sum(1)
    torch.testing.assert_close(last(by_class(features, y)).squeeze(1), expected)
    assert ByClass(7, 0)(features, None) is features
    assert not list(ByClass(7, 0).parameters())


@pytest.mark.parametrize("net", [Conv(), Conv(blocks=1), Conv(blocks=3), Conv(blocks=1, norm="group")], ids=str)
@pytest.mark.parametrize("side", [8, 28, 64])
def test_initial_weights_keep_the_signal(side, net):
    """A code's differences reach the image, and an image's the code, whatever the depth (He et al. 2015)."""
    shape = ImageShape(1, side, side)
    with torch.no_grad(), seeded(0):
        for network, x in ((net.encoder(shape, 64), normal(64, *shape)), (net.decoder(32, shape), normal(64, 32))):
            assert 0.2 < network(x).std(0).mean() < 5


def test_every_choice_of_the_types_is_in_its_table():
    assert set(get_args(Activation)) == ACTIVATIONS.keys()
    assert set(get_args(Norm)) == NORMS.keys()
    assert all(net.kind == kind for kind, net in SMALL.items())


def test_mlp_layers_are_those_asked_for_mirrored_in_the_decoder():
    shape = ImageShape(1, 28, 28)

    def layers(network: torch.nn.Module) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, torch.nn.Linear)]

    encoder = layers(MLP(hidden=(30, 20)).encoder(shape, 5, CLASSES))
    assert encoder == [(784 + CLASSES, 30), (30, 20), (20, 5)]
    assert layers(MLP(hidden=(30, 20)).decoder(5, shape, CLASSES)) == [(5 + CLASSES, 20), (20, 30), (30, 784)]


# DCGAN, to the letter


def test_dcgan_is_the_papers_at_64():
    """Figure 1 of Radford et al. 2016 with kernels of 4x4: 100 -> 1024 x 4x4 -> ... -> 128 x 32x32 -> 3 x 64x64."""
    shape = ImageShape(3, 64, 64)
    with torch.device("meta"):
        generator_, critic = DCGAN().decoder(100, shape), DCGAN().encoder(shape, 1)
        table: list[tuple[str, tuple[int, ...]]] = []
        for network, x in ((generator_, torch.empty(2, 100)), (critic, torch.empty(2, *shape))):
            for layer in network.modules():
                if not list(layer.children()):
                    layer.register_forward_hook(
                        lambda layer, _, out: table.append((type(layer).__name__, tuple(out.shape[1:])))
                    )
            network(x)
    up = [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32)]
    expected = [("Linear", (16384,)), ("Unflatten", up[0])]
    for before, after in pairwise([*up, (3, 64, 64)]):
        expected += [("BatchNorm2d", before), ("ReLU", before), ("ConvTranspose2d", after)]
    for size in reversed(up):
        expected += [("Conv2d", size), *([("BatchNorm2d", size)] if size != up[-1] else []), ("LeakyReLU", size)]
    expected += [("Flatten", (16384,)), ("ByClass", (16384,)), ("Linear", (1,))]
    assert table == expected
    for network, ends, normed in ((generator_, 100 * 16384, (1024, 512, 256, 128)), (critic, 16384, (1024, 512, 256))):
        kernels = 16 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3)
        assert sum(p.numel() for p in network.parameters()) == ends + kernels + 2 * sum(normed)  # no biases but theirs


def test_dcgan_begins_with_the_papers_weights():
    with seeded(0):
        network = DCGAN(width=32).decoder(100, ImageShape(3, 32, 32))
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.ConvTranspose2d):
            n = layer.weight.numel()
            assert abs(float(layer.weight.detach().std()) - 0.02) < 5 * 0.02 / (2 * n) ** 0.5
            assert abs(float(layer.weight.detach().mean())) < 5 * 0.02 / n**0.5
