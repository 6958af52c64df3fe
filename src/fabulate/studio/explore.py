"""A model's codes as a map, and what is decoded at any place of it.

The map's directions are the principal ones of the codes of images (of drawn codes, for a family that has to search for
an image's code). A place is told by its coordinates along the first of them, in standard deviations from the mean code:

    z = mean + sum_k place_k spread_k v_k

Legend: N codes, Z latent, K directions.
"""

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fabulate.config import to_json
from fabulate.data import read_image
from fabulate.errors import CapabilityError, FabulateError
from fabulate.evaluation.gallery import codes_of, walked
from fabulate.models.base import evaluating
from fabulate.models.capabilities import Encodes, HasLatent, Reconstructs, Scores
from fabulate.models.directions import LARGEST_CODE, Directions, principal
from fabulate.models.search import EncodesBySearch
from fabulate.pictures import Pixels, in_colour, to_image
from fabulate.seeds import generator
from fabulate.studio.atlas import atlas
from fabulate.studio.forms import schema
from fabulate.studio.loaded import Kept, data_of_run, model_of, version
from fabulate.training import own_data
from fabulate.types import ImageShape, some_of, to_uint8

SLIDERS = 12  # directions that have one
NEIGHBOURS = 6  # of an image that is dropped
Json = dict[str, Any]


@dataclass(frozen=True)
class Map:
    """Codes, their principal directions, and images of them."""

    mean: Tensor
    directions: Directions
    real: Tensor
    """Codes of images (N, Z); none for a family that has to search for them."""
    drawn: Tensor
    """Codes that samples are decoded from (N, Z)."""
    images: dict[str, Pixels]
    """Of both, uint8 (N, C, H, W)."""
    labels: list[str]
    """The class of each real image; none where there are no classes."""

    def places(self, codes: Tensor) -> Tensor:
        """Where codes (N, Z) lie: (N, K)."""
        spreads = self.directions.spreads.clamp_min(1e-12)
        return (codes - self.mean) @ self.directions.vectors.T / spreads

    def codes(self, places: Tensor) -> Tensor:
        """The codes (N, Z) at places (N, K)."""
        first = self.directions.first(places.shape[1])
        return self.mean + (places * first.spreads) @ first.vectors


_maps: Kept[Map] = Kept(6)


def facts(run: Path) -> Json:
    """What can be done with a run's model."""
    model = model_of(run).model
    images = isinstance(model.shape, ImageShape)
    sampling = type(model.sampling)
    fields = to_json(model.sampling) if hasattr(sampling, "__pydantic_fields__") else {}
    return {
        "family": model.family,
        "medium": model.shape.medium,
        "shape": list(model.shape) if images else str(model.shape),
        "classes": list(model.classes),
        "numbers": sum(weights.numel() for weights in model.parameters()),
        "map": images and isinstance(model, HasLatent) and model.code(0, walked(model, None)).shape[1] <= LARGEST_CODE,
        "score": isinstance(model, Scores),
        "reconstruct": isinstance(model, Reconstructs) and not model.slow,
        "sampling": schema(sampling) if fields else None,
        "defaults": fields,
    }


def draw(run: Path, n: int, seed: int, label: str | None, sampling: Json) -> bytes:
    """Samples side by side as a PNG without gaps."""
    loaded = model_of(run)
    if not isinstance(loaded.model.shape, ImageShape):
        raise CapabilityError(f"{run.name} draws {loaded.model.shape.medium}, which are read, not looked at")
    with loaded.lock:
        return atlas(to_uint8(loaded.model.sample(n, label, seed=seed, **sampling)).cpu().numpy())


def map_of(run: Path, n: int, label: str | None) -> Map:
    """The map of a run's codes."""
    return _maps.get((version(run), n, label), lambda: make(run, n, label))


