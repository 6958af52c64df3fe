"""Probabilities: KL, log-mean-exp, weighted samples, and what a decoder's output means as a distribution over images.

A likelihood is a small module that turns a decoder's raw output (B, C, H, W) into p(x | z): `log_prob` in nats, summed
over the image, and `mean`, the image to show. Its noise level, where it has one, is a learned number, the same for each
pixel. With it fixed at 1 a VAE's reconstruction term is off by a factor that people then repair by hand with beta
(Rybkin, Daniilidis, Levine, "Simple and effective VAE training with calibrated decoders", 2021,
https://arxiv.org/abs/2006.13202).

Legend: N weights, B batch, C H W image, Z latent, K samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import log, pi
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.types import unit


def kl_to_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each dimension, in nats (Kingma, Welling 2014, appendix B).

    >>> kl_to_standard_normal(torch.zeros(2), torch.zeros(2))
    tensor([0., 0.])
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


def log_normal(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """log N(x; mean, exp(logvar)) of each dimension, in nats."""
    return -0.5 * (log(2 * pi) + logvar + (x - mean).square() / logvar.exp())


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """log(mean(exp(x))) along one dimension, without overflow."""
    return x.logsumexp(dim) - log(x.shape[dim])


def effective_size(weights: Tensor) -> float:
    """The effective sample size of weights (N,), (sum w)^2 / sum w^2 (Kish 1965); 0 for none.

    >>> effective_size(torch.ones(10)), effective_size(torch.tensor([1.0, 0.0]))
    (10.0, 1.0)
    """
    return float(weights.sum().square() / weights.square().sum().clamp_min(torch.finfo(weights.dtype).tiny))


def chosen(weights: Tensor, uniform: Tensor) -> Tensor:
    """An index for each row of weights (N, K), as often as its weight says, by uniform numbers in [0, 1): (N,).

    >>> chosen(torch.tensor([[1.0, 3.0, 0.0]]).expand(3, 3), torch.tensor([0.2, 0.3, 0.99])).tolist()
    [0, 1, 1]
    """
    up_to = weights.cumsum(1)
    return (uniform[:, None] >= up_to / up_to[:, -1:]).sum(1)


def systematic(weights: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n indices by weights (N,), each as often as its share of them, give or take one: systematic resampling.

    Where the first falls is random, by the generator, or the middle (Kitagawa, "Monte Carlo filter and smoother for
    non-Gaussian nonlinear state space models", 1996, https://doi.org/10.1080/10618600.1996.10474692).

    >>> systematic(torch.tensor([0.5, 0.25, 0.25]), 4).tolist()
    [0, 0, 1, 2]
    """
    first = 0.5 if generator is None else torch.rand(1, generator=generator, dtype=torch.float64)
    marks = (torch.arange(n, dtype=torch.float64) + first) / n
    edges = weights.double().cumsum(0)
    return torch.searchsorted(edges / edges[-1], marks).clamp_max(len(weights) - 1)


BIN = 2 / 255  # the distance of two pixel values in [-1, 1]: the width of the noise that makes them a density


def bits_per_dim(log_prob: Tensor, numbers: int) -> Tensor:
    """What each of an image's numbers costs at most, in bits, given log p(x + noise) in nats of a density over floats.

    The noise is uniform and one BIN wide, so the mean over it bounds the probability of the uint8 image (Theis, van den
    Oord, Bethge, "A note on the evaluation of generative models", 2016, https://arxiv.org/abs/1511.01844).

    >>> uniform = torch.tensor(-784 * log(256 * BIN), dtype=torch.float64)  # over 256 bins in each of 784 numbers
    >>> round(float(bits_per_dim(uniform, numbers=784)), 9)
    8.0
    """
    return -(log_prob / numbers + log(BIN)) / log(2)


# Adam moves a number by at most its learning rate a step, whatever it means. Noise levels are learnt as LEAD times a
# parameter, so that they keep up with a decoder that improves under a falling learning rate. They begin at 1, louder
# than most images: while details drown in noise, codes settle near the prior that samples are drawn from.
LEAD = 10.0


