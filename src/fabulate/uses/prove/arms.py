"""Six ways to train one classifier, told apart by what is done about rare classes and nothing else.

| arm | images | classes weighed | shifted at random |
|---|---|---|---|
| real | real | no | no |
| weights | real | equally | no |
| classic | real | no | yes |
| smote | real and, between neighbours, points on the line in pixels | no | no |
| synthetic | real and synthetic | no | no |
| both | real and synthetic | no | yes |

The network, the number of steps, the seeds and the test images are the same for all. SMOTE (Chawla et al., "SMOTE:
synthetic minority over-sampling technique", 2002, https://doi.org/10.1613/jair.953) makes as many images of each class
as there are synthetic ones. Class weights are inverse to the classes' counts.

Legend: N images, K classes, C H W image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fabulate.data import Images
from fabulate.seeds import seed_at
from fabulate.uses.augment.split import joined

NEIGHBOURS = 5  # of SMOTE, as in the paper


class Material(NamedTuple):
    """What the arms are made of, all labelled alike."""

    real: Images
    synthetic: Images


class Arm(NamedTuple):
    """One way to train."""

    words: str
    images: Callable[[Material, int], Images]
    """From the material and a seed."""
    weights: bool = False
    augment: bool = False


def plain(material: Material, seed: int) -> Images:
    """The real images."""
    return material.real


def together(material: Material, seed: int) -> Images:
    """Real and synthetic images."""
    return joined(material.real, material.synthetic)


def smote(material: Material, seed: int) -> Images:
    """Real images and as many of SMOTE's of each class as there are synthetic ones; copies of a class's only image."""
    from imblearn.over_sampling import SMOTE

    real, added = material.real, material.synthetic.y
    assert real.y is not None and added is not None
    x, parts = real.x.reshape(len(real), -1), [real]
    for k in np.unique(added):
        own = x[real.y == k]
        n = int((added == k).sum())
        if len(own) < 2:
            made = np.repeat(own, n, axis=0)
        else:
            # One class at a time: imblearn wants a second, larger class beside it, which it leaves alone.
            other = np.zeros((len(own) + n, x.shape[1]), np.float32)
            which = np.repeat([1, 0], [len(own), len(other)])
            sampler = SMOTE(
                sampling_strategy={1: len(own) + n},
                k_neighbors=min(NEIGHBOURS, len(own) - 1),
                random_state=seed_at(seed, "smote", int(k)) % 2**32,
            )
            grown, _ = sampler.fit_resample(np.concatenate([own.astype(np.float32), other]), which)
            made = grown[len(which) :]
        pixels = np.rint(made).clip(0, 255).astype(np.uint8).reshape(-1, *real.shape)
        parts.append(Images(pixels, np.full(n, k, np.int64)))
    return joined(*parts)


ARMS: dict[str, Arm] = {
    "real": Arm("real images", plain),
    "weights": Arm("real images, classes weighed equally", plain, weights=True),
    "classic": Arm("real images, shifted at random", plain, augment=True),
    "smote": Arm("real images and SMOTE's", smote),
    "synthetic": Arm("real and synthetic images", together),
    "both": Arm("real and synthetic images, shifted at random", together, augment=True),
}
"""By name, in the order they are told. Colour images are mirrored as well as shifted."""
