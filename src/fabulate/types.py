"""The words every room shares: the shapes of items, batches, and the one pixel convention.

An item is an image or a sequence of symbols: a line of text, a tune. What items of both kinds share is a `Shape`; what
else there is to do with them (read, write, show) is a matter of their medium, in `data/media`.

At the border (files, arrays, data sets) an image is uint8, 0..255. Inside (models, losses, samplers) it is a float in
[-1, 1]: x = pixel / 127.5 - 1. Both directions are here and nowhere else. Some textbook models speak of images in
[0, 1]; they write `unit(x)` where they do.

Legend: B batch, C H W image, T places of a sequence.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.seeds import permutation

TOGETHER = 2**21  # numbers in images that go through a network at once; its layers hold some ten times as many
Progress = Callable[[int, int], None]
"""Called with (parts done, all parts)."""

Stages = Callable[[str, int, int], None]
"""Called with (what is done now, parts of it done, all its parts)."""


def silent(*_: object) -> None:
    """The `Progress`, or `Stages`, that nobody sees."""


FARTHEST = 10.0  # from 0, of what is meant to be in [-1, 1]: images with noise stay within, pixels 0..255 do not


class Shape(Protocol):
    """What the shapes of items of all media share."""

    @property
    def medium(self) -> str:
        """What many of them are called, "images" say, and the name of their medium in `data.media`."""

    @property
    def size(self) -> int:
        """How many numbers one item has."""

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions of an item's array."""

    def together(self, most: int) -> int:
        """How many items to take through a network at once: `most`, but fewer of large ones, to bound the memory."""


