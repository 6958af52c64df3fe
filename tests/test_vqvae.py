"""The vector-quantised VAE against what is known exactly: nearest codes, closed forms, all sequences of a tiny grid.

Maths in float64. A statistic says its n and is allowed five standard errors: a sound one fails once in two million.

Legend: B batch, T cells, D numbers in a vector, K codes.
"""

from itertools import pairwise, product
from math import log, prod

import pytest
import torch
from pydantic import ValidationError

from fabulate.config import Training
from fabulate.errors import ConfigError
from fabulate.models.families.vqvae import VQVAE, VQVAEConfig
from fabulate.nets.grid import GridDecoder, GridEncoder, channels, scales
from fabulate.nets.tokens import TokenTransformer, Transformer
from fabulate.nets.vq import DEAD, FORGET, FSQ, Codebook, Quantiser, perplexity
from fabulate.seeds import generator, seeded
from fabulate.training.loop import Learner
from fabulate.training.validation import score_images
from fabulate.types import Batch, ImageShape, to_float, unit
from tiny import CLASSES, SMALL, Tensors, pictures

QUANTISERS = [FSQ(levels=(3, 2)), Codebook(size=6, dim=2)]
TINY = {"width": 8, "blocks": 1, "prior": Transformer(width=16, layers=1)}
GRID, LENGTH, CODES = (2, 2), 4, 3  # so small that all 81 sequences can be looked at


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=generator(seed, "vqvae"), dtype=torch.float64)


pytestmark = pytest.mark.usefixtures("float64")


def writer(classes: int = 0, layers: int = 2) -> TokenTransformer:
    with seeded(0):
        return TokenTransformer(Transformer(width=8, layers=layers), CODES, GRID, classes).requires_grad_(False)


def model(quantiser: Quantiser, cells: int = 4, classes: tuple[str, ...] = ()) -> VQVAE:
    with seeded(0):
        return VQVAE(VQVAEConfig(quantiser=quantiser, cells=cells, **TINY), SMALL, classes)


# Quantisers


def test_a_codebook_gives_the_nearest_code():
    with seeded(0):
        quantiser = Codebook(size=50, dim=3).build()
    e = normal(4, 20, 3)
    z, indices, _ = quantiser(e)
    for vector, code, index in zip(e.flatten(0, 1), z.flatten(0, 1), indices.flatten(), strict=True):
        distances = (quantiser.codebook - vector).square().sum(1)
        assert index == distances.argmin()
        assert torch.equal(code, quantiser.codebook[index])


def test_the_gradient_passes_a_codebook_unchanged_and_fsq_as_if_it_did_not_round():
    weights = normal(2, 5, 2)
    for quantiser in QUANTISERS:
        e = normal(2, 5, 2, seed=1).requires_grad_()
        (weights * quantiser.build()(e).z).sum().backward()
        expected = weights * (2 * torch.sigmoid(e) * torch.sigmoid(-e) if isinstance(quantiser, FSQ) else 1)
        torch.testing.assert_close(e.grad, expected, rtol=1e-12, atol=0)


def test_the_price_of_a_codebook_is_the_commitment_in_closed_form():
    quantiser = Codebook(size=2, dim=2, commitment=0.25).build()
    quantiser.codebook.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    e = torch.tensor([[[0.3, 0.1], [0.9, 0.8]], [[0.0, 0.4], [1.0, 1.0]]]).requires_grad_()
    _, indices, commitment = quantiser(e)
    assert indices.tolist() == [[0, 1], [0, 1]]
    torch.testing.assert_close(commitment, torch.tensor(0.25 * ((0.1 + 0.05) + (0.16 + 0)) / 2))
    commitment.backward()
    torch.testing.assert_close(e.grad[0, 0], 0.25 * 2 * torch.tensor([0.3, 0.1]) / 2)


