"""Codes of images by search, directions among codes and walks along them, against what is known in closed form.

The decoder is linear, x = W z + b, wherever an answer is asked for: then a search is ridge regression, the directions
that tell most are singular vectors, and a walk along an axis adds a column of W. Maths in float64.

Legend: N codes or images, D pixels, Z latent.
"""

import pytest
import torch

from fabulate.errors import CapabilityError
from fabulate.models import directions
from fabulate.models.capabilities import Encodes, HasLatent
from fabulate.models.directions import axes, difference, jacobian, morph, principal, traverse
from fabulate.models.families import families
from fabulate.models.families.gan import GANConfig
from fabulate.models.search import BLOCK, WEIGHT, EncodesBySearch, invert
from fabulate.seeds import generator, seeded
from tiny import CLASSES, SMALL, cases, make, pictures

D, Z = SMALL.size, 5
SEARCHED = [case for case in cases(Encodes) if issubclass(families()[case.family], EncodesBySearch)]
assert SEARCHED

over = pytest.mark.parametrize


def normal(*size, seed=0):
    return torch.randn(*size, generator=generator(seed, "latent"), dtype=torch.float64)


class Linear(HasLatent):
    """x = W z + b, with a term for each class: no family, so the registry does not know it."""

    family = "linear"

    def __init__(self, classes=()):
        super().__init__(GANConfig(latent_dim=Z), SMALL, ())
        self.classes = classes
        self.places = {name: i for i, name in enumerate(classes)}
        self.w = torch.nn.Parameter(normal(D, Z))
        self.b = torch.nn.Parameter(normal(1 + len(classes), D, seed=1))

    def players(self):
        return {}

    def decode(self, z, y=None):
        return (z @ self.w.T + self.b[-1] + (0 if y is None else self.b[y])).unflatten(1, self.shape)


@pytest.fixture
def linear():
    return Linear().eval()


# Codes by search


@over("weight", [0.0, 0.003, 1.0])
def test_the_search_on_a_linear_decoder_is_ridge_regression(linear, weight):
    n = 6
    x = normal(n, *SMALL, seed=2) + linear.decode(normal(n, Z, seed=3)).detach()
    codes, left = invert(linear.decode, x, normal(n, 3, Z, seed=4), steps=600, weight=weight)
    w, rest = linear.w.detach(), (x.flatten(1) - linear.b[-1].detach()).T
    exact = torch.linalg.solve(w.T @ w / D + weight * torch.eye(Z) / Z, w.T @ rest / D).T
    torch.testing.assert_close(codes, exact, rtol=1e-4, atol=1e-4)
    error = (linear.decode(exact) - x).square().mean((1, 2, 3)) + weight * exact.square().mean(1)
    torch.testing.assert_close(left, error.detach(), rtol=1e-6, atol=1e-6)


def test_the_best_of_several_starts_is_followed():
    """x = z^4/4 - z^2/2 + z/10 pulled to its minimum: from the right the descent ends in the shallow valley."""

    def decode(z, y):
        return (z**4 / 4 - z**2 / 2 + z / 10 + 1)[:, :, None, None]

    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    shallow, deep = torch.tensor([[[1.5]], [[-1.5]]], dtype=torch.float64)
    alone, left = invert(decode, x, shallow[None], steps=300, weight=0)
    both, less = invert(decode, x, torch.stack([shallow, deep], dim=1), steps=300, weight=0)
    assert alone > 0 > both
    assert less < left


def test_more_steps_and_more_starts_leave_less():
    with seeded(0):
        model = make(SEARCHED[0])
    x = pictures(SMALL, 8).batch(torch.arange(8)).x
    starts = torch.randn(8, 4, 5, generator=generator(0))
    left = [invert(model.decode, x, starts[:, :k], steps=steps)[1].mean() for k, steps in ((1, 0), (1, 40), (4, 200))]
    assert left[0] > left[1] > left[2]


@over("case", SEARCHED, ids=str)
def test_a_searched_code_does_not_depend_on_the_batch_the_place_or_a_gradient_mode(case):
    model = make(case)
    x, y = pictures(SMALL, BLOCK + 3, model.classes).batch(torch.arange(BLOCK + 3))
    codes = model.encode(x, y, steps=12)
    place = BLOCK + 1
    assert torch.equal(model.encode(x[place:], None if y is None else y[place:], steps=12), codes[place:])
    assert not codes.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        assert torch.equal(model.encode(x, y, steps=12, seed=0), codes)
    assert not torch.equal(model.encode(x, y, steps=12, seed=1), codes)


# Untrained, some networks draw hardly more than one gray: then the length of a code weighs more than what is to find.
VIVID = [case for case in SEARCHED if make(case).sample(6).var(0).mean() > WEIGHT]
assert len(VIVID) >= 4


@over("case", VIVID, ids=str)
def test_a_models_own_images_are_found_again(case):
    model = make(case).eval()
    x = model.sample(6, seed=1)
    y = model.labels(None, 6)
    before = (model.sample(6, seed=2) - x).square().mean()
    assert (model.decode(model.encode(x, y, steps=300), y) - x).square().mean() < 0.05 * before