class ImageShape(NamedTuple):
    """The shape of one image: channels (1 to 4), height and width in pixels.

    >>> str(ImageShape(1, 28, 28)), str(ImageShape(4, 96, 128))
    ('28x28 gray', '96x128 colour with alpha')
    """

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        words = {1: "gray", 2: "gray with alpha", 3: "colour", 4: "colour with alpha"}
        return f"{self.height}x{self.width} {words.get(self.channels, f'{self.channels} channels')}"

    @property
    def medium(self) -> str:
        """What they are called: images."""
        return "images"

    @property
    def dims(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self)

    @property
    def size(self) -> int:
        """How many numbers one image has: C * H * W.

        >>> ImageShape(3, 32, 32).size
        3072
        """
        return self.channels * self.height * self.width

    def together(self, most: int) -> int:
        """How many images to take through a network at once: `most`, but fewer of large ones, to bound the memory.

        >>> ImageShape(3, 32, 32).together(500), ImageShape(3, 256, 256).together(500)
        (500, 10)
        """
        return max(1, min(most, TOGETHER // self.size))


class SequenceShape(NamedTuple):
    """The shape of one sequence: its most places T, and the symbols that stand there, 0 ... K - 1, by what they say.

    Symbol 0 says nothing: it ends a sequence that has fewer than T places, and fills the places behind its end.

    >>> shape = SequenceShape(15, ("", "a", "b"))
    >>> str(shape), shape.size, shape.dims
    ('up to 15 of 2 symbols', 15, (15,))
    """

    length: int
    symbols: tuple[str, ...]
    voices: int = 1
    """Symbols at each place."""
    medium: str = "texts"
    """What they are called, and the name of their medium in `data.media`."""

    def __str__(self) -> str:
        return f"up to {self.length:,} of {len(self.symbols) - 1} symbols" + (
            f" in {self.voices} voices" if self.voices > 1 else ""
        )

    @property
    def size(self) -> int:
        """How many symbols one sequence has at most: T * V."""
        return self.length * self.voices

    @property
    def dims(self) -> tuple[int, ...]:
        """(T,), or (T, V) of several voices."""
        return (self.length,) if self.voices == 1 else (self.length, self.voices)

    def together(self, most: int) -> int:
        """How many sequences to take through a network at once: each place has some fifty numbers in every layer."""
        return max(1, min(most, TOGETHER // (50 * self.size)))


def shape_of(values: Sequence[Any]) -> ImageShape | SequenceShape:
    """The shape that a tuple, or a list from JSON, stands for.

    >>> shape_of([1, 28, 28]), shape_of([15, ["", "a"], 1, "texts"]).symbols
    (ImageShape(channels=1, height=28, width=28), ('', 'a'))
    """
    if isinstance(values[1], int):
        return ImageShape(*values)
    length, symbols, *rest = values
    return SequenceShape(length, tuple(symbols), *rest)


class Batch(NamedTuple):
    """What a loss sees: images x (B, C, H, W) in [-1, 1] or symbols (B, T), and classes y (B,) int64 or None.

    On the way there x may be uint8 pixels: a quarter of the bytes, and what makes floats of them can be compiled.
    """

    x: Tensor
    y: Tensor | None = None

    def floats(self) -> "Batch":
        """With images in [-1, 1]; symbols, int16 and never uint8, stay as they are."""
        return Batch(to_float(self.x), self.y)


class BatchSource(ABC):
    """What batches are sliced from; `fabulate.data.Images` is one. It has a length and is read by number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def stored(self, indices: Tensor) -> Batch:
        """The images at `indices` (B,), uint8 or floats in [-1, 1], and their classes (B,) int64 or None."""

    def batch(self, indices: Tensor) -> Batch:
        """The images at `indices` (B,) as floats in [-1, 1] (B, C, H, W), and their classes (B,) int64 or None."""
        return self.stored(indices).floats()


class Tensors(BatchSource):
    """Images x in memory, uint8 or floats in [-1, 1] (N, C, H, W), and classes y (N,) int64 or None."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def stored(self, indices: Tensor) -> Batch:
        return Batch(self.x[indices], None if self.y is None else self.y[indices])


class Selected(BatchSource):
    """Images of a source by their numbers there (N,); a number may come several times.

    >>> some = Selected(Tensors(torch.arange(10.0).view(10, 1, 1, 1)), torch.tensor([1, 3, 3]))
    >>> len(some), some.stored(torch.tensor([0, 2])).x.flatten().tolist()
    (3, [1.0, 3.0])
    """

    def __init__(self, images: BatchSource, numbers: Tensor) -> None:
        self.images, self.numbers = images, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def stored(self, indices: Tensor) -> Batch:
        return self.images.stored(self.numbers[indices])


class Ordered(BatchSource):
    """A `BatchSource` that is quick to read in its own orders only; all others are read in any."""

    @abstractmethod
    def order(self, seed: int, epoch: int) -> Tensor:
        """Every image once, in the order of an epoch: a permutation of 0..N-1, int64."""

    @abstractmethod
    def some(self, n: int, *address: int | str) -> Tensor:
        """Numbers of at most n images, chosen by an address."""

    def warnings(self) -> list[str]:
        """Sentences on what is wrong with the images met so far; in training each is told once."""
        return []


def order_of(images: BatchSource, seed: int, epoch: int) -> Tensor:
    """The order of a source's images in an epoch: its own, else a permutation of all."""
    if isinstance(images, Ordered):
        return images.order(seed, epoch)
    return permutation(len(images), seed, "order", epoch)


def some_of(images: BatchSource, n: int, *address: int | str) -> Tensor:
    """Numbers of at most n images of a source, chosen by an address, quick to read."""
    return images.some(n, *address) if isinstance(images, Ordered) else permutation(len(images), *address)[:n]


def to_float(pixels: Tensor) -> Tensor:
    """Turn uint8 pixels (0..255) into floats in [-1, 1]; floats pass through unchanged.

    >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    if pixels.dtype != torch.uint8:
        return pixels
    return pixels.to(torch.get_default_dtype()).div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Turn floats in [-1, 1] into uint8 pixels, rounding to the nearest and clipping what lies outside.

    >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 7.0]))
    tensor([  0, 128, 255, 255], dtype=torch.uint8)
    """
    if x.dtype == torch.uint8:
        return x
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def unit(x: Tensor) -> Tensor:
    """Map [-1, 1] to [0, 1], the range in which textbooks write their autoencoders; symbols stay what they are."""
    return x if not x.is_floating_point() else (x + 1).mul_(0.5)  # to the bit what dividing by 2 gives, and faster


def meant(x: Tensor, what: str = "images") -> Tensor:
    """Images as they are, uint8 or floats in [-1, 1], once their values can be meant so.

    What a model makes, or noise is added to, may lie outside of [-1, 1]; so floats are refused where they cannot be
    of that range: 0..255, 0 and 1 as the ends of [0, 1], and what is not finite. A row of numbers (height 1) may be
    any.
    Errors: `DataError` with the values that were given, and what to do.

    >>> meant(torch.tensor([[[[0.0, 255.0], [8.0, 9.0]]]]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    fabulate.errors.DataError: images are uint8 or floats in [-1, 1]; given float32, values 0..255: if these are ...
    """
    if x.dtype == torch.uint8 or not x.numel() or (x.ndim == 4 and x.shape[2] == 1):
        return x
    low, high = (float(value) for value in x.detach().aminmax())
    given = (
        f"{what} are uint8 or floats in [-1, 1]; given {str(x.dtype).removeprefix('torch.')}, values {low:g}..{high:g}"
    )
    if not x.is_floating_point():
        raise DataError(f"{given}: if these are pixels 0..255, give x.to(torch.uint8)")
    if not (isfinite(low) and isfinite(high)):
        raise DataError(f"{given}: a NaN or an infinity is no pixel")
    if (low, high) == (0, 1):
        raise DataError(f"{given}: if these are in [0, 1], give x * 2 - 1")
    if low < -FARTHEST or high > FARTHEST:
        raise DataError(f"{given}: if these are pixels 0..255, give x / 127.5 - 1")
    return x