def test_codes_are_the_decayed_means_of_the_vectors_that_chose_them():
    """The recursion of van den Oord et al. 2017, appendix A.1, kept as the two sums it is written in there."""
    codes, rounds = 3, 30
    with seeded(0):
        quantiser = Codebook(size=codes, dim=2).build()
    quantiser.shares.fill_(1 / codes)
    counts, sums = quantiser.shares.clone(), quantiser.codebook * quantiser.shares[:, None]
    moved = quantiser.codebook.clone()
    for i in range(rounds):
        e = normal(8, 5, 2, seed=i)
        indices = quantiser(e).indices
        quantiser.remember(e, indices)
        member = torch.nn.functional.one_hot(indices.flatten(), codes).double()
        counts = FORGET * counts + (1 - FORGET) * member.mean(0)
        sums = FORGET * sums + (1 - FORGET) * member.T @ e.flatten(0, 1) / 40
    assert (counts > DEAD / codes).all()  # none was restarted: the recursion is all there is
    torch.testing.assert_close(quantiser.shares, counts)
    torch.testing.assert_close(quantiser.codebook, sums / counts[:, None])
    assert not torch.allclose(quantiser.codebook, moved, atol=1e-3)


def test_dead_codes_begin_anew_at_vectors_of_the_batch_and_more_codes_are_in_use():
    """16 clusters; 31 of 32 codes are far from all of them, so one code is used, until the others count as dead."""
    quantiser = Codebook(size=32, dim=2).build()
    e = 10 * normal(16, 2)[:, None] + 0.01 * normal(16, 8, 2, seed=1)
    quantiser.codebook.fill_(1e3)[0] = 0.0
    quantiser.shares.fill_(1 / 32)
    alone = perplexity(quantiser(e).indices, 32)
    assert alone == 1
    needed = int(log(DEAD) / log(FORGET)) + 1
    for step in range(needed):
        with seeded(step):
            quantiser.remember(e, quantiser(e).indices)
        assert (perplexity(quantiser(e).indices, 32) > 10) == (step == needed - 1)


def test_a_fresh_codebook_begins_at_vectors_of_the_first_batch():
    quantiser, e = Codebook(size=6, dim=2).build(), 100 + normal(4, 5, 2)
    quantiser.remember(e, quantiser(e).indices)
    assert torch.cdist(quantiser.codebook, e.flatten(0, 1)).min(1).values.max() == 0


@pytest.mark.parametrize("levels", [(8, 6, 5), (2,), (3, 2), (2, 2, 2, 7)], ids=str)
def test_fsq_has_every_combination_of_levels_once_and_numbers_invert_vectors(levels):
    quantiser = FSQ(levels=levels).build()
    numbers = torch.arange(prod(levels))
    vectors = quantiser.vectors(numbers)
    assert quantiser.size == len(numbers) == len(vectors.unique(dim=0))
    grid = [[2 * k / (n - 1) - 1 for k in range(n)] for n in levels]
    assert {tuple(v) for v in vectors.mul(1e9).round().tolist()} == {
        tuple(round(v * 1e9) for v in row) for row in product(*grid)
    }
    e = torch.logit((vectors + 1) / 2, eps=1e-3)  # a vector that is squashed to the code's
    z, indices, commitment = quantiser(e[None])
    assert torch.equal(indices[0], numbers)
    torch.testing.assert_close(z[0], vectors)
    assert commitment == 0


@pytest.mark.parametrize("levels", [(), (1,), (8, 1), (0, 3)])
def test_fsq_refuses_levels_that_are_none(levels):
    with pytest.raises(ValidationError, match="levels"):
        FSQ(levels=levels)


@pytest.mark.parametrize("quantiser", QUANTISERS, ids=lambda spec: spec.kind)
def test_vectors_of_the_chosen_codes_are_what_the_quantiser_gave(quantiser):
    built = quantiser.build()
    z, indices, _ = built(normal(3, 7, built.dim))
    torch.testing.assert_close(built.vectors(indices), z, rtol=1e-12, atol=1e-12)
    assert z.shape == (3, 7, built.dim)
    assert indices.shape == (3, 7)
    assert 0 <= indices.min() <= indices.max() < built.size


# The grid


