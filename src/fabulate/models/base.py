"""What a generative model is: an `nn.Module` that can `sample(n)` and names its players.

A player is a module whose parameters move, the loss that moves them, and how often it takes a turn. Most models have
one player, themselves; a GAN is a game of two. What else a model can do is declared in `capabilities.py`.

Samples are addressed. They are drawn in tiles of fixed size, each from a generator seeded by (seed, tile), and always
as many of these are computed together, so sample i of a seed is the same image, to the last bit, whether it is drawn
alone or among a million.

Legend: B batch, N samples, C H W image, Z latent.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fabulate.config import Preset, nearest, override, spec
from fabulate.data.media import medium
from fabulate.errors import CapabilityError, ConfigError
from fabulate.models.saving import Saved
from fabulate.seeds import generator
from fabulate.types import Batch, BatchSource, ImageShape, shape_of

if TYPE_CHECKING:
    from PIL.Image import Image

TILE = 32  # rows drawn from one generator
SHOWN = 64  # samples of a picture
NAMED = 20  # classes that an error names

# Tiles computed together at most, and numbers in their images: as many as make networks faster, as few as can be, since
# a single image takes as long as all of them.
TOGETHER, TOGETHER_ON_CPU = (8, 2**21), (2, 2**18)

Labels = int | str | Sequence[int | str] | Tensor | npt.NDArray[Any] | np.generic | None


class Player(NamedTuple):
    """Who moves in training."""

    module: nn.Module
    """The module whose parameters move."""
    loss: Callable[[Batch], dict[str, Tensor]]
    """Returns {"loss": what is minimised, ...: terms worth logging}, all scalars."""
    every: int = 1
    """Takes a turn on every n-th step."""
    span: tuple[float, float] = (0, 1)
    """The share of the budget in which it moves: outside, it stands still and costs nothing."""


@spec
class NoChoice:
    """How samples are drawn by a family that has only one way."""


class GenerativeModel(Saved, nn.Module, ABC):
    """A model of p(x), or of p(x | class) when made with classes.

    A family is a subclass with a name: `class VAE(GenerativeModel, family="vae")`. It has a `Config` (a spec) and
    `presets`, among them "default".
    """

    family: ClassVar[str]
    Config: ClassVar[type[Any]]
    presets: ClassVar[dict[str, Preset]]
    usual_lr: float = 1e-3  # the peak learning rate where nobody says
    usual_optimizer: Literal["adam", "muon"] = "adam"  # and the optimiser
    networks: ClassVar[Mapping[str, Any]] = {}  # as they suit the family, by kind; other kinds have their defaults
    families: ClassVar[dict[str, type["GenerativeModel"]]] = {}
    renamed: ClassVar[Mapping[str, str]] = {}  # what hyperparameters and weights of older models are called today
    akin: ClassVar[Sequence[str]] = ()  # other families whose weights it can begin with
    takes: ClassVar[tuple[type, ...]] = (ImageShape,)  # the shapes of what it learns
    shape: ImageShape  # what most take; a family that takes sequences too declares `Shape`
    sized_by_data: ClassVar[Sequence[str]] = ()  # what names of buffers begin with that are as long as the data say
    precision: torch.dtype | None = None  # of products in its network, which steps of a training may lower
    units: ClassVar[Mapping[str, str]] = {}  # what the terms of its losses and tests are measured in, by their names

    def __init_subclass__(cls, family: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if family is not None:
            cls.family = family
            GenerativeModel.families[family] = cls

    def __init__(self, config: Any, shape: Any, classes: Sequence[str] = ()) -> None:
        super().__init__()
        shape = shape_of(shape)
        if not isinstance(shape, self.takes):
            raise CapabilityError(f"{self.family} does not learn {shape.medium}; {able(GenerativeModel, type(shape))}")
        if classes and not isinstance(self, Conditional):
            raise CapabilityError(f"{self.family} cannot learn p(x | class); {able(Conditional)}")
        self.config = config
        self.shape = shape  # type: ignore[assignment]
        self.classes = tuple(classes)
        self.places = {name: i for i, name in enumerate(self.classes)}  # there may be thousands
        self.sampling = getattr(config, "sampling", NoChoice())  # how samples are drawn, where a family has a choice
        self.record: dict[str, Any] = {}  # what the model card tells of the training: data, steps, test numbers

    @abstractmethod
    def players(self) -> Mapping[str, Player]:
        """The players, in the order of their turns."""

    @abstractmethod
    def draw(self, tiles: Sequence[torch.Generator], y: Tensor | None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1], TILE of them for each (CPU) generator, which all their chance comes from."""

    def init_from_data(self, images: BatchSource) -> None:
        """Set what the training images tell before the first step: by default nothing.

        Called again before the first step of a player whose span begins later; players whose span is over then have the
        weights that they keep. It takes no chance but what it addresses. A training that continues calls it too, then
        restores the weights.
        """

    def fit_latents(self, images: BatchSource) -> None:
        """Fit what is left to fit to the training images once the weights stand still: by default nothing.

        Called on the averaged weights before they are drawn from or saved. It takes no chance but what it addresses.
        """

    @classmethod
    def current(cls, saved: Mapping[str, Any], shape: ImageShape | None = None) -> dict[str, Any]:
        """Hyperparameters (told by the images' shape) or weights of a saved model by the names they have today."""
        return {".".join(cls.renamed.get(part, part) for part in key.split(".")): value for key, value in saved.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(self.current(state_dict), strict, assign)

    def repeated(self) -> dict[nn.Module, int]:
        """The networks that drawing an image calls again and again, and how often: by default none.

        They are what is worth compiling where many images are drawn.
        """
        return {}

    @property
    def validates(self) -> bool:
        """Whether `test_terms` has a loss by which the weights of different steps can be compared."""
        return len(self.players()) == 1 or type(self).test_terms is not GenerativeModel.test_terms

    def test_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars that tell, on images never trained on, how good the model is: by default the only player's loss."""
        players = list(self.players().values())
        return players[0].loss(batch) if len(players) == 1 else {}

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        """Sentences on what goes wrong in training, by the mean terms since the last report; each is told once."""
        return []

    @torch.no_grad()
    def sample(self, n: int, y: Labels = None, *, seed: int = 0, start: int = 0, **sampling: Any) -> Tensor:
        """Draw samples start .. start + n - 1 of a seed: images (N, C, H, W) in [-1, 1] on the model's device.

        `y` is a class (name or number) for all, or one for each; None takes every class in turn. The same seed gives
        the same images however they are split into calls: `sample(4)` is `sample(2)` and then `sample(2, start=2)`.
        Further arguments change, for this call, fields of the family's `Config.sampling`, where it has one.
        """
        if n < 1 or start < 0:
            raise ConfigError(f"n must be at least 1 and start at least 0; given n={n}, start={start}")
        labels = self.labels(y, n, start)
        parts = []
        with evaluating(self), self.drawing(sampling):
            for first in range(start // self.rows * self.rows, start + n, self.rows):
                rows = torch.arange(first, first + self.rows) - start  # rows outside 0..n-1 are drawn, then cut
                given = None if labels is None else labels[rows.clamp(0, n - 1)].to(self.device)
                tiles = [generator(seed, "sample", i // TILE) for i in range(first, first + self.rows, TILE)]
                images = self.draw(tiles, given)
                parts.append(images[((rows >= 0) & (rows < n)).to(images.device)])
        return torch.cat(parts)

    def show(
        self, n: int | None = None, y: Labels = None, *, seed: int = 0, title: str = "", **choices: Any
    ) -> "Image":
        """A picture of samples 0 .. n - 1 of a seed, on white, each class in rows of its own behind its name.

        `n`: by default `shown`; the other arguments are those of `sample`.
        """
        n = self.shown if n is None else n
        labels = self.labels(y, n)
        items = self.items(self.sample(n, y, seed=seed, **choices))
        numbers = None if labels is None else labels.numpy()
        return medium(self.shape).sheet(
            items, title or f"{self.about}: samples", f"{n} samples, seed {seed}", numbers, self.classes
        )

    def items(self, x: Tensor) -> Sequence[Any]:
        """What the model draws as people have it: uint8 images (N, C, H, W), or N texts."""
        return medium(self.shape).items(x, self.shape)

    @property
    def shown(self) -> int:
        """How many samples a picture shows: 64, or as many below as give each class the same number."""
        return SHOWN - SHOWN % min(len(self.classes) or 1, SHOWN)

    def _repr_html_(self) -> str:
        """What a notebook shows: sizes, classes, and what the model card tells of the training."""
        from fabulate.pictures import card

        tested = {f"test {name}": value for name, value in self.record.get("test", {}).items()}
        told = {name: value for name, value in {**self.record, **tested}.items() if name not in ("data", "test")}
        rows = [
            (self.shape.medium, f"{self.shape}"),
            ("classes", shorten(", ".join(self.classes), 200, placeholder=" ...") or "none learnt"),
            ("parameters", f"{sum(weights.numel() for weights in self.parameters()):,}"),
            *((name, f"{value:,.5g}" if isinstance(value, float) else f"{value}") for name, value in told.items()),
            ("samples", "model.show() draws some"),
        ]
        return card(self.about, rows)

    @property
    def rows(self) -> int:
        """Samples that are computed together, whole tiles: the rounding of a matrix product depends on its shape, so
        that shape is always the same on a kind of device."""
        tiles, numbers = TOGETHER_ON_CPU if self.device.type == "cpu" else TOGETHER
        while tiles > 1 and tiles * TILE * self.shape.size > numbers:
            tiles //= 2
        return tiles * TILE

    @contextmanager
    def drawing(self, sampling: Mapping[str, Any]) -> Iterator[None]:
        """Within the block samples are drawn in another way: `self.sampling` with some of its fields changed."""
        before = self.sampling
        self.sampling = override(before, sampling)
        try:
            yield
        finally:
            self.sampling = before

    def labels(self, y: Labels, n: int, start: int = 0) -> Tensor | None:
        """Class numbers (N,) for what a user gave as `y`; None when the model knows no classes.

        Errors: `ConfigError` for a class the model does not know (naming the nearest) or a wrong number of them.
        """
        if not self.classes:
            if y is None:
                return None
            raise ConfigError("this model learnt no classes; train it with conditional=True (--conditional)")
        if y is None:
            return torch.arange(start, start + n) % len(self.classes)
        if isinstance(y, Tensor | np.ndarray | np.generic):
            y = y.tolist()
        if isinstance(y, int | float | str):
            return torch.full((n,), self.class_number(y))
        numbers = torch.tensor([self.class_number(c) for c in y], dtype=torch.int64)
        if len(numbers) != n:
            raise ConfigError(f"{n} images need {n} classes, and {len(numbers)} were given")
        return numbers

    def class_number(self, y: int | str | float | np.generic | npt.NDArray[Any] | Tensor) -> int:
        """The number of a class given by name or by number, numpy's and torch's among them."""
        name: Any = y.tolist() if isinstance(y, np.generic | np.ndarray | Tensor) else y
        if isinstance(name, str | bool) and str(name) in self.places:
            return self.places[str(name)]
        if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < len(self.classes):
            return name
        hint = nearest(str(y), list(self.classes))
        told = ", ".join(self.classes[:NAMED]) + (", ..." if len(self.classes) > NAMED else "")
        raise ConfigError(f"there is no class {y!r}{hint} (classes: {told})")

    def given(self, x: Tensor | npt.NDArray[Any], y: Labels = None) -> Batch:
        """The batch for items a user gave (images: uint8 or floats in [-1, 1]), moved to the model's device.

        Errors: `ConfigError` when the images have another shape than the model's, or classes are missing; `DataError`
        for numbers that are neither pixels nor floats in [-1, 1].
        """
        x = medium(self.shape).given(x, self.shape)
        if self.classes and y is None:
            raise ConfigError(f"a class-conditional model needs the {self.shape.medium}' classes: give y")
        labels, weights = self.labels(y, len(x)), next(self.parameters())
        dtype = weights.dtype if x.is_floating_point() else x.dtype  # symbols stay integers
        return Batch(x.to(weights.device, dtype), None if labels is None else labels.to(self.device))

    @property
    def numbers(self) -> int:
        """Numbers in an item, by which the size of a batch is chosen: more where each costs more than a pixel does."""
        return self.shape.size

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.parameters()).device


class Conditional(ABC):  # noqa: B024  # a declaration without methods: `sample(n, y)` is every model's
    """The family can learn p(x | class)."""


def able(capability: type, shape: type = ImageShape) -> str:
    """A phrase that names the families that have a capability for items of a kind of shape, for errors."""
    from fabulate.models.families import families  # all of them, not only those that something has imported already

    names = [name for name, cls in families().items() if issubclass(cls, capability) and shape in cls.takes]
    return f"families that can: {', '.join(names)}" if names else "no family can yet"


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within the block the module is in evaluation mode; afterwards each of its layers is in the mode it was in."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
