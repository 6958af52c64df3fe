"""The functions of a model that can be written down as graphs, each with real inputs to try it on.

    decoder     codes -> pixels                          what all but the family `ar` end with
    prior       noise, choice -> codes                   how samples draw their codes
    encoder     pixels -> codes                          of families that have one
    denoiser    noisy, level -> images of the space      one evaluation of the network of a diffusion model

A model that evaluates its network many times for an image (`repeated`) is not one graph: its denoiser is, and the loop
over noise levels stays outside (`web/solver.ts` has it in TypeScript). Its decoder then turns what the loop ends with
into pixels. A few evaluations are written down one after the other.

Legend: N images, C H W image, Z latent, c h w image of the space.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from fabulate.errors import CapabilityError
from fabulate.models import GenerativeModel
from fabulate.models.base import TILE, able, evaluating
from fabulate.models.capabilities import Encodes, HasLatent
from fabulate.models.denoising import Denoising
from fabulate.models.families import families
from fabulate.models.search import EncodesBySearch
from fabulate.nets.flows import Mix
from fabulate.samplers import grid
from fabulate.seeds import generator
from fabulate.types import Batch, ImageShape, unit

Part = Literal["decoder", "prior", "encoder", "denoiser"]
FEW = 4  # evaluations of a network that are written down one after the other


class Graph(NamedTuple):
    """A function of a model."""

    function: nn.Module
    inputs: dict[str, Tensor]
    """By their names, in order: real ones, the first dimension N."""
    output: str
    told: str
    """What goes in and what comes out, in a sentence."""
    scale: Tensor | None = None
    """What differences are measured in (N, 1, ...), where that is not 1."""


class Function(nn.Module):
    """A function as a module that holds the model whose weights it uses."""

    def __init__(self, model: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def stepwise(model: GenerativeModel) -> bool:
    """Whether an image takes so many evaluations of a network that one graph is one of them."""
    return isinstance(model, Denoising) and sum(model.repeated().values()) > FEW


def usual_part(model: GenerativeModel) -> Part:
    """What is written where nothing is asked for."""
    return "denoiser" if stepwise(model) else "decoder"


@torch.no_grad()
def graph_of(model: GenerativeModel, part: Part) -> Graph:
    """A part of a model, with inputs as sampling with seed 0 has them.

    Errors: `CapabilityError` for a part that the family does not have, saying which families do.
    """
    if not isinstance(model.shape, ImageShape):
        raise CapabilityError(f"graphs are of models of images, and this {model.family} is one of {model.shape.medium}")
    if not isinstance(model, HasLatent):
        raise CapabilityError(f"{model.family} draws symbol by symbol, which is no one graph; {able(HasLatent)}")
    model = still(model)
    with evaluating(model):
        return PARTS[part](model)


def still(model: HasLatent) -> HasLatent:
    """A copy on the CPU in which weights that follow from others, by an inverse say, are constants."""
    model = deepcopy(model).cpu()
    for layer in model.modules():
        if isinstance(layer, Mix):
            layer.unmixing = constant(layer.unmixing())  # type: ignore[method-assign]  # ONNX solves no equations
    return model


def constant(value: Tensor) -> Callable[[], Tensor]:
    """A function that gives the same each time."""
    return lambda: value


def classes(model: HasLatent) -> dict[str, Tensor]:
    """The classes of the first samples, as an input where there are classes."""
    y = model.labels(None, TILE)
    return {} if y is None else {"class": y}


def codes_drawn(model: HasLatent) -> Tensor:
    """The codes (N, Z) of the first samples of seed 0."""
    return model.priors([generator(0, "sample", 0)], classes(model).get("class"))


def pixels(x: Tensor) -> Tensor:
    """Images in [-1, 1] as pixels in [0, 1]."""
    return unit(x).clamp(0, 1)


def decoder(model: HasLatent) -> Graph:
    """Codes to pixels."""
    codes, y = codes_drawn(model), classes(model)
    out = "pixels (N, C, H, W) in [0, 1]"
    if isinstance(model, Denoising) and stepwise(model):
        space = model.space
        images = space.encode(model.sample(TILE))
        told = f"what the steps end with, images (N, {', '.join(map(str, space.shape))}) -> {out}"
        return Graph(Function(space, lambda u: pixels(space.decode(u))), {"images": images}, "pixels", told)
    function = Function(model, lambda z, y=None: pixels(model.decode(z, y)))
    return Graph(function, {"codes": codes, **y}, "pixels", f"codes (N, {codes.shape[1]}) -> {out}")


def prior(model: HasLatent) -> Graph:
    """Noise to codes."""
    codes, y = codes_drawn(model), classes(model)
    noise = torch.randn(codes.shape, generator=generator(0, "noise"))
    choice = torch.rand(len(codes), generator=generator(0, "choice"))
    if not made_of_noise(type(model)):
        able_to = [name for name, cls in families().items() if issubclass(cls, HasLatent) and made_of_noise(cls)]
        raise CapabilityError(
            f"how {model.family} draws codes is not written as a function of noise; families where it is: "
            f"{', '.join(able_to)}"
        )
    function = Function(model, lambda noise, choice, y=None: model.from_noise(noise, choice, y))
    told = f"noise (N, {codes.shape[1]}) from N(0, 1), choice (N,) uniform in [0, 1) -> codes, as samples have them"
    return Graph(function, {"noise": noise, "choice": choice, **y}, "codes", told)


def made_of_noise(cls: type[HasLatent]) -> bool:
    """Whether a family's codes can be made of noise."""
    return cls.prior is HasLatent.prior or cls.from_noise is not HasLatent.from_noise


