"""How likely does the model find images it never saw? In nats, and where it means something, in bits per number.

A family with a likelihood is asked for it, one with a bound for that:

    log p(x)  >=  E log 1/k sum_i p(x | z_i) p(z_i) / q(z_i | x)  >=  E log p(x | z)  -  KL(q(z | x) || p(z)),
    (HasLikelihood)  (ImportanceWeighted, k codes)                    (HasBound: the ELBO and its two terms)

and the middle one rises to the first as k grows (Burda, Grosse, Salakhutdinov, "Importance weighted autoencoders",
2016, https://arxiv.org/abs/1509.00519; its tables have k = 5,000 and all test images). Which images p(x) is of decides
what may be compared: binary ones, floats (a density, which may exceed 1), or the 256 values of a pixel. Uniform noise
as wide as a pixel's step makes of a density a bound for the last, so that every such model can be compared in

    bits/dim = -log2 P(x) / D,        8 for a model that knows nothing

(Theis, van den Oord, Bethge, "A note on the evaluation of generative models", 2016, https://arxiv.org/abs/1511.01844;
which also says that a likelihood tells little of how samples look). All intervals are over images.

k codes of an image cost k passes through the decoder. So the middle one is computed for a part of the images only, and
its mean over all is estimated from the ELBO of all and the mean difference on that part (the difference estimator of
surveys: Cochran, "Sampling techniques", 3rd edition, 1977, section 12.10): images differ far more than bounds of one.

Legend: N images, C H W image, D = C H W numbers in an image.
"""

from functools import partial
from math import log, sqrt

import torch
from torch import Tensor

from fabulate.errors import ConfigError
from fabulate.evaluation.subject import NO_CLASSES, Chunk, Findings, Subject, Subset, counter
from fabulate.metrics.intervals import Estimate
from fabulate.models.base import able
from fabulate.models.capabilities import Evidence, HasBound, HasLikelihood, ImportanceWeighted, dequantised
from fabulate.prob import BIN, bits_per_dim
from fabulate.report import Row
from fabulate.types import Progress

TITLE = "Likelihood"
SLOWER = 10  # so many times fewer images, where each takes many passes through the network
AT_LEAST = 100  # of them, where there are as many, for a difference between two bounds

MEASURES = {
    "gray": "Gray values are given to a Bernoulli likelihood as if they were binary. The nats are not those of any "
    "p(x): they can only be compared with those of models trained in the same way.",
    "dynamic": "Of binary images: each pixel is white with its gray value as probability (dynamic binarisation), drawn "
    "once for each image, by the seed. Comparable with published numbers of dynamically binarised images.",
    "threshold": "Of binary images: white from the middle gray on. Not comparable with other binarisations.",
    "density": "p(x) is a density of floats in [-1, 1]: its nats may be above 0, and cannot be compared with those of "
    "binary images. Bits per dimension are those of uint8 images, by uniform noise as wide as a pixel's step "
    "(dequantisation), one draw for each image.",
    "levels": "P(x) is a probability of images of few gray levels: a gray value between two becomes one of them by "
    "chance, drawn once for each image, by the seed. With two levels that is dynamic binarisation, comparable with "
    "published numbers of dynamically binarised images.",
    "uint8": "p(x) is a probability of uint8 images, and so are the bits per dimension: no noise is added.",
}
NO_BITS = "the likelihood is not one of uint8 images"


