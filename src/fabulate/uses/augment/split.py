"""Which images a model may learn from, and which are kept for the test: settled before anything is trained.

A proof on images that the generator has seen proves nothing: what it copied from them would count as found. So the cut
comes first. The test is the source's own test part (a tenth of the images, where it has none). Where a class has less
than its share there, images of it are taken out of the training part, by an addressed permutation: a random tenth of a
rare class may be no image at all. And what was learnt from is written down, image by image, as digests of pixels; a
test image that equals one of them is no test image, wherever it came from.

Legend: N images.
"""

from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fabulate.data import Data, Images
from fabulate.errors import ConfigError, DataError
from fabulate.files import digest
from fabulate.seeds import permutation

Labels = npt.NDArray[np.int64]

SHARE = 0.1  # of each class is kept for the test, at least
PORTION = 4096  # images hashed at a time: they may lie on the disk


class Split(NamedTuple):
    """Images to learn from and images to test with; no image is in both, unless the source repeats it."""

    train: Images
    test: Images
    held_out: tuple[int, ...] = ()
    """Numbers of the training part's images that were moved to the test."""


def split(data: Data, share: float = SHARE) -> Split:
    """Cut a labelled data set so that at least the `share` of each class, and one image, is kept for the test.

    Errors: `ConfigError` for a share outside 0..1; `DataError` without classes, for a class of a single image, and
    where test images have none.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the share of each class kept for the test is 0 to 1; given {share}")
    y = labels(data)
    tested = data.tested()
    test_y = np.zeros(0, np.int64) if tested is None or tested.y is None else tested.y
    moved: list[int] = []
    for k, name in enumerate(data.classes):
        own, others = np.flatnonzero(y == k), int((test_y == k).sum())
        missing = max(1, ceil(share * (len(own) + others))) - others
        if len(own) <= max(missing, 0):
            raise DataError(
                f"class {name} has {len(own)} training and {others} test images: too few to learn from some and test "
                "with others. Give more images of it, or leave the class out"
            )
        order = permutation(len(own), "augment", "hold-out", k)[: max(missing, 0)]
        moved += own[order.numpy()].tolist()
    return rejoined(data, sorted(moved))


def rejoined(data: Data, held_out: list[int]) -> Split:
    """The cut in which these images of the training part were moved to the test."""
    keep = np.ones(len(data.train), bool)
    keep[held_out] = False
    test = data.tested()
    parts = [taken(data.train, np.array(held_out, np.int64))] + ([] if test is None else [test])
    train = data.train if not held_out else taken(data.train, np.flatnonzero(keep))
    return Split(train, parts[-1] if not held_out else joined(*parts), tuple(held_out))


def labels(data: Data) -> Labels:
    """The classes of the training images. Errors: `DataError` when there are not at least two."""
    if data.train.y is None or len(data.classes) < 2:
        raise DataError(
            f"{data.spec.source} has {len(data.classes) or 'no'} class{'es' if not data.classes else ''}, and this "
            "needs at least two: put the images of each class in a folder"
        )
    return data.train.y


def counted(images: Images, classes: tuple[str, ...]) -> dict[str, int]:
    """How many images there are of each class."""
    return dict(zip(classes, np.bincount(images.class_numbers, minlength=len(classes)).tolist(), strict=True))


def taken(images: Images, rows: Labels) -> Images:
    """Some of the images, in memory."""
    return Images(np.ascontiguousarray(images.x[rows]), None if images.y is None else images.y[rows])


def joined(*parts: Images) -> Images:
    """All images of some parts, one part after the other; all of them have classes."""
    return Images(np.concatenate([part.x for part in parts]), np.concatenate([part.class_numbers for part in parts]))


def digests(images: Images) -> list[str]:
    """One hexadecimal digest for each image's pixels: equal for equal images.

    >>> a, b, c = digests(Images(np.array([0, 1, 0], np.uint8).reshape(3, 1, 1, 1)))
    >>> a == c != b
    True
    """
    found = []
    for start in range(0, len(images), PORTION):
        part = np.ascontiguousarray(images.x[start : start + PORTION])
        found += [digest(image.tobytes()) for image in part]
    return found


def untouched(test: Images, seen: set[str]) -> Images:
    """The test images whose pixels equal none of those that were learnt from, given by their digests."""
    clean = np.array([digest not in seen for digest in digests(test)], bool)
    return test if clean.all() else taken(test, np.flatnonzero(clean))
