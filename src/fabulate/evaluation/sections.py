"""What a report is made of: sections of rows, each a number with its interval and its anchors, words and pictures.

Each file of this room that measures something has one function from a `Subject` to a `Section`.
"""

from dataclasses import dataclass, field
from typing import Literal

from PIL import Image
from torch import Tensor

from fabulate.data import Data, Images
from fabulate.features import Features
from fabulate.metrics.intervals import Estimate
from fabulate.models import GenerativeModel


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a report."""

    name: str
    """In the field's words, e.g. "Fréchet distance"; with its unit, e.g. "ELBO (nats)"."""
    value: Estimate
    better: Literal["lower", "higher", "neither"]
    floor: float | None = None
    """What a perfect model would show with as many samples: training images in the place of samples."""
    noise: float | None = None
    """What uniform noise in the place of samples shows."""
    words: str = ""
    """What the number means, in a phrase."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one question was answered with."""

    title: str
    """The question in a few words, e.g. "Fidelity and diversity"."""
    rows: tuple[Row, ...] = ()
    sentences: tuple[str, ...] = ()
    """What must be known to read the rows: sample sizes, features, dequantisation; and warnings."""
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    """Captions and pictures."""
    absent: dict[str, str] = field(default_factory=dict)
    """What is not measured, and why."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated: a model, the images it is compared with, and samples drawn once for all sections."""

    model: GenerativeModel
    data: Data
    samples: Tensor
    """uint8 (N, C, H, W)."""
    y: Tensor | None
    """The classes (N,) that samples were asked for, numbered as in `data.classes`; None when the model knows none."""
    features: Features
    """From images to the numbers in which they are compared."""
    seed: int

    @property
    def reference(self) -> Images:
        """Real images to compare with: those never trained on, where there are any."""
        return self.data.train if self.data.test is None else self.data.test