@over("case", [case for case in SEARCHED if case.classes], ids=str)
def test_the_search_uses_the_class_of_each_image(case):
    model = make(case)
    x = model.sample(6, seed=1)
    y = model.labels(None, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    codes = model.encode(x, y)
    assert torch.equal(model.encode(x[order], y[order]), codes[order])
    other = (y + 1) % len(CLASSES)
    right, wrong = ((model.decode(z, c) - x).square().mean() for z, c in ((codes, y), (model.encode(x, other), other)))
    assert right < wrong


# Directions


def test_axes_come_in_the_order_of_the_codes_variance():
    spreads = torch.tensor([0.5, 3.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    codes = 7 + normal(500, Z) * spreads
    found = axes(codes)
    assert found.names == ("axis 1", "axis 3", "axis 4", "axis 0", "axis 2")
    torch.testing.assert_close(found.spreads, codes.std(0, correction=0)[[1, 3, 4, 0, 2]])
    torch.testing.assert_close(found.vectors, torch.eye(Z, dtype=torch.float64)[[1, 3, 4, 0, 2]])
    torch.testing.assert_close(found.shares.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert (found.shares.diff() <= 0).all()
    assert len(found.first(2).names) == len(found.first(2).vectors) == 2


def test_principal_directions_are_those_of_the_singular_values():
    codes = normal(300, Z) @ normal(Z, Z, seed=1)
    found = principal(codes)
    _, values, vectors = torch.linalg.svd(codes - codes.mean(0), full_matrices=False)
    torch.testing.assert_close(found.spreads, values / 300**0.5)
    torch.testing.assert_close((found.vectors * vectors).sum(1).abs(), torch.ones(Z, dtype=torch.float64))
    torch.testing.assert_close(found.shares, values.square() / values.square().sum())


def test_the_jacobian_directions_of_a_linear_decoder_are_its_singular_vectors(linear):
    codes = normal(4000, Z)
    found = jacobian(linear, codes)
    _, values, vectors = torch.linalg.svd(linear.w.detach(), full_matrices=False)
    torch.testing.assert_close((found.vectors * vectors).sum(1).abs(), torch.ones(Z, dtype=torch.float64))
    expected = (values * found.spreads).square()
    torch.testing.assert_close(found.shares, expected / expected.sum())


def test_codes_that_never_vary_have_no_shares(linear):
    codes = torch.ones(4, Z, dtype=torch.float64)
    for found in (axes(codes), principal(codes), jacobian(linear, codes)):
        assert (found.shares == 0).all()
        assert (found.spreads == 0).all()


@over("classes", [(), CLASSES], ids=["one", "classes"])
def test_a_walk_along_an_axis_of_a_linear_decoder_adds_a_column(classes):
    linear = Linear(classes).eval()
    codes = normal(100, Z) * torch.arange(1.0, Z + 1)
    found, base, values = axes(codes), normal(1, Z, seed=1), torch.linspace(-2, 2, 5, dtype=torch.float64)
    y = "dog" if classes else None
    images = traverse(linear, base, found.first(3), values, y)
    assert images.shape == (3, 5, *SMALL)
    middle = linear.decode(base, linear.labels(y, 1))[0]
    for row, name in enumerate(found.names[:3]):
        axis = int(name.removeprefix("axis "))
        for value, image in zip(values, images[row], strict=True):
            column = (value * codes[:, axis].std(correction=0) * linear.w[:, axis]).view(SMALL)
            torch.testing.assert_close(image, (middle + column).detach())


def test_the_attribute_direction_leads_from_one_mean_to_the_other(linear):
    n, apart = 4000, torch.tensor([[1.0, -2.0, 0.0, 0.5, 3.0]], dtype=torch.float64)
    first, second = normal(n, Z), normal(n, Z, seed=1) + apart
    direction = difference(first, second)
    assert ((direction - apart).abs() < 5 * (2 / n) ** 0.5).all()  # five standard errors of a difference of means
    torch.testing.assert_close((first + direction).mean(0), second.mean(0))
    codes, strengths = first[:7], torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)
    images = morph(linear, codes, direction, strengths)
    assert images.shape == (7, 3, *SMALL)
    for i, strength in enumerate(strengths):
        torch.testing.assert_close(images[:, i], linear.decode(codes + strength * direction).detach())


def test_a_conditional_models_codes_hold_no_class():
    with pytest.raises(CapabilityError, match=r"told the class beside the code.*without --conditional"):
        morph(Linear(CLASSES), normal(2, Z), normal(1, Z), torch.ones(1))


def test_codes_of_many_numbers_are_refused_with_families_that_have_few(linear):
    directions.check_size(linear, torch.zeros(1, 1024))
    with pytest.raises(CapabilityError, match=r"has 3,072 numbers.*families with short codes: .*ae.*gan.*vae"):
        directions.check_size(linear, torch.zeros(1, 3072))


@over("case", cases(HasLatent), ids=str)
def test_every_family_with_codes_can_be_walked(case):
    model = make(case)
    y = 1 if case.classes else None
    labels = model.labels(y, 64)
    codes = model.prior(64, labels, generator(0))
    found = [axes(codes), principal(codes)]
    if codes.shape[1] <= 128:
        found.append(jacobian(model, codes, y, probes=1))
    for those in found:
        images = traverse(model, codes[:1], those.first(2), torch.linspace(-1, 1, 3), y)
        assert images.shape == (2, 3, *SMALL)
        assert images.isfinite().all()
        assert not images.requires_grad
        assert model.training
