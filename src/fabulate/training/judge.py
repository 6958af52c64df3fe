"""How good are the samples while the model trains? And which step's were the best?

Every so many steps the Fréchet distance (Heusel et al. 2017, https://arxiv.org/abs/1706.08500) between 1,000 samples
and the training images is measured, always from the same noise. Training images, not test images: what chooses a model
must not be what it is judged by in the end.

Looking costs time that training could have had, so all looks together stay below a tenth of it: one is put off while it
would take more. How long one takes is first told by a few samples, then by the last look.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from fabulate.data import Data
from fabulate.features import Features, features_for
from fabulate.metrics.frechet import Moments, frechet_distance
from fabulate.models import GenerativeModel
from fabulate.stats import reference

SHARE = 0.1  # of the training time, for all looks together
SAMPLES = 1000  # enough to rank the steps of one run; the distance itself would fall with more
REAL = 10_000  # training images compared with, at most


class Judge:
    """Measures a model's samples now and then, within its share of the time."""

    def __init__(self, every: int, features: Features, real: Moments) -> None:
        self.every, self.features, self.real = every, features, real
        self.spent = 0.0  # seconds, in this sitting
        self.expected: float | None = None  # seconds that a look takes
        self.looks, self.put_off = 0, 0

    @classmethod
    def of(cls, every: int, data: Data, device: torch.device) -> "Judge":
        """A judge who knows the training images; their features are made once and kept (`features_for`)."""
        features = features_for(data, device=device)
        n = min(REAL, len(data.train))
        return cls(every, features, reference(data, "train", features=features, n=n).moments)

    def due(self, step: int, seconds: float, model: Callable[[], GenerativeModel]) -> bool:
        """Whether to look after so many steps, which took so many seconds in this sitting."""
        if step % self.every:
            return False
        if self.expected is None:
            began = time.perf_counter()
            drawn = model()  # a family may fit something first, once for all samples
            ready = time.perf_counter()
            self.features(drawn.sample(drawn.rows))
            self.spent = time.perf_counter() - began
            self.expected = ready - began + (time.perf_counter() - ready) * SAMPLES / drawn.rows
        fits = self.spent + self.expected <= SHARE * seconds
        self.put_off += not fits
        return fits

    def look(self, drawn: Callable[[int], Tensor]) -> float:
        """The Fréchet distance of 1,000 samples to the training images; `drawn` gives the first n (N, C, H, W)."""
        began = time.perf_counter()
        distance = frechet_distance(Moments.of(self.features(drawn(SAMPLES)), "samples"), self.real)
        self.expected = time.perf_counter() - began
        self.spent += self.expected
        self.looks += 1
        return distance

    def words(self, seconds: float) -> str:
        """What looking has cost, for the end of a sitting of so many seconds of training."""
        waited = f"; {self.put_off} more were put off to stay below {SHARE:.0%}" if self.put_off else ""
        return f"{self.looks} looks at the samples took {self.spent / max(seconds, 1e-9):.1%} of the time{waited}."
