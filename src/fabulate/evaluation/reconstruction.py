"""How well does the model copy images it never saw?

Three numbers for each image and its copy (`metrics/images.py`): the mean squared error, the same in decibels, and the
structural similarity (Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
similarity", 2004, https://doi.org/10.1109/TIP.2003.819861). They tell what a code keeps of an image, and nothing of how
samples look: a code as large as the image keeps everything. The anchor is the mean training image as the copy of all,
which is the best that can be done without looking. Means hide what fails, so the worst copies are shown as well.

Legend: N images, C H W image.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fabulate.evaluation.chosen import NO_CLASSES, Chosen, choose, counter, known, told
from fabulate.evaluation.sections import Findings, Subject
from fabulate.metrics.images import mse, psnr, ssim
from fabulate.metrics.intervals import Estimate
from fabulate.models.base import able
from fabulate.models.capabilities import Reconstructs
from fabulate.models.search import EncodesBySearch
from fabulate.pictures import table
from fabulate.report import Row
from fabulate.types import Progress, to_uint8

TITLE = "Reconstruction"
SEARCHED = 5  # so many times fewer images, where the code of each must be searched for
SHOWN = 8  # best, median and worst copies each
FOR_THE_MEAN = 10_000  # training images at most


def reconstruction(subject: Subject, *, images: int = 500, progress: Progress | None = None) -> Findings:
    """Errors of copies of images never trained on, with their intervals, and the best, median and worst copies.

    `images`: at most; a fifth of them where each code is found by a search. `progress`: hears (images copied, in all).
    A family that cannot copy gives a section without rows that says so. Errors: `ConfigError` for images below 1.
    """
    model = subject.model
    if not isinstance(model, Reconstructs):
        return Findings(
            title=TITLE, absent={"reconstruction": f"a {model.family} cannot copy images; {able(Reconstructs)}"}
        )
    if not len(known(subject, subject.reference)):
        return Findings(title=TITLE, absent={"reconstruction": NO_CLASSES})
    searched = isinstance(model, EncodesBySearch)
    n = max(1, images // SEARCHED) if searched and images > 0 else images
    chosen = choose(subject, subject.reference, n, "reconstruction")
    done = counter(progress, len(chosen))
    copies = chosen.each(lambda portion: model.reconstruct(portion.x, portion.y), done)
    errors, decibels, similar = mse(chosen.x, copies), psnr(chosen.x, copies), ssim(chosen.x, copies)
    rows = [Row(name="MSE", value=Estimate.of_mean(errors), better="lower", words="of pixels in [0, 1]")]
    absent = {}
    if decibels.isfinite().all():
        rows.append(Row(name="PSNR (dB)", value=Estimate.of_mean(decibels), better="higher"))
    else:
        absent["PSNR"] = f"infinite: {int((errors == 0).sum()):,} copies equal their images"
    words = "1 for equal images; sees whether neighbouring pixels err together"
    rows.append(Row(name="SSIM", value=Estimate.of_mean(similar), better="higher", words=words))
    sentences = [told(subject, chosen)]
    if searched:
        sentences.append(
            "The model has no encoder: the code of each image was searched for, and a longer search may do better."
        )
    blind = float(mse(chosen.x, mean_image(subject).expand_as(copies)).mean())
    sentences.append(f"The mean training image as the copy of every image has an MSE of {blind:.4g}.")
    caption = "Copies from the best to the worst by MSE: each image above its copy."
    pictures = {caption: gallery(chosen, copies, errors)}
    return Findings(title=TITLE, rows=tuple(rows), sentences=tuple(sentences), pictures=pictures, absent=absent)


def mean_image(subject: Subject) -> Tensor:
    """The mean of training images, in [-1, 1] (C, H, W), float64."""
    train = subject.data.train
    x = train.pixels(torch.arange(min(len(train), FOR_THE_MEAN)))
    return torch.from_numpy(x.mean(0, dtype=np.float64)) / 127.5 - 1


def gallery(chosen: Chosen, copies: Tensor, errors: Tensor) -> Image.Image:
    """The best copies, those about the median and the worst, each below its image."""
    order = errors.argsort()
    shown = min(SHOWN, len(order))
    middle = (len(order) - shown) // 2
    names, groups = ("best", "median", "worst"), (order[:shown], order[middle : middle + shown], order[-shown:])
    copied = to_uint8(copies)
    images = np.stack([half[group].numpy() for group in groups for half in (chosen.x, copied)])
    rows = [word for name in names for word in (name, "copy")]
    legend = f"mean squared errors {errors[order[0]]:.2g} to {errors[order[-1]]:.2g}, median {errors.median():.2g}"
    return table(images, [""] * shown, "Copies of images", legend, rows)
