"""What a generative model is: an `nn.Module` that can `sample(n)` and names its players.

A player is a module whose parameters move, the loss that moves them, and how often it takes a turn. Most models have
one player, themselves; a GAN is a game of two. What else a model can do is declared by small abstract classes
(`HasLatent`, `Encodes`, `Reconstructs`, `Scores`, `HasLikelihood`, `Conditional`) and asked with `isinstance`.

Samples are addressed. They are drawn in tiles of fixed size, each from a generator seeded by (seed, tile), so sample i
of a seed is the same image, to the last bit, whether it is drawn alone or among a million.

Legend: B batch, N samples, C H W image, Z latent.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fabulate.config import Preset, nearest
from fabulate.errors import CapabilityError, ConfigError
from fabulate.models.saving import Saved
from fabulate.seeds import generator
from fabulate.types import Batch, ImageShape, to_float

TILE = 32  # rows computed together: a matrix product's rounding depends on its shape, so the shape is always this one

Labels = int | str | Sequence[int | str] | Tensor | None


class Player(NamedTuple):
    """Who moves in training."""

    module: nn.Module
    """The module whose parameters move."""
    loss: Callable[[Batch], dict[str, Tensor]]
    """Returns {"loss": what is minimised, ...: terms worth logging}, all scalars."""
    every: int = 1
    """Takes a turn on every n-th step."""


class GenerativeModel(Saved, nn.Module, ABC):
    """A model of p(x), or of p(x | class) when made with classes.

    A family is a subclass with a name: `class VAE(GenerativeModel, family="vae")`. It has a `Config` (a spec) and
    `presets`, among them "default".
    """

    family: ClassVar[str]
    Config: ClassVar[type[Any]]
    presets: ClassVar[dict[str, Preset]]
    families: ClassVar[dict[str, type["GenerativeModel"]]] = {}

    def __init_subclass__(cls, family: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if family is not None:
            cls.family = family
            GenerativeModel.families[family] = cls

    def __init__(self, config: Any, shape: ImageShape, classes: Sequence[str] = ()) -> None:
        super().__init__()
        if classes and not isinstance(self, Conditional):
            raise CapabilityError(f"{self.family} cannot learn p(x | class); {able(Conditional)}")
        self.config = config
        self.shape = ImageShape(*shape)
        self.classes = tuple(classes)
        self.record: dict[str, Any] = {}  # what the model card tells of the training: data, steps, test numbers

    @abstractmethod
    def players(self) -> Mapping[str, Player]:
        """The players, in the order of their turns."""

    @abstractmethod
    def draw(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        """n images (N, C, H, W) in [-1, 1], all chance taken from the (CPU) generator."""

    def test_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars that tell, on images never trained on, how good the model is: by default the only player's loss."""
        players = list(self.players().values())
        return players[0].loss(batch) if len(players) == 1 else {}

    @torch.no_grad()
    def sample(self, n: int, y: Labels = None, *, seed: int = 0, start: int = 0) -> Tensor:
        """Draw samples start .. start + n - 1 of a seed: images (N, C, H, W) in [-1, 1] on the model's device.

        `y` is a class (name or number) for all, or one for each; None takes every class in turn. The same seed gives
        the same images however they are split into calls: `sample(4)` is `sample(2)` and then `sample(2, start=2)`.
        """
        if n < 1 or start < 0:
            raise ConfigError(f"n must be at least 1 and start at least 0; given n={n}, start={start}")
        labels = self.labels(y, n, start)
        tiles = []
        with evaluating(self):
            for tile in range(start // TILE, (start + n - 1) // TILE + 1):
                rows = torch.arange(tile * TILE, (tile + 1) * TILE) - start  # rows outside 0..n-1 are drawn, then cut
                tile_labels = None if labels is None else labels[rows.clamp(0, n - 1)].to(self.device)
                images = self.draw(TILE, tile_labels, generator(seed, "sample", tile))
                tiles.append(images[((rows >= 0) & (rows < n)).to(images.device)])
        return torch.cat(tiles)

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
        if isinstance(y, int | str):
            return torch.full((n,), self.class_number(y))
        numbers = torch.tensor([self.class_number(c) for c in (y.tolist() if isinstance(y, Tensor) else y)])
        if len(numbers) != n:
            raise ConfigError(f"{n} images need {n} classes, and {len(numbers)} were given")
        return numbers

    def class_number(self, y: int | str) -> int:
        """The number of a class given by name or by number."""
        if isinstance(y, str) and y in self.classes:
            return self.classes.index(y)
        if isinstance(y, int) and 0 <= y < len(self.classes):
            return y
        hint = nearest(str(y), list(self.classes))
        raise ConfigError(f"there is no class {y!r}{hint} (classes: {', '.join(self.classes)})")

    def given(self, x: Tensor, y: Labels = None) -> Batch:
        """The batch for images a user gave, uint8 or floats in [-1, 1], moved to the model's device.

        Errors: `ConfigError` when the images have another shape than the model's, or classes are missing.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ConfigError(f"the model takes images (N, {', '.join(map(str, self.shape))}), given {tuple(x.shape)}")
        if self.classes and y is None:
            raise ConfigError("a class-conditional model needs the images' classes: give y")
        labels = self.labels(y, len(x))
        return Batch(to_float(x).to(self.device), None if labels is None else labels.to(self.device))

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.parameters()).device

    def weights_hash(self) -> str:
        """The hexadecimal SHA-256 of all weights, in a fixed order: what a manifest names a model by."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Conditional(ABC):  # noqa: B024  # a declaration without methods: `sample(n, y)` is every model's
    """The family can learn p(x | class)."""


class HasLatent(GenerativeModel):
    """Images are decoded from codes z (N, Z)."""

    @abstractmethod
    def prior(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        """n codes (N, Z) from the distribution that samples are decoded from."""

    @abstractmethod
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (N, Z) to images (N, C, H, W) in [-1, 1]."""

    def draw(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        return self.decode(self.prior(n, y, generator), y)

    @torch.no_grad()
    def code(self, seed: int, y: Labels = None) -> Tensor:
        """The code (1, Z) of the first sample of a seed."""
        labels = self.labels(y, 1)
        tile = None if labels is None else labels.expand(TILE).to(self.device)
        return self.prior(TILE, tile, generator(seed, "sample", 0))[:1]

    @torch.no_grad()
    def interpolate(
        self,
        start: Tensor,
        end: Tensor,
        steps: int = 10,
        y: Labels = None,
        path: Literal["linear", "spherical"] = "spherical",
    ) -> Tensor:
        """Images (steps, C, H, W) along the path between two codes (1, Z), both ends included.

        Codes come from `encode(image)` or from `code(seed)`. Linear goes straight; spherical keeps to the shell on
        which Gaussian codes lie (Shoemake 1985, https://doi.org/10.1145/325165.325242).
        """
        if steps < 2:
            raise ConfigError(f"an interpolation needs at least 2 steps, given {steps}")
        t = torch.linspace(0, 1, steps, device=start.device)[:, None]
        labels = self.labels(y, steps)
        with evaluating(self):
            return self.decode(PATHS[path](start, end, t), None if labels is None else labels.to(self.device))


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(1 - t) a + t b."""
    return (1 - t) * a + t * b


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Turn from a to b at an even angle, the length changing evenly; straight where the two are parallel."""
    length_a, length_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    unit_a, unit_b = a / length_a.clamp_min(1e-12), b / length_b.clamp_min(1e-12)
    angle = torch.acos((unit_a * unit_b).sum(1, keepdim=True).clamp(-1, 1))
    if angle.sin().abs().min() < 1e-6:
        return linear(a, b, t)
    direction = (torch.sin((1 - t) * angle) * unit_a + torch.sin(t * angle) * unit_b) / angle.sin()
    return linear(length_a, length_b, t) * direction


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"linear": linear, "spherical": spherical}


class Encodes(HasLatent):
    """Images also have codes."""

    @abstractmethod
    def encode(self, x: Tensor, y: Labels = None) -> Tensor:
        """Images (N, C, H, W), uint8 or in [-1, 1], to codes (N, Z)."""


class Reconstructs(ABC):
    """Images can be passed through the model and compared with what comes out."""

    @abstractmethod
    def reconstruct(self, x: Tensor, y: Labels = None) -> Tensor:
        """Images (N, C, H, W), uint8 or in [-1, 1], to their reconstructions in [-1, 1]."""


class Scores(ABC):
    """Images can be ranked by how typical the model finds them."""

    @abstractmethod
    def score(self, x: Tensor, y: Labels = None) -> Tensor:
        """One number for each image (N,), higher = more typical."""


class HasLikelihood(Scores):
    """The model knows p(x) exactly."""

    @abstractmethod
    def log_prob(self, x: Tensor, y: Labels = None) -> Tensor:
        """log p(x) in nats for each image (N,), as a density over floats in [-1, 1]."""

    def score(self, x: Tensor, y: Labels = None) -> Tensor:
        return self.log_prob(x, y)


CAPABILITIES: dict[str, type] = {
    "latent": HasLatent,
    "encode": Encodes,
    "reconstruct": Reconstructs,
    "score": Scores,
    "likelihood": HasLikelihood,
    "conditional": Conditional,
}


def able(capability: type) -> str:
    """A phrase that names the families that have a capability, for errors."""
    names = [name for name, cls in sorted(GenerativeModel.families.items()) if issubclass(cls, capability)]
    return f"families that can: {', '.join(names)}" if names else "no family can yet"


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within the block the module is in evaluation mode; afterwards in the mode it was in."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