def likelihood(subject: Subject, *, k: int = 100, images: int = 1000, progress: Progress | None = None) -> Findings:
    """log p(x) of images never trained on, or a lower bound of it, and how much higher that of training images is.

    `k`: codes of each image in the importance-weighted bound, where the family has one; published numbers have 5,000.
    `images`: at most; a tenth of them where each takes many passes through the network, but 100 have k codes drawn.
    `progress`: hears (images measured, in all). A family without p(x) gives a section without rows that says so.
    Errors: `ConfigError` for k or images below 1.
    """
    if k < 1:
        raise ConfigError(f"a bound needs at least 1 code of each image, given k={k}")
    model = subject.model
    if not isinstance(model, HasLikelihood | HasBound):
        reason = f"the family {model.family} has no p(x) ({able(HasLikelihood)}; for a lower bound, {able(HasBound)})"
        return Findings(title=TITLE, absent={"likelihood": reason})
    if not len(subject.known(subject.reference)):
        return Findings(title=TITLE, absent={"likelihood": NO_CLASSES})
    n = images
    if isinstance(model, HasLikelihood) and model.passes > 1:
        n = max(1, images // SLOWER) if images > 0 else images
    held_out = subject.subset(subject.reference, n, "likelihood")
    trained = None  # without test images there is nothing to compare the training images with
    if subject.data.test is not None:
        trained = subject.subset(subject.data.train, len(held_out), "likelihood, train")
    if isinstance(model, HasLikelihood):
        return exact(subject, model, held_out, trained, progress)
    return bounded(subject, model, held_out, trained, k, progress)


def exact(
    subject: Subject, model: HasLikelihood, held_out: Subset, trained: Subset | None, progress: Progress | None
) -> Findings:
    """The section of a model that knows p(x)."""
    done = counter(progress, len(held_out) + (0 if trained is None else len(trained)))
    numbers = subject.data.shape.size

    def bits(chunk: Chunk) -> Tensor:
        return model.bits_per_dim(chunk.x, chunk.y, seed=chunk.seed)

    values = held_out.each(bits, done)
    nats = -numbers * (values.double() * log(2) + log(BIN))  # the same number as a density of the noisy image
    if model.measure == "levels":
        nats = -numbers * values.double() * log(2)
        words = "log P(x) of an image"
        rows = [Row(name="log P(x) (nats)", value=Estimate.of_mean(nats), better="higher", words=words)]
        if trained is not None:
            rows.append(gap("nats", trained.each(bits, done) * numbers * log(2), -nats))
        said = (subject.measured(held_out), f"How log P(x) is computed: {model.method}.", MEASURES["levels"])
        return Findings(title=TITLE, rows=tuple(rows), sentences=said)
    rows = [bits_row(values), Row(name="log p(x) (nats)", value=Estimate.of_mean(nats), better="higher")]
    if trained is not None:
        rows.append(gap("bits/dim", trained.each(bits, done), values))
    passes = f" Each image takes {model.passes} passes through the network." if model.passes > 1 else ""
    method = f"How log p(x) is computed: {model.method}.{passes}"
    return Findings(title=TITLE, rows=tuple(rows), sentences=(subject.measured(held_out), method, MEASURES["density"]))


def bounded(
    subject: Subject, model: HasBound, held_out: Subset, trained: Subset | None, k: int, progress: Progress | None
) -> Findings:
    """The section of a model that knows a lower bound of p(x)."""
    continuous = model.measure == "density"
    tighter = isinstance(model, ImportanceWeighted)
    few = held_out.first(max(len(held_out) // SLOWER, AT_LEAST)) if tighter else held_out
    total = len(held_out) + len(few) * (tighter + continuous) + (0 if trained is None else len(trained))
    done = counter(progress, total)
    terms = Evidence(*held_out.each(partial(evidence, model), done).T)
    tightest = few.each(partial(bound, model, k), done) if tighter else terms.bound
    rows = [
        Row(
            name="ELBO (nats)", value=Estimate.of_mean(terms.bound), better="higher", words="log p(x) is at least this"
        ),
        Row(name="Reconstruction (nats)", value=Estimate.of_mean(terms.reconstruction), better="higher"),
        Row(name=f"{model.rate_name} (nats)", value=Estimate.of_mean(terms.rate), better="neither"),
    ]
    sentences = [subject.measured(held_out), MEASURES[model.measure]]
    if tighter:
        name, words = f"Importance-weighted bound, k={k} (nats)", f"the same, tightened by {k:,} codes of each image"
        rows.append(Row(name=name, value=corrected(terms.bound, tightest), better="higher", words=words))
        sentences.append(f"Codes are drawn by seed {subject.seed}; more of them tighten the bound (k = {k:,} here).")
        if len(few) < len(held_out):
            sentences.append(
                f"By how much they tighten it, and bits/dim, is known from {len(few):,} of the images; the ELBO of all "
                "stands in for the rest."
            )
    if model.measure == "uint8":
        rows.append(
            bits_row(*(-nats.double() / (subject.data.shape.size * log(2)) for nats in (tightest, terms.bound)))
        )
    if continuous:
        noisy = few.each(lambda chunk: bound(model, k, chunk._replace(x=dequantised(chunk.x, chunk.seed))), done)
        rows.append(bits_row(*(bits_per_dim(nats.double(), subject.data.shape.size) for nats in (noisy, terms.bound))))
    if trained is not None:
        seen = Evidence(*trained.each(partial(evidence, model), done).T)
        rows.append(gap("nats", -seen.bound, -terms.bound))
    absent = {} if model.measure in ("uint8", "density") else {"bits/dim": NO_BITS}
    return Findings(title=TITLE, rows=tuple(rows), sentences=tuple(sentences), absent=absent)


def evidence(model: HasBound, chunk: Chunk) -> Tensor:
    """Both terms of the bound (N, 2)."""
    return torch.stack(model.evidence(chunk.x, chunk.y, seed=chunk.seed), dim=1)


def bound(model: HasBound, k: int, chunk: Chunk) -> Tensor:
    """The tightest bound that the model has (N,), of k codes where it takes several."""
    if isinstance(model, ImportanceWeighted):
        return model.score(chunk.x, chunk.y, k=k, seed=chunk.seed)
    return model.score(chunk.x, chunk.y)


def bits_row(bits: Tensor, rough: Tensor | None = None) -> Row:
    """Bits per dimension (M,); where only some of the images have them, with a rough value for each image (N,)."""
    words = "what each number of an image costs; 8 for a model that knows nothing"
    value = Estimate.of_mean(bits) if rough is None else corrected(rough, bits)
    return Row(name="bits/dim", value=value, better="lower", words=words)


def corrected(rough: Tensor, exact: Tensor) -> Estimate:
    """The mean of what is known exactly of the first images (M,) and roughly of all (N,), M >= 2.

    >>> corrected(torch.tensor([1.0, 5.0, 3.0, 7.0]), torch.tensor([2.0, 6.0])).value
    5.0
    """
    rough, exact = rough.double(), exact.double()
    n, m = len(rough), len(exact)
    if m == n:
        return Estimate.of_mean(exact)
    difference = exact - rough[:m]
    together = torch.stack([rough[:m], difference]).cov()[0, 1]  # the mean of all holds the first m too
    variance = float((rough.var() + 2 * together) / n + difference.var() / m)
    return Estimate.about(float(rough.mean() + difference.mean()), sqrt(max(variance, 0.0)))


def gap(unit: str, train: Tensor, test: Tensor) -> Row:
    """How much more a test image costs than a training image, by the costs of each (N,) and (M,)."""
    errors = [float(part.double().var()) / len(part) if len(part) > 1 else float("nan") for part in (train, test)]
    value = Estimate.about(float(test.double().mean() - train.double().mean()), sqrt(sum(errors)))
    words = "how much more an unseen image costs than a training image; well above 0: memorised"
    return Row(name=f"Generalisation gap ({unit})", value=value, better="lower", words=words)
