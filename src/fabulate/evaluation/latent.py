"""Is the code used, all of it, and do images change smoothly between two codes?

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

Legend: N images, Z latent, P paths, T points on a path, C H W image.
"""

import torch
from torch import Tensor

from fabulate.evaluation.chosen import NO_CLASSES, choose, known, told
from fabulate.evaluation.sections import Findings, Subject
from fabulate.metrics.intervals import Estimate
from fabulate.metrics.latent import ACTIVE, active_units, smoothness
from fabulate.models.base import able
from fabulate.models.capabilities import Encodes, HasLatent, HasPosterior
from fabulate.models.search import EncodesBySearch
from fabulate.report import Row
from fabulate.report.plots import bars
from fabulate.seeds import seed_at
from fabulate.types import to_uint8

TITLE = "Latent space"
IMAGES = 1000  # encoded, at most
WALKS, POINTS = 50, 9  # paths, and images on each, both ends included
COLLAPSED = 0.01  # nats (Lucas et al. 2019)


def latent(subject: Subject) -> Findings:
    """How many dimensions of a code are used, and how smoothly images change between two codes.

    Families without codes, or with codes as large as the image, give a section without rows that says so.
    """
    model = subject.model
    if not isinstance(model, HasLatent):
        return Findings(title=TITLE, absent={"latent space": f"a {model.family} has no codes; {able(HasLatent)}"})
    numbers = model.code(0, 0 if model.classes else None).shape[1]
    if numbers >= model.shape.size:
        return Findings(
            title=TITLE,
            absent={
                "latent space": f"a code has {numbers:,} numbers and an image {model.shape.size:,}: nothing is left "
                "out, so no dimension of a code is used more than another"
            },
        )
    if not len(known(subject, subject.reference)):
        return Findings(title=TITLE, absent={"latent space": NO_CLASSES})
    usage = used(subject, model)
    smooth = smoothly(subject, model)
    return Findings(
        title=TITLE,
        rows=usage.rows + smooth.rows,
        sentences=usage.sentences + smooth.sentences,
        pictures=usage.pictures,
        absent=usage.absent | smooth.absent,
    )


def used(subject: Subject, model: HasLatent) -> Findings:
    """How many dimensions of the code are used."""
    if not isinstance(model, Encodes) or isinstance(model, EncodesBySearch):
        reason = "the model has no encoder: all dimensions of its codes are drawn alike"
        return Findings(title=TITLE, absent={"active units": reason, "posterior collapse": reason})
    chosen = choose(subject, subject.reference, IMAGES, "latent")
    codes = chosen.each(lambda portion: model.encode(portion.x, portion.y)).double()  # (N, Z); the posterior's means
    variances = torch.linalg.svdvals(codes - codes.mean(0)).square() / len(codes)  # along the principal directions
    effective = float(variances.sum().square() / variances.square().sum().clamp_min(torch.finfo(torch.float64).tiny))
    size = codes.shape[1]
    words = f"of {size:,}; by how evenly the codes' variance is spread"
    rows = [Row(name="Effective dimensions", value=Estimate(effective), better="neither", words=words)]
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
            title=TITLE,
            rows=tuple(rows),
            sentences=(told(subject, chosen),),
            pictures={caption: spectrum},
            absent=absent,
        )
    posterior = chosen.each(lambda portion: torch.cat(model.posterior(model.given(portion.x, portion.y)), dim=1))
    nats = information(*posterior.double().chunk(2, dim=1))
    words = f"of {size:,}: those whose posterior mean varies by more than {ACTIVE} over images"
    rows.insert(0, Row(name="Active units", value=Estimate(active_units(codes)), better="neither", words=words))
    words = f"share of dimensions that tell less than {COLLAPSED} nats of the image"
    share = float((nats < COLLAPSED).double().mean())
    rows.insert(1, Row(name="Posterior collapse", value=Estimate(share), better="lower", words=words))
    caption = "What each dimension of the code tells of the image, in nats, most first."
    picture = bars(nats.sort(descending=True).values.tolist(), "dimension", "nats")
    return Findings(title=TITLE, rows=tuple(rows), sentences=(told(subject, chosen),), pictures={caption: picture})


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
        return Findings(title=TITLE, absent={"smoothness": "every path begins and ends with the same image"})
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
    return Findings(title=TITLE, rows=rows, sentences=tuple(sentences))


def walks(subject: Subject, model: Encodes) -> Tensor:
    """Paths between the codes of two images, in the class of the first: (P, T, C, H, W) in [-1, 1]."""
    chosen = choose(subject, subject.reference, 2 * WALKS, "walks")
    codes = chosen.each(lambda portion: model.encode(portion.x, portion.y)).to(model.device)
    pairs = len(codes) // 2
    y = [None] * pairs if chosen.y is None else chosen.y
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
