"""Pictures of what a model does: reconstructions, walks between codes and along directions, images turned to a class.

Legend: N images, S steps, C H W image, Z latent.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fabulate.config import DataSpec, nearest
from fabulate.data import Data, Images, read_image
from fabulate.data.media import medium
from fabulate.errors import CapabilityError, ConfigError
from fabulate.models.base import GenerativeModel, able
from fabulate.models.capabilities import Encodes, HasLatent
from fabulate.models.directions import as_classes, axes, difference, morph, of_samples, principal, traverse
from fabulate.models.search import EncodesBySearch
from fabulate.pictures import grid, pairs, table
from fabulate.seeds import permutation
from fabulate.types import Progress, SequenceShape, some_of, to_uint8

CHUNK = 64  # images encoded at a time: between them progress is heard of
BETWEEN = 6  # frames of an animation for each step of a strip

Kind = Literal["axes", "principal", "jacobian"]
WALKS: dict[Kind, tuple[str, str]] = {  # what is walked along, and what directions hold a share of
    "axes": ("one number of the code at a time", "the variance of the codes"),
    "principal": ("one principal direction of the codes at a time", "the variance of the codes"),
    "jacobian": ("one direction of the code at a time, those that change the image most", "the change of the image"),
}


def need(model: GenerativeModel, capability: type[Any], without: str) -> Any:
    """The model, which has a capability. Errors: `CapabilityError`: what it cannot do, and which families can."""
    if not isinstance(model, capability):
        raise CapabilityError(f"{model.family} {without}; {able(capability)}")
    return model


def walked(model: GenerativeModel, label: str | None) -> str | None:
    """The class in which a conditional model walks: the one asked for, or its first."""
    return label if label is not None or not model.classes else model.classes[0]


def code_at(model: HasLatent, at: int | Path | str, label: str | None, reading: DataSpec, instead: str) -> Tensor:
    """The code (1, Z) of the first sample of a seed, of a text, or of an image file, read as the run read its images.

    `instead`: what to do where the family cannot find codes of images, for its error.
    """
    if isinstance(at, int):
        return model.code(at, label)
    encoder: Encodes = need(model, Encodes, f"cannot find the codes of {model.shape.medium} ({instead})")
    if isinstance(at, str):
        return encoder.encode(medium(model.shape).given([at], model.shape), label)
    return encoder.encode(read_image(at, model.shape, reading)[None], label)


def codes_of(model: Encodes, data: Data, images: Images, rows: Tensor, progress: Progress | None = None) -> Tensor:
    """The codes (N, Z) of images by their numbers (N,); `progress` hears (images, in all): some families search."""
    codes, done = [], 0
    for part in torch.split(rows, CHUNK):
        x, y = images.batch(part)
        codes.append(model.encode(x, names_of(model, data, y)))
        done += len(part)
        if progress is not None:
            progress(done, len(rows))
    return torch.cat(codes)


def names_of(model: GenerativeModel, data: Data, y: Tensor | None) -> list[str] | None:
    """The classes of images for a conditional model, by name: other images may number them otherwise."""
    return [data.classes[int(c)] for c in y] if model.classes and y is not None else None


def reconstructions(model: Any, data: Data, n: int, seed: int, title: str) -> tuple[Image.Image, str]:
    """Images never trained on, each above its reconstruction by a model that `Reconstructs`, and the error in words."""
    images = data.unseen(labelled=bool(model.classes))
    x, y = images.batch(some_of(images, n, seed, "reconstruct"))
    made = model.reconstruct(x, names_of(model, data, y))
    error = float((made - x).square().mean()) / 4  # from [-1, 1] to pixels in [0, 1]
    words = f"mean squared error {error:.5f} (pixels in [0, 1], {len(x)} images)"
    return pairs(to_uint8(x).numpy(), to_uint8(made).cpu().numpy(), title, words), words


def interpolation(
    model: HasLatent, start: Tensor, end: Tensor, steps: int, path: Literal["linear", "spherical"], y: Any, title: str
) -> tuple[Image.Image, list[Image.Image]]:
    """A walk between two codes (1, Z) of class y: a strip of so many steps, and the frames of an animation."""
    shape: Any = model.shape
    if isinstance(shape, SequenceShape):
        drawn = model.interpolate(start, end, steps, y, path)
        return tabled(model, drawn[None], [], title, f"from one code to the other, the {path} way"), []
    pixels = to_uint8(model.interpolate(start, end, (steps - 1) * BETWEEN + 1, y, path)).numpy()
    columns = ["from", *[f"{step / (steps - 1):.2f}" for step in range(1, steps - 1)], "to"]
    legend = f"columns: parts of the {path} way between the codes"
    return table(pixels[::BETWEEN], columns, title, legend), [grid(frame[None]) for frame in pixels]


def tabled(
    model: GenerativeModel,
    x: Tensor,
    columns: Sequence[str],
    title: str,
    legend: str,
    names: Sequence[str] = (),
    shares: Sequence[float] = (),
) -> Image.Image:
    """Items in rows (R, S, ...): images as a table, sequences below each other, those of a row together."""
    shape: Any = model.shape
    if not isinstance(shape, SequenceShape):
        return table(to_uint8(x).cpu().numpy(), columns, title, legend, names, shares)
    rows = np.repeat(np.arange(len(x)), x.shape[1])
    told = names or ([f"{i + 1}" for i in range(len(x))] if len(x) > 1 else ())
    return medium(shape).sheet(model.items(x.flatten(0, 1)), title, legend, rows if told else None, told)


def usual_walk(model: HasLatent) -> Kind:
    """The directions that are walked along where none are asked for: not those for which codes must be searched."""
    return "axes" if isinstance(model, Encodes) and not isinstance(model, EncodesBySearch) else "jacobian"


def traversal(
    model: HasLatent,
    kind: Kind,
    codes: Tensor | None,
    base: Tensor | None,
    *,
    label: str | None,
    rows: int,
    steps: int,
    reach: float,
    n: int,
    titles: tuple[str, str],
) -> tuple[Image.Image, str]:
    """Walks to both sides of a code (1, Z), one direction in a row, and how much all of them hold, in words.

    `codes` (N, Z): of images, for axes and principal directions; the Jacobian's rest on `n` that are drawn. `base`: by
    default the mean code. `reach`: in standard deviations. `titles`: of the model and of the base.
    """
    if codes is None:
        codes, directions = of_samples(model, n, label)
    else:
        directions = (axes if kind == "axes" else principal)(codes)
    directions = directions.first(rows)
    values = torch.linspace(-reach, reach, steps, device=model.device)
    images = traverse(model, codes.mean(0, keepdim=True) if base is None else base, directions, values, label)
    shares = directions.shares.tolist()
    columns = [f"{value:+.3g}" if abs(value) > 1e-6 else "0" for value in values.tolist()]
    what, held = WALKS[kind]
    legend = f"columns: standard deviations from {titles[1]}; bars: share of {held}"
    picture = tabled(model, images, columns, f"{titles[0]}: {what}", legend, directions.names, shares)
    return picture, f"{len(shares)} directions hold {sum(shares):.1%} of {held}"


def class_number(data: Data, name: str | None, flag: str) -> int:
    """The number of a class of the data; `flag` asked for it. Errors: `ConfigError` with the classes that there are."""
    if not data.classes:
        raise ConfigError(f"the images of {data.name} have no classes; give others with --data, in folders by class")
    if name not in data.classes:
        given = f"there is no class {name!r}{nearest(name, list(data.classes))}" if name else f"{flag} is not given"
        raise ConfigError(f"{given} (classes: {', '.join(data.classes)})")
    return data.classes.index(name)


def morphing(
    model: Encodes,
    data: Data,
    classes: tuple[int, int],
    *,
    rows: int,
    steps: int,
    reach: float,
    n: int,
    seed: int,
    title: str,
    progress: Progress | None = None,
) -> Image.Image:
    """Real images of one class in rows, turned towards another.

    Along the difference of the mean codes of n images of both, `reach` times the way; a conditional model is told the
    class instead, so that its rows are codes found as the first class and decoded as either.
    """
    shown, (first, second) = data.unseen(labelled=True), (data.classes[c] for c in classes)
    x = shown.batch(members(shown, classes[0], rows, seed)).x
    if model.classes:
        images = as_classes(model, model.encode(x, first), [first, second])
        columns, legend = [f"as {first}", f"as {second}"], f"columns: codes found as {first}, decoded as each class"
    else:
        codes = [codes_of(model, data, data.train, members(data.train, c, n, seed), progress) for c in classes]
        strengths = torch.linspace(0, reach, steps)
        images = morph(model, model.encode(x), difference(*codes), strengths.to(model.device))
        columns = [f"{value:.3g}" for value in strengths.tolist()]
        legend = "columns: parts of the way between the mean codes of both, 0 is the reconstruction"
    both = torch.cat([x[:, None], images.cpu()], dim=1)
    return tabled(model, both, ["real", *columns], f"{title}: {first} turned towards {second}", legend)


def members(images: Images, label: int, n: int, seed: int) -> Tensor:
    """The numbers of n images of a class, chosen by a seed; all of them if there are fewer."""
    found = torch.from_numpy(images.class_numbers == label).nonzero()[:, 0]
    return found[permutation(len(found), seed, "morph")[:n]]
