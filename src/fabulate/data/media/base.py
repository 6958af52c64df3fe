"""A medium: what rooms ask of items beside their shape. To take what a user gives, write, read back and show samples.

Each medium is one object in one file of this folder, found by the name that a shape gives (`shape.medium`). Rooms ask
it; none asks which it is.
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor

from fabulate.config import DataSpec
from fabulate.files import place_file

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from fabulate.data.images import Data


class Heard(NamedTuple):
    """An item that sounds, for a page."""

    title: str
    about: str
    sound: str
    """The sound's file, as a path beside the item's; empty where it makes none."""
    text: str


class Medium(ABC):
    """What is done with items of one kind; shapes are those of its own medium."""

    name: ClassVar[str]
    """What shapes call it, and many items are called."""

    ending: ClassVar[str]
    """Of a sample's file."""

    sources: ClassVar[Collection[str]] = ()
    """Names of sources of this medium."""

    def load(self, spec: DataSpec) -> "Data | None":
        """The data set that a spec describes, None where its source is of another medium; images are what is left."""
        return None

    @abstractmethod
    def given(self, x: Any, shape: Any) -> Tensor:
        """The array that a user gave as items, for a model. Errors: `DataError` or `ConfigError` by its values."""

    @abstractmethod
    def items(self, x: Tensor, shape: Any) -> Sequence[Any]:
        """Items as people have them (pixels, words), of what a model draws or a data set stores."""

    @abstractmethod
    def sheet(
        self,
        items: Sequence[Any],
        title: str,
        legend: str = "",
        y: "npt.NDArray[Any] | None" = None,
        classes: Sequence[str] = (),
    ) -> "Image":
        """A picture of items below a title, those of a class y (N,) together, behind its name."""

    def pairs(self, real: Sequence[Any], made: Sequence[Any], title: str, legend: str = "") -> "Image":
        """A picture of items, each followed by what was made of it."""
        both = [item for pair in zip(real, made, strict=True) for item in pair]
        return self.sheet(both, title, f"{legend}: each is followed by its reconstruction")

    @abstractmethod
    def place(self, item: Any, path: Path) -> None:
        """Write one item as a file."""

    @abstractmethod
    def read(self, path: Path) -> Any:
        """Read back one that `place` wrote."""

    def copy(self, file: Path, path: Path) -> None:
        """Copy a sample's file, with what belongs to it."""
        with file.open("rb") as source:
            place_file(path, partial(shutil.copyfileobj, source))

    def judge(self, item: Any) -> dict[str, tuple[int, int]]:
        """What can be counted in an item: how many are as they should be, and of how many."""
        return {}

    def heard(self, item: Any, name: str) -> Heard | None:
        """What a page plays of an item in the file `name`; None where there is no sound."""
        return None

    def alike(self, shape: Any) -> Tensor | None:
        """Tables (M, K) by which an item's symbols can be exchanged and leave it as likely; None where none can."""
        return None

    @abstractmethod
    def file_size(self, shape: Any) -> int:
        """Bytes of an item's file, at most."""