@torch.no_grad()
def make(run: Path, n: int, label: str | None) -> Map:
    """Encode images, draw codes, and find the directions."""
    loaded = model_of(run)
    model = loaded.model
    if not isinstance(model.shape, ImageShape):
        raise CapabilityError(f"{run.name} is a model of {model.shape.medium}; maps are of images")
    if not isinstance(model, HasLatent):
        raise CapabilityError(f"{model.family} has no codes to walk among")
    label = walked(model, label)
    with loaded.lock, evaluating(model):
        y = model.labels(label, n)
        y = None if y is None else y.to(model.device)
        drawn = model.prior(n, y, generator(0, "map"))
        if drawn.shape[1] > LARGEST_CODE:
            raise CapabilityError(f"a code of {run.name} has {drawn.shape[1]:,} numbers: no map of them tells much")
        images = {"drawn": to_uint8(model.decode(drawn, y)).cpu().numpy()}
        real, labels = drawn[:0], list[str]()
        if isinstance(model, Encodes) and not isinstance(model, EncodesBySearch) and not model.slow:
            data = data_of_run(run)
            shown = data.unseen(labelled=bool(data.classes))
            rows = some_of(shown, n, 0, "map")
            x, classes = shown.batch(rows)
            real = codes_of(model, data, shown, rows)
            images["real"] = to_uint8(x).numpy()
            labels = [] if classes is None else [data.classes[int(c)] for c in classes]
    basis = real if len(real) > 2 else drawn
    return Map(basis.mean(0), principal(basis).first(SLIDERS), real, drawn, images, labels)


def mapped(run: Path, n: int, label: str | None) -> Json:
    """A map as JSON: where codes lie in its plane, how much each direction holds, and the classes."""
    found = map_of(run, n, label)
    real, drawn = (found.places(codes)[:, :SLIDERS].cpu() for codes in (found.real, found.drawn))
    return {
        "real": numbers(real),
        "drawn": numbers(drawn),
        "labels": found.labels,
        "shares": [round(float(s), 5) for s in found.directions.shares],
        "latent": int(found.mean.shape[0]),
    }


def numbers(places: Tensor) -> list[list[float]]:
    """Places as JSON, to the third digit."""
    return [[round(value, 3) for value in row] for row in places.tolist()]


def images_of(run: Path, n: int, label: str | None, which: str) -> bytes:
    """The images of a map, side by side, as a PNG without gaps."""
    images = map_of(run, n, label).images.get(which)
    if images is None:
        raise FileNotFoundError(2, "there are no such images", which)
    return atlas(images)


@torch.no_grad()
def decoded(run: Path, n: int, label: str | None, places: list[list[float]]) -> Pixels:
    """Images uint8 (N, C, H, W) of the codes at places, all of the same length."""
    if len({len(place) for place in places}) > 1:
        raise FabulateError("places: must all have the same length")
    found, loaded = map_of(run, n, label), model_of(run)
    if len(places[0]) > len(found.directions.names):
        raise FabulateError(f"places: there are {len(found.directions.names)} directions, given {len(places[0])}")
    with loaded.lock:
        z = found.codes(torch.tensor(places, dtype=found.mean.dtype, device=found.mean.device))
        y = loaded.model.labels(walked(loaded.model, label), len(z))
        with evaluating(loaded.model):
            return to_uint8(loaded.model.decode(z, None if y is None else y.to(loaded.model.device))).cpu().numpy()


def walk(run: Path, n: int, label: str | None, places: list[list[float]]) -> bytes:
    """A walk through places as a GIF, forth and back."""
    frames = in_colour(decoded(run, n, label, places))
    scale = max(1, 192 // max(frames.shape[2:]))
    large = frames.repeat(scale, axis=2).repeat(scale, axis=3)
    buffer = BytesIO()
    pages = [to_image(frame) for frame in large]
    pages += pages[-2:0:-1]
    pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=80, loop=0)
    return buffer.getvalue()


@torch.no_grad()
def judged(run: Path, n: int, label: str | None, file: Path) -> Json:
    """An image that somebody has: what the model makes of it, its score, where it lies, and its nearest real ones."""
    loaded, found = model_of(run), map_of(run, n, label)
    model = loaded.model
    x = read_image(file, model.shape, own_data(run))[None]
    told: Json = {"image": png(x.numpy())}
    y = walked(model, label)
    with loaded.lock:
        if isinstance(model, Reconstructs) and not model.slow:
            told["reconstruction"] = png(to_uint8(model.reconstruct(x, y)).cpu().numpy())
        if isinstance(model, Scores):
            told["score"] = float(model.score(x, y)[0])
        if isinstance(model, Encodes) and not isinstance(model, EncodesBySearch) and not model.slow:
            z = model.encode(x, y)
            told["place"] = numbers(found.places(z).cpu())[0]
            if len(found.real):
                far = (found.real - z).square().sum(1)
                told["neighbours"] = far.argsort()[:NEIGHBOURS].tolist()
    return told


def png(images: Pixels) -> str:
    """The first of some images as a PNG in base64."""
    return base64.b64encode(atlas(images[:1])).decode()
