"""Real images to train and to test with, so that no test image was learnt from, by the generator or the classifier.

The folder of synthetic images says which images its model saw (`uses/augment/folder.py`). Where the source is the one
it was made from, it is cut as it was then. Another source is taken as it is, if none of its test images was seen.

Legend: N images.
"""

from typing import NamedTuple

import numpy as np

from fabulate.data import Data, Images
from fabulate.errors import ConfigError, DataError, RunError
from fabulate.uses.augment.folder import MANIFEST, Augmented
from fabulate.uses.augment.split import Split, digests, labels, rejoined, untouched


class Parts(NamedTuple):
    """What a proof is made of; all labelled by the classes of the data."""

    real: Images
    synthetic: Images
    test: Images
    repeated: int
    """Test images left out because they equal an image that was learnt from."""


def parts(data: Data, made: Augmented) -> Parts:
    """The parts for a source and the synthetic images made for it.

    Errors: `RunError` when the model saw test images of the source; `ConfigError` for other classes or shapes;
    `DataError` without classes or test images.
    """
    labels(data)
    if set(data.classes) != set(made.classes) or data.shape != made.images.shape:
        raise ConfigError(
            f"{data.spec.source} has {data.shape} images of {', '.join(data.classes)}; "
            f"the synthetic ones are {made.images.shape} ones of {', '.join(made.classes)}"
        )
    cut = same(data, made) if data.fingerprint == made.fingerprint else other(data, made)
    test = untouched(cut.test, made.learnt_from | set(digests(cut.train)))
    if not len(test):
        raise DataError(f"every test image of {data.spec.source} equals one that was learnt from")
    assert made.images.y is not None
    places = {name: i for i, name in enumerate(data.classes)}
    numbers = np.array([places[name] for name in made.classes], np.int64)
    synthetic = Images(made.images.x, numbers[made.images.y])
    return Parts(cut.train, synthetic, test, len(cut.test) - len(test))


def same(data: Data, made: Augmented) -> Split:
    """The cut that the synthetic images were made with."""
    if max(made.held_out, default=-1) >= len(data.train):
        raise RunError(f"{MANIFEST} is damaged: it holds out image {max(made.held_out)} of {len(data.train):,}")
    return rejoined(data, made.held_out)


def other(data: Data, made: Augmented) -> Split:
    """The source's own cut, of images that are not those the synthetic ones were made from."""
    test = data.tested()
    if test is None:
        raise DataError(f"{data.spec.source} has no test images: it has too few images to hold any out")
    seen = len(test) - len(untouched(test, made.learnt_from))
    if seen:
        raise RunError(
            f"{seen:,} of {len(test):,} test images of {data.spec.source} are among those that the synthetic "
            "images were made from, which would prove nothing. The source changed since then, or is another one: make "
            "the synthetic images anew from it, or give a source whose test part the model never saw"
        )
    return Split(data.train, test)
