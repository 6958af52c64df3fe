"""What does a code keep of an image, is all of it used, and do images change smoothly between two codes?

Reconstructions of images never trained on have three errors (`metrics/images.py`): the mean squared error, the same in
decibels, and the structural similarity. They tell what a code keeps, and nothing of how samples look: a code as large
as the image keeps everything. The anchor is the mean training image, the best reconstruction without looking. Means
hide what fails, so the worst are shown as well.

What dimension d of a code tells of the image is, for a family with a posterior q(z | x), at most

    I_d = E_x KL(q(z_d | x) || q(z_d)) = (log v_d - E_x log s_d^2(x)) / 2,       in nats,

with s_d^2(x) the posterior's variance and q(z_d), the codes of all images, taken to be the Gaussian of their mean and
variance v_d. That is the KL term's part that depends on the image (Hoffman, Johnson, "ELBO surgery", 2016,
http://approximateinference.org/accepted/HoffmanJohnson2016.pdf). It equals the KL to p(z) where codes as a whole follow
p(z) = N(0, 1), and makes sense under any prior. A dimension below 0.01 nats has collapsed (Lucas, Tucker, Grosse,
Norouzi, "Don't blame the ELBO!", 2019, https://arxiv.org/abs/1911.02469, definition 1): the decoder goes without it.

Codes without a posterior have no unit, so what is counted does not depend on one: the effective number of dimensions

    (sum_i l_i)^2 / sum_i l_i^2,        l the eigenvalues of the codes' covariance: Z if all are equal, 1 if one counts.

Smoothness is that of `metrics/latent.py`, in features, along straight lines between the codes of two images,
or, where images have no codes, along the shell on which Gaussian codes lie.

Legend: N images, C H W image, Z latent, P paths, T points on a path.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fabulate.evaluation.subject import NO_CLASSES, Findings, Subject, Subset, counter
from fabulate.metrics.images import mse, psnr, ssim
from fabulate.metrics.intervals import Estimate
from fabulate.metrics.latent import ACTIVE, active_units, smoothness
from fabulate.models.base import able
from fabulate.models.capabilities import Encodes, HasLatent, HasPosterior, Reconstructs
from fabulate.models.search import EncodesBySearch
from fabulate.pictures import table
from fabulate.prob import effective_size
from fabulate.report import Row
from fabulate.report.plots import bars
from fabulate.seeds import seed_at
from fabulate.types import Progress, to_uint8

RECONSTRUCTION, LATENT = "Reconstruction", "Latent space"
SEARCHED = 5  # so many times fewer images, where the code of each must be searched for
SHOWN = 8  # best, median and worst reconstructions each
FOR_THE_MEAN = 10_000  # training images at most
IMAGES = 1000  # encoded, at most
WALKS, POINTS = 50, 9  # paths, and images on each, both ends included
COLLAPSED = 0.01  # nats (Lucas et al. 2019)


def reconstruction(subject: Subject, *, images: int = 500, progress: Progress | None = None) -> Findings:
    """Reconstruction errors of images never trained on, with their intervals, and the best, median and worst ones.

    `images`: at most; a fifth of them where each code is found by a search. `progress`: hears (images done, in all). A
    family that cannot reconstruct gives findings without rows that say so. Errors: `ConfigError` for images below 1.
    """
    model = subject.model
    if not isinstance(model, Reconstructs):
        why = f"a {model.family} cannot reconstruct images; {able(Reconstructs)}"
        return Findings(title=RECONSTRUCTION, absent={"reconstruction": why})
    if not len(subject.known(subject.reference)):
        return Findings(title=RECONSTRUCTION, absent={"reconstruction": NO_CLASSES})
    searched = isinstance(model, EncodesBySearch)
    n = max(1, images // SEARCHED) if searched and images > 0 else images
    subset = subject.subset(subject.reference, n, "reconstruction")
    done = counter(progress, len(subset))
    made = subset.each(lambda chunk: model.reconstruct(chunk.x, chunk.y), done)
    errors, decibels, similar = mse(subset.x, made), psnr(subset.x, made), ssim(subset.x, made)
    rows = [Row(name="MSE", value=Estimate.of_mean(errors), better="lower", words="of pixels in [0, 1]")]
    absent = {}
    if decibels.isfinite().all():
        rows.append(Row(name="PSNR (dB)", value=Estimate.of_mean(decibels), better="higher"))
    else:
        absent["PSNR"] = f"infinite: {int((errors == 0).sum()):,} reconstructions equal their images"
    words = "1 for equal images; sees whether neighbouring pixels err together"
    rows.append(Row(name="SSIM", value=Estimate.of_mean(similar), better="higher", words=words))
    sentences = [subject.measured(subset)]
    if searched:
        sentences.append(
            "The model has no encoder: the code of each image was searched for, and a longer search may do better."
        )
    blind = float(mse(subset.x, mean_image(subject).expand_as(made)).mean())
    sentences.append(f"The mean training image in the place of every reconstruction has an MSE of {blind:.4g}.")
    caption = "Reconstructions from the best to the worst by MSE: each below its image."
    pictures = {caption: gallery(subset, made, errors)}
    return Findings(
        title=RECONSTRUCTION, rows=tuple(rows), sentences=tuple(sentences), pictures=pictures, absent=absent
    )


def mean_image(subject: Subject) -> Tensor:
    """The mean of training images, in [-1, 1] (C, H, W), float64."""
    train = subject.data.train
    x = train.pixels(torch.arange(min(len(train), FOR_THE_MEAN)))
    return torch.from_numpy(x.mean(0, dtype=np.float64)) / 127.5 - 1


def gallery(subset: Subset, made: Tensor, errors: Tensor) -> Image.Image:
    """The best reconstructions, those about the median and the worst, each below its image."""
    order = errors.argsort()
    shown = min(SHOWN, len(order))
    middle = (len(order) - shown) // 2
    names, groups = ("best", "median", "worst"), (order[:shown], order[middle : middle + shown], order[-shown:])
    images = np.stack([half[group].numpy() for group in groups for half in (subset.x, to_uint8(made))])
    rows = [word for name in names for word in (name, "reconstruction")]
    legend = f"mean squared errors {errors[order[0]]:.2g} to {errors[order[-1]]:.2g}, median {errors.median():.2g}"
    return table(images, [""] * shown, "Images and their reconstructions", legend, rows)


def latent(subject: Subject) -> Findings:
    """How many dimensions of a code are used, and how smoothly images change between two codes.

    Families without codes, or with codes as large as the image, give findings without rows that say so.
    """
    model = subject.model
    if not isinstance(model, HasLatent):
        return Findings(title=LATENT, absent={"latent space": f"a {model.family} has no codes; {able(HasLatent)}"})
    numbers = model.code(0, 0 if model.classes else None).shape[1]
    if numbers >= model.shape.size:
        return Findings(
            title=LATENT,
            absent={
                "latent space": f"a code has {numbers:,} dimensions and an image {model.shape.size:,}: nothing is left "
                "out, so no dimension of a code is used more than another"
            },
        )
    if not len(subject.known(subject.reference)):
        return Findings(title=LATENT, absent={"latent space": NO_CLASSES})
    usage = used(subject, model)
    smooth = smoothly(subject, model)
    return Findings(
        title=LATENT,
        rows=usage.rows + smooth.rows,
        sentences=usage.sentences + smooth.sentences,
        pictures=usage.pictures,
        absent=usage.absent | smooth.absent,
    )


def used(subject: Subject, model: HasLatent) -> Findings:
    """How many dimensions of the code are used."""
    if not isinstance(model, Encodes) or isinstance(model, EncodesBySearch):
        reason = "the model has no encoder: all dimensions of its codes are drawn alike"
        return Findings(title=LATENT, absent={"active units": reason, "posterior collapse": reason})
    subset = subject.subset(subject.reference, IMAGES, "latent")
    codes = subset.each(lambda chunk: model.encode(chunk.x, chunk.y)).double()  # (N, Z); the posterior's means
    variances = torch.linalg.svdvals(codes - codes.mean(0)).square() / len(codes)  # along the principal directions
    size = codes.shape[1]
    words = f"of {size:,}; by how evenly the codes' variance is spread"
    effective = Estimate(effective_size(variances))
    rows = [Row(name="Effective dimensions", value=effective, better="neither", words=words)]
    if not isinstance(model, HasPosterior):
        caption = "The variance of codes along each principal direction, as a share of all of it."
        spectrum = bars(
            (variances / variances.sum().clamp_min(1e-300)).tolist(), "principal direction", "share of variance"
        )
        absent = {
            "active units": "without a posterior the scale of codes means nothing, and no variance is small or large",
            "posterior collapse": "the model has no posterior",
        }
        return Findings(
            title=LATENT,
            rows=tuple(rows),
            sentences=(subject.measured(subset),),
            pictures={caption: spectrum},
            absent=absent,
        )
    posterior = subset.each(lambda chunk: torch.cat(model.posterior(model.given(chunk.x, chunk.y)), dim=1))
    nats = information(*posterior.double().chunk(2, dim=1))
    words = f"of {size:,}: those whose posterior mean varies by more than {ACTIVE} over images"
    rows.insert(0, Row(name="Active units", value=Estimate(active_units(codes)), better="neither", words=words))
    words = f"share of dimensions that tell less than {COLLAPSED} nats of the image"
    share = float((nats < COLLAPSED).double().mean())
    rows.insert(1, Row(name="Posterior collapse", value=Estimate(share), better="lower", words=words))
    caption = "What each dimension of the code tells of the image, in nats, most first."
    picture = bars(nats.sort(descending=True).values.tolist(), "dimension", "nats")
    return Findings(title=LATENT, rows=tuple(rows), sentences=(subject.measured(subset),), pictures={caption: picture})


def information(mean: Tensor, logvar: Tensor) -> Tensor:
    """At most what each dimension of Gaussian codes tells of the image, by means and log-variances (N, Z): (Z,) nats.

    >>> mean, logvar = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.zeros(2, 2)
    >>> information(mean, logvar)  # log(1 + 1) / 2, and nothing
    tensor([0.3466, 0.0000])
    """
    whole = mean.var(0, correction=0) + logvar.exp().mean(0)
    return (whole.log() - logvar.mean(0)) / 2


def smoothly(subject: Subject, model: HasLatent) -> Findings:
    """How directly and evenly images change on paths between two codes."""
    if isinstance(model, Encodes) and not isinstance(model, EncodesBySearch):
        paths, between = walks(subject, model), "the codes of real images, straight"  # (P, T, C, H, W) in [-1, 1]
    else:
        paths, between = drawn_walks(subject, model), "sampled codes, along the shell on which they lie"
    t = torch.linspace(0, 1, POINTS).view(1, -1, 1, 1, 1)
    fades = (1 - t) * paths[:, :1] + t * paths[:, -1:]
    ends = to_uint8(paths[:, [0, -1]]).flatten(2)
    moving = (ends[:, 0] != ends[:, 1]).any(1)  # as an image file shows them: what is left is rounding
    if not moving.any():
        return Findings(title=LATENT, absent={"smoothness": "every path begins and ends with the same image"})
    measured, anchor = (smoothness(along(subject, images[moving])) for images in (paths, fades))
    rows = (
        Row(
            name="Path detour",
            value=measured.detour,
            better="lower",
            words="length of a path over the distance of its ends; 1 is straight",
        ),
        Row(
            name="Largest step of a path",
            value=measured.largest_step,
            better="lower",
            words="over its mean step; 1 is even, much more is a jump",
        ),
    )
    sentences = [
        f"{int(moving.sum())} paths of {POINTS} images between {between}; compared in features "
        f"({subject.features.name}). A plain cross-fade of the pixels of the same two ends has a detour of "
        f"{anchor.detour.value:.3g} and a largest step of {anchor.largest_step.value:.3g}."
    ]
    if not moving.all():
        sentences.append(
            f"Of {len(paths)} paths {int((~moving).sum())} begin and end with the same image and are left out."
        )
    return Findings(title=LATENT, rows=rows, sentences=tuple(sentences))


def walks(subject: Subject, model: Encodes) -> Tensor:
    """Paths between the codes of two images, in the class of the first: (P, T, C, H, W) in [-1, 1]."""
    subset = subject.subset(subject.reference, 2 * WALKS, "walks")
    codes = subset.each(lambda chunk: model.encode(chunk.x, chunk.y)).to(model.device)
    pairs = len(codes) // 2
    y = [None] * pairs if subset.y is None else subset.y
    return torch.stack(
        [
            model.interpolate(codes[i : i + 1], codes[pairs + i :][:1], POINTS, y[i], "linear").cpu()
            for i in range(pairs)
        ]
    )


def drawn_walks(subject: Subject, model: HasLatent) -> Tensor:
    """Paths between two codes that samples come from, in one class each: (P, T, C, H, W) in [-1, 1]."""
    paths = []
    for i in range(WALKS):
        y = model.classes[i % len(model.classes)] if model.classes else None
        start, end = (model.code(seed_at(subject.seed, "walks", i, which), y) for which in ("start", "end"))
        paths.append(model.interpolate(start, end, POINTS, y, "spherical").cpu())
    return torch.stack(paths)


def along(subject: Subject, paths: Tensor) -> Tensor:
    """The features of the images of paths (P, T, C, H, W): (P, T, D)."""
    return subject.features(paths.flatten(0, 1)).view(*paths.shape[:2], -1)