Measure = Literal["gray", "density", "uint8"]


class Likelihood(nn.Module, ABC):
    """p(x | z), given the decoder's raw output."""

    measure: ClassVar[Measure]
    """What exp(log_prob) is: a number for gray values (no probability), a density of floats, a uint8 probability."""

    @abstractmethod
    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """log p(x | raw) in nats, summed over the image: (B, C, H, W) twice -> (B,)."""

    def mean(self, raw: Tensor) -> Tensor:
        """The image to show, in [-1, 1]: the raw output squashed by a sigmoid."""
        return 2 * torch.sigmoid(raw) - 1


class Categorical(Likelihood):
    """Each symbol of a sequence, by the logits (B, ..., K) of its place; what is behind the end counts for nothing."""

    measure: ClassVar[Measure] = "uint8"

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        tokens = x.flatten(1).long()
        ended = (tokens == 0).cumsum(1)
        within = (ended == 0) | ((ended == 1) & (tokens == 0))
        found = torch.log_softmax(raw.flatten(1, -2), 2).gather(2, tokens[..., None])[..., 0]
        return (found * within).sum(1)

    def mean(self, raw: Tensor) -> Tensor:
        """The likeliest symbols (B, ...), int16, 0 from the end on."""
        tokens = raw.argmax(-1).flatten(1)
        return (tokens * ((tokens == 0).cumsum(1) == 0)).to(torch.int16).view(raw.shape[:-1])


class Bernoulli(Likelihood):
    """Each pixel, in [0, 1], as the probability of white: -log p is the binary cross-entropy of the textbook.

    Gray values between 0 and 1 are not binary, so this is a bound's ingredient rather than a density of images.
    """

    measure = "gray"

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(raw, unit(x), reduction="none").sum((1, 2, 3))


class Gaussian(Likelihood):
    """A Gaussian about each pixel, one learned standard deviation; a density, in nats per image in [-1, 1]."""

    measure = "density"

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.0))

    @property
    def logvar(self) -> Tensor:
        """The logarithm of the noise's variance."""
        return LEAD * self.level

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        return log_normal(x, self.mean(raw), self.logvar).sum((1, 2, 3))


class DiscretisedLogistic(Likelihood):
    """The probability of each of the 256 pixel values under a logistic density, one learned scale.

    A true probability of uint8 images, so -log2 of it per number is bits/dim (Salimans, Karpathy, Chen, Kingma,
    "PixelCNN++", 2017, https://arxiv.org/abs/1701.05517, section 2.1). The outermost bins reach to infinity.
    """

    measure = "uint8"

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.0))

    @property
    def log_scale(self) -> Tensor:
        """The logarithm of the logistic's scale."""
        return LEAD * self.level

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        half_bin = 1 / 255  # 256 values over [-1, 1]
        centred = x - self.mean(raw)
        upper = (centred + half_bin) * torch.exp(-self.log_scale)
        lower = (centred - half_bin) * torch.exp(-self.log_scale)
        # log(s(upper) - s(lower)) = log s(upper) + log s(-lower) + log(1 - exp(lower - upper)), s the sigmoid
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
        log_prob = torch.where(x < -1 + half_bin, F.logsigmoid(upper), inside)
        log_prob = torch.where(x > 1 - half_bin, F.logsigmoid(-lower), log_prob)
        return log_prob.sum((1, 2, 3))


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "logistic": DiscretisedLogistic,
}

# Gray values are not binary, and a Bernoulli likelihood of them is no probability; of these black and white images it
# is. "dynamic" draws a new image each time, with the gray values as probabilities (Salakhutdinov, Murray, "On the
# quantitative analysis of deep belief networks", 2008, https://doi.org/10.1145/1390156.1390266).
BINARISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "dynamic": lambda x: 2 * torch.bernoulli(unit(x)) - 1,
    "threshold": lambda x: torch.where(x >= 0, 1.0, -1.0).to(x),
}