@pytest.mark.parametrize("side", range(8, 65))
def test_an_image_is_halved_at_least_once_and_then_until_the_grid_is_small_enough(side):
    sizes = scales(ImageShape(1, side, 40), 64)
    assert sizes[0] == (side, 40)
    assert prod(sizes[-1]) <= 64 < prod(sizes[-2])
    for (height, width), (lower, narrower) in pairwise(sizes):
        assert (lower, narrower) == (-(-height // 2), -(-width // 2))
    assert len(scales(ImageShape(1, 8, 8), 1000)) == 2
    assert len(channels(len(sizes) - 1, 64)) == len(sizes) - 1


@pytest.mark.parametrize("shape", [(1, 8, 64), (3, 64, 8), (3, 9, 11), (1, 33, 16), (3, 63, 10), (3, 64, 64)], ids=str)
def test_images_become_grids_and_grids_images(shape):
    size = {"width": 8, "blocks": 1, "cells": 64}
    x, shape = normal(2, *shape), ImageShape(*shape)
    with torch.no_grad():
        e = GridEncoder(shape, 3, **size)(x)
        assert e.shape == (2, 3, *scales(shape, 64)[-1])
        assert GridDecoder(3, shape, **size)(e).shape == x.shape


def test_one_images_grid_does_not_depend_on_the_others():
    size = {"width": 8, "blocks": 2, "cells": 16}
    encoder, decoder = GridEncoder(SMALL, 3, **size), GridDecoder(3, SMALL, **size)
    x = normal(3, *SMALL).requires_grad_()
    decoder(encoder(x))[0].sum().backward()
    assert x.grad[0].all()
    assert not x.grad[1:].any()


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 8, 257)], ids=str)
def test_other_sides_are_refused_in_words(shape):
    with pytest.raises(ConfigError, match=r"takes sides from 8 to 256, and the images are .*; use --size"):
        VQVAE(VQVAEConfig(), ImageShape(*shape))


# The transformer


@pytest.mark.parametrize("classes", [0, 3])
def test_a_place_sees_the_codes_before_it_and_no_other(classes):
    transformer, y = writer(classes), torch.tensor([1, 2]) if classes else None
    tokens = torch.tensor([[0, 1, 2, 0], [2, 2, 0, 1]])
    logits = transformer(tokens, y)
    for t in range(LENGTH):
        other = tokens.clone()
        other[:, t:] = (other[:, t:] + 1) % CODES
        changed = (transformer(other, y) - logits).abs().amax((0, 2))  # (T,)
        assert changed[: t + 1].max() < 1e-12
        assert (changed[t + 1 :] > 1e-6).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("classes", [0, 3])
