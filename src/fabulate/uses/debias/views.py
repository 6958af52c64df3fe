"""What people look at: the images at both ends of each factor, those that are rare in their class, and recoloured ones.

Legend: N images, R rows, C H W image.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fabulate.data import Images
from fabulate.files import write_table
from fabulate.pictures import grid, paired_rows, table
from fabulate.seeds import permutation
from fabulate.types import to_float, to_uint8
from fabulate.uses.debias.debiaser import Debiaser
from fabulate.uses.debias.densities import Numbers, whitening

ROWS, ENDS, RARE = 5, 4, 9
RECOLOURED = 24


def factors_picture(debiaser: Debiaser, images: Images, title: str) -> Image.Image:
    """A row for each factor: images from both its ends, and those that are rarest in their class by it."""
    shown = debiaser.factors_[:ROWS]
    z = debiaser.codes_.double().numpy()
    rows = []
    for factor in shown:
        along = whitening(z[:, factor.columns])(z[:, factor.columns])[:, 0]  # of several numbers the main axis
        order = np.argsort(along, kind="stable")
        rare = np.argsort(-factor.weights, kind="stable")[:RARE]
        rows.append(images.x[np.concatenate([order[:ENDS], order[-ENDS:], rare])])
    columns = [*["low"] * ENDS, *["high"] * ENDS, *["rare"] * RARE]
    legend = (
        "low, high: both ends of the factor; rare: common in other classes, rare in their own; bars: how many are so"
    )
    shares = [factor.against / len(images) for factor in shown]
    return table(np.stack(rows), columns, title, legend, [factor.name for factor in shown], shares)


def recoloured_picture(debiaser: Debiaser, images: Images) -> Image.Image:
    """Training images, each above itself with the factor of another."""
    chosen = permutation(len(images), debiaser.seed, "debias", "shown")[:RECOLOURED]
    x = images.pixels(chosen)
    new = debiaser.recoloured(to_float(torch.from_numpy(x)), "picture")
    return grid(paired_rows(x, to_uint8(new).numpy(), 12), columns=min(12, len(x)))


def write_weights(names: Sequence[str], classes: Sequence[str], weights: Numbers, path: Path) -> None:
    """Write image, class and weight of every training image, in their order."""
    write_table(path, ["image", "class", "weight"], zip(names, classes, weights.tolist(), strict=True))
