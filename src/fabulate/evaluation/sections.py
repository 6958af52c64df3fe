"""What a report is made of: sections of rows, each a number with its interval and its anchors, words and pictures.

Each file of this room that measures something has one function from a `Subject` to a `Section`.
"""

from dataclasses import dataclass, field

from PIL import Image
from pydantic import ConfigDict, with_config
from torch import Tensor

from fabulate.data import Data, Images
from fabulate.features import Features
from fabulate.models import GenerativeModel
from fabulate.report import Absent, Card, Figure, Figures, Notes, Row, Rows, Section
from fabulate.seeds import permutation


@with_config(ConfigDict(arbitrary_types_allowed=True))
@dataclass(frozen=True, kw_only=True)
class Findings:
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
    answers: tuple[Card, ...] = ()
    """What stands at the head of the report."""

    def section(self) -> Section:
        """As it stands on a page."""
        pictures = [Figure(image, caption) for caption, image in self.pictures.items()]
        blocks = Rows(self.rows), Notes(self.sentences), Figures(pictures), Absent(list(self.absent.items()))
        return Section(self.title, blocks)


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

    @property
    def real(self) -> Tensor:
        """Which of the reference are compared with: as many as there are samples, by chance, or all: numbers (R,)."""
        n = len(self.reference)
        most = n if self.data.test is not None else (n + 1) // 2  # without test images some are left to be `perfect`
        return permutation(n, self.seed, "evaluate", "real")[: min(len(self.samples), most)]

    @property
    def perfect(self) -> Tensor:
        """Which training images stand for samples of a perfect model: as many, none of them `real`: numbers (M,)."""
        if self.data.test is None:
            return permutation(len(self.reference), self.seed, "evaluate", "real").flip(0)[: len(self.real)]
        return permutation(len(self.data.train), self.seed, "evaluate", "perfect")[: len(self.samples)]

    @property
    def named(self) -> str:
        """What the reference is called in sentences."""
        return "training images" if self.data.test is None else "test images"