def test_all_sequences_have_probability_one_and_are_drawn_as_often_as_it_says(classes, temperature):
    n, transformer = 20_000, writer(classes)
    sequences = torch.tensor(list(product(range(CODES), repeat=LENGTH)))  # (81, T)
    y = torch.full((n,), 2) if classes else None
    some = None if y is None else y[: len(sequences)]
    torch.testing.assert_close(transformer.log_prob(sequences, some).exp().sum(), torch.tensor(1.0))

    conditionals = torch.log_softmax(transformer(sequences, some) / temperature, dim=2)
    p = conditionals.gather(2, sequences[:, :, None]).sum((1, 2)).exp()  # (81,)
    if temperature == 1:
        torch.testing.assert_close(p, transformer.log_prob(sequences, some).exp())
    drawn = transformer.sample(torch.rand(n, LENGTH, generator=generator(0)), y, temperature)
    frequency = (drawn[:, None] == sequences).all(2).double().mean(0)
    torch.testing.assert_close(frequency.sum(), torch.tensor(1.0))
    assert ((frequency - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()
    assert p.max() > 2 * p.min()  # not uniform, or the law would say little


def test_chance_at_its_ends_draws_the_first_and_the_last_code():
    transformer = writer()
    ends = torch.tensor([[0.0] * LENGTH, [1 - 2**-53] * LENGTH])
    assert transformer.sample(ends).tolist() == [[0] * LENGTH, [CODES - 1] * LENGTH]


# The model


def all_codes(vqvae: VQVAE) -> torch.Tensor:
    k, t = vqvae.autoencoder.quantiser.size, vqvae.transformer.length
    return torch.tensor(list(product(range(k), repeat=t)))


def test_the_score_is_below_the_exact_log_likelihood():
    """4 cells of 3 codes: log p(x) is a sum over 81 grids. The score takes one of its terms."""
    vqvae = model(FSQ(levels=(3,))).eval().requires_grad_(False)
    x = pictures(SMALL, 5).batch(torch.arange(5)).x
    grids = all_codes(vqvae)
    log_p_z = vqvae.transformer.log_prob(grids)
    z = vqvae.autoencoder.quantiser.vectors(grids)
    terms = torch.stack([log_p_z + vqvae.log_p_x(Batch(image.expand(len(grids), *SMALL)), z) for image in x])  # (5, 81)
    score = vqvae.score(x)
    assert (score < terms.logsumexp(1)).all()
    gap = (terms - score[:, None]).abs()
    assert (gap.min(1).values < 1e-9).all()
    test = vqvae.test_terms(Batch(x))
    torch.testing.assert_close(test["loss"], -score.mean())
    torch.testing.assert_close(test["reconstruction"] + test["code_length"], test["loss"])
    torch.testing.assert_close(test["mse"], (unit(vqvae.reconstruct(x)) - unit(x)).square().mean())


@pytest.mark.parametrize("quantiser", QUANTISERS, ids=lambda spec: spec.kind)
def test_each_player_leaves_the_other_and_the_prior_leaves_the_codebook_alone(quantiser):
    vqvae = model(quantiser, classes=CLASSES).train()
    batch = pictures(SMALL, 6, CLASSES).batch(torch.arange(6))
    codebook = {name: buffer.clone() for name, buffer in vqvae.named_buffers()}
    vqvae.prior_loss(batch)["loss"].backward()
    assert all(p.grad is None for p in vqvae.autoencoder.parameters())
    assert all(torch.equal(codebook[name], buffer) for name, buffer in vqvae.named_buffers())
    vqvae.zero_grad(set_to_none=True)
    vqvae.autoencoder_loss(batch)["loss"].backward()
    assert all(p.grad is None for p in vqvae.transformer.parameters())


@pytest.mark.parametrize("quantiser", QUANTISERS, ids=lambda spec: spec.kind)
def test_samples_are_decoded_from_codes_of_the_quantiser(quantiser):
    vqvae = model(quantiser).eval()
    z = vqvae.prior(50, None, generator(0))
    codes = vqvae.autoencoder.quantiser.vectors(torch.arange(vqvae.autoencoder.quantiser.size))
    drawn = z.view(50, codes.shape[1], -1).transpose(1, 2).flatten(0, 1)
    assert torch.cdist(drawn, codes).min(1).values.max() < 1e-12
    assert vqvae.encode(pictures(SMALL, 2).batch(torch.arange(2)).x).shape == (2, z.shape[1])


def test_a_low_temperature_draws_less_various_samples():
    vqvae = model(FSQ(levels=(3, 2))).eval()
    spread = [vqvae.sample(64, temperature=t).var(0).mean() for t in (0.01, 0.3, 1.0)]
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "quantiser", [pytest.param(FSQ(levels=(3, 3)), id="fsq"), pytest.param(Codebook(size=8, dim=2), id="codebook")]
)
def test_two_equally_likely_images_cost_log_two_and_are_drawn_equally_often(quantiser):
    torch.set_default_dtype(torch.float32)
    steps = 220  # dead codes begin anew at step 230, which costs nats for a while
    n, pixels = 1000, torch.zeros(2, *SMALL, dtype=torch.uint8)
    pixels[0, :, :4], pixels[1, :, :, 4:] = 255, 255
    images = Tensors(pixels)
    learner = Learner(model(quantiser), Training(steps=steps, batch_size=8, lr=5e-3, ema=0), images)
    assert len(list(learner.steps())) == steps
    vqvae = learner.sampler().eval()
    terms = score_images(vqvae, images, seed=0)
    assert terms["mse"] < 1e-2
    assert terms["code_length"] == pytest.approx(log(2), abs=0.1)
    distances = (vqvae.sample(n)[:, None] - to_float(pixels)).square().mean((2, 3, 4))  # (n, 2)
    share = (distances[:, 0] < distances[:, 1]).double().mean()
    assert abs(share - 0.5) <= 5 * (0.25 / n) ** 0.5
    assert (distances.min(1).values < 0.05).double().mean() > 0.9  # hardly any is neither