def encoder(model: HasLatent) -> Graph:
    """Pixels to codes."""
    if not encodes(type(model)):
        able_to = ", ".join(name for name, cls in families().items() if encodes(cls))
        raise CapabilityError(
            f"{model.family} finds codes in many steps, or not at all; families that encode: {able_to}"
        )
    assert isinstance(model, Encodes)

    def codes(x: Tensor, y: Tensor | None = None) -> Tensor:
        return model.codes(Batch(2 * x - 1, y))

    told = f"pixels (N, {', '.join(map(str, model.shape))}) in [0, 1] -> codes"
    inputs = {"pixels": pixels(model.sample(TILE)), **classes(model)}
    return Graph(Function(model, codes), inputs, "codes", told)


def encodes(cls: type[GenerativeModel]) -> bool:
    """Whether a family has an encoder that is one evaluation of a network."""
    return issubclass(cls, Encodes) and not issubclass(cls, EncodesBySearch) and not cls.slow


def denoiser(model: HasLatent) -> Graph:
    """Noisy images and their noise levels to the images behind them."""
    if not isinstance(model, Denoising):
        raise CapabilityError(f"{model.family} takes no noise off images; {able(Denoising)}")
    levels = grid(TILE)[:TILE].to(torch.get_default_dtype())
    images = model.space.encode(model.sample(TILE))
    noise = torch.randn(images.shape, generator=generator(0, "noise"))

    def denoised(noisy: Tensor, level: Tensor, y: Tensor | None = None) -> Tensor:
        return model.denoiser(y)(noisy, level[:, None, None, None])

    scale = levels[:, None, None, None]
    told = (
        f"noisy (N, {', '.join(map(str, model.space.shape))}), an image plus level (N,) times N(0, 1) noise -> images, "
        f"the mean of those that may lie behind it"
    )
    inputs = {"noisy": images + scale * noise, "level": levels, **classes(model)}
    return Graph(Function(model, denoised), inputs, "images", told, scale.clamp_min(1))


PARTS: dict[Part, Callable[[HasLatent], Graph]] = {
    "decoder": decoder,
    "prior": prior,
    "encoder": encoder,
    "denoiser": denoiser,
}
assert set(PARTS) == set(get_args(Part))
