"""Draw samples of a class until enough of them pass the rules, or it is plain that they will not.

Samples are addressed (seed of the class, number), so that the manifest's seeds and numbers give every image again.

Legend: N images kept, C H W image.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fabulate.data import Images
from fabulate.errors import DataError
from fabulate.models import GenerativeModel
from fabulate.models.base import TILE
from fabulate.seeds import seed_at
from fabulate.types import to_uint8
from fabulate.uses.augment.rules import Judge, Verdict

BATCH = 8 * TILE  # drawn and judged at a time
PATIENCE = 10  # samples drawn for each that is wanted, at most

Progress = Callable[[int, int], None]


class Tally(NamedTuple):
    """What became of the samples of one class. A sample that two rules turn away counts for both."""

    wanted: int
    drawn: int = 0
    kept: int = 0
    misread: int = 0
    far: int = 0
    copied: int = 0

    def after(self, verdict: Verdict, kept: int) -> "Tally":
        """With the samples of one more batch, of which so many are kept."""
        return Tally(
            self.wanted,
            self.drawn + len(verdict.kept),
            self.kept + kept,
            self.misread + int(verdict.misread.sum()),
            self.far + int(verdict.far.sum()),
            self.copied + int(verdict.copied.sum()),
        )


class Synthetic(NamedTuple):
    """Samples that passed, and where each came from."""

    images: Images
    """Numbered by the classes of the data."""
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]]
    """Of each, which sample of its class's seed it is (N,)."""
    seeds: dict[str, int]
    """Of each class that was drawn."""
    tallies: dict[str, Tally]


def fill(
    model: GenerativeModel,
    judge: Judge,
    lacking: Mapping[str, int],
    classes: tuple[str, ...],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Synthetic:
    """Samples of each class that lacks some, as many as it lacks, or as pass of ten times as many.

    `classes`: the data's, by which the judge numbers them. `progress`: called with (kept, wanted) over all classes.
    Errors: `DataError` when not one sample passes.
    """
    total = sum(lacking.values())
    x: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
    y: list[int] = []
    numbers: list[int] = []
    seeds: dict[str, int] = {}
    tallies: dict[str, Tally] = {}
    for name, wanted in lacking.items():
        if not wanted:
            continue
        k, tally = classes.index(name), Tally(wanted)
        seeds[name] = seed_at(seed, "augment", name)
        while tally.kept < wanted and tally.drawn < max(BATCH, PATIENCE * wanted):
            start = tally.drawn
            images = to_uint8(model.sample(BATCH, name, seed=seeds[name], start=start)).cpu()
            verdict = judge.verdict(images, k)
            chosen = verdict.kept.nonzero().flatten()[: wanted - tally.kept]
            x.append(images[chosen].numpy())
            y += [k] * len(chosen)
            numbers += (start + chosen).tolist()
            tally = tally.after(verdict, len(chosen))
            if progress is not None:
                progress(len(numbers), total)
        tallies[name] = tally
    if not numbers:
        told = "; ".join(f"{name}: {told_of(tally)}" for name, tally in tallies.items())
        raise DataError(f"no sample passes the rules ({told}): train longer, or give another family or --run")
    return Synthetic(Images(np.concatenate(x), np.array(y, np.int64)), np.array(numbers, np.int64), seeds, tallies)


def told_of(tally: Tally) -> str:
    """What became of a class's samples, in words.

    >>> told_of(Tally(wanted=50, drawn=256, kept=40, misread=200, far=30, copied=0))
    '40 of 50 made from 256 samples; 200 look like another class, 30 unlike their own, 0 copy a training image'
    """
    return (
        f"{tally.kept:,} of {tally.wanted:,} made from {tally.drawn:,} samples; {tally.misread:,} look like another "
        f"class, {tally.far:,} unlike their own, {tally.copied:,} copy a training image"
    )
