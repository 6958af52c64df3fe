"""`fabulate fill RUN`: complete what is missing: a part of an image, the rest of a tune, voices under another."""

from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Count, Device, Other, OtherImages, Run, images_for, off_images, where
from fabulate.config import spec
from fabulate.data.media import medium
from fabulate.errors import ConfigError, DataError
from fabulate.evaluation.gallery import need
from fabulate.files import own_folder, vacant_folder
from fabulate.models.capabilities import Fills
from fabulate.samples.writing import show
from fabulate.training import load
from fabulate.types import ImageShape, SequenceShape

VOICES = ("soprano", "alto", "tenor", "bass")
LIGHT = 128  # of a mask's pixel, from which it is to be filled


@spec
class Arguments:
    """Complete an item of which a part is given, in several ways. Say what is given: --mask, --keep or --voice."""

    run: Run
    data: Other = OtherImages()
    item: Annotated[int, Field(ge=0)] = 0
    """Which item: its number among the test items (of all where there are none)."""
    mask: Path | None = None
    """Of images: a picture, white where the image is to be filled, black where it is given."""
    keep: str | None = None
    """Of sequences: places START:END that are given, 0:64 the beginning."""
    voice: str | None = None
    """Of pieces for several voices: the voice that is given, soprano, alto, tenor, bass or its number from above."""
    n: Count = 4
    """How many completions."""
    seed: int = 0
    """Which completions."""
    device: Device = "auto"
    out: Path | None = None
    """Folder (default: RUN/drawn/fill-ITEM-seed-SEED)."""
    overwrite: bool = False
    """Write into a folder that is not empty."""


def fill(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate fill")
    model: Any = need(load(flags.run, flags.device), Fills, "cannot fill in what is missing")
    shape: Any = model.shape
    known = given_part(flags, shape)
    usual = flags.run / "drawn" / f"fill-{flags.item}-seed-{flags.seed}"
    out = off_images(flags.out or usual, flags.run, flags.data.source)
    vacant_folder(out, flags.overwrite)
    data = images_for(flags.run, model, flags.data, sequences=True)
    if data.shape != shape:
        raise ConfigError(f"the model fills {shape.medium} of {shape}, and {data.name} has those of {data.shape}")
    some = data.train if data.test is None else data.test
    if flags.item >= len(some):
        raise ConfigError(f"there are {len(some):,} {shape.medium}, 0 to {len(some) - 1}; given --item {flags.item}")
    x, y = some.batch(torch.tensor([flags.item]))
    labels = None if y is None or not model.classes else [data.classes[int(y)]]
    drawn = model.fill(x, known, labels, n=flags.n, seed=flags.seed).cpu()
    items = [*model.items(torch.cat([blanked(x, known, shape), x])), *model.items(drawn)]
    its = medium(shape)
    own_folder(out)
    names = ["given", "whole", *(f"{i:05}" for i in range(flags.n))]
    for name, item in zip(names, items, strict=True):
        its.place(item, out / f"{name}{its.ending}")
    legend = f"first what is given, then the whole item, then {flags.n} completions, seed {flags.seed}"
    files = [f"{name}{its.ending}" for name in names]
    show(out, f"{model.about}: filled in", legend, its, files, items, kind="fabulate fill")
    where(shape.medium, out, out / "grid.png")
    if (page := out / "index.html").exists():
        where("page", page)


def given_part(flags: Arguments, shape: Any) -> Tensor:
    """What is given of an item, bool in its dimensions. Errors: `ConfigError` where it is not said as it is of such."""
    asked = {name: value for name in ("mask", "keep", "voice") if (value := getattr(flags, name)) is not None}
    usable = ("mask",) if isinstance(shape, ImageShape) else ("keep", "voice") if shape.voices > 1 else ("keep",)
    if len(asked) != 1 or not {*asked} <= {*usable}:
        told = " ".join(f"--{name}" for name in asked) or "nothing"
        options = " or ".join(f"--{name}" for name in usable)
        raise ConfigError(f"say what is given of {shape.medium} by {options}; given {told}")
    ((name, value),) = asked.items()
    return PARTS[name](value, shape)


def masked(path: Path, shape: ImageShape) -> Tensor:
    """Where a mask is black. Errors: `DataError` where it cannot be read, or is all black or all white."""
    try:
        mask = Image.open(path).convert("L").resize((shape.width, shape.height), Image.Resampling.NEAREST)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path} cannot be read as a mask: {error}") from error
    light = torch.tensor(list(mask.tobytes()), dtype=torch.uint8).view(shape.height, shape.width) >= LIGHT
    if light.all() or not light.any():
        raise DataError(f"{path} is all {'white' if light.all() else 'black'}: white is filled in, black is given")
    return ~light.expand(shape.channels, -1, -1)


def kept(words: str, shape: SequenceShape) -> Tensor:
    start, colon, end = words.partition(":")
    if not colon or not all(word.isdecimal() or not word for word in (start, end)):
        raise ConfigError(f"--keep is START:END, such as 0:64; given {words!r}")
    known = torch.zeros(shape.dims, dtype=torch.bool)
    known[int(start or 0) : int(end) if end else None] = True
    if known.all() or not known.any():
        raise ConfigError(f"--keep {words} leaves {'nothing to fill' if known.all() else 'nothing given'} of {shape}")
    return known


def one_voice(word: str, shape: SequenceShape) -> Tensor:
    names = VOICES if shape.voices == len(VOICES) else ()
    numbers = [str(i + 1) for i in range(shape.voices)]
    if word not in (*names, *numbers):
        raise ConfigError(f"--voice is one of {', '.join((*names, *numbers))}; given {word!r}")
    known = torch.zeros(shape.dims, dtype=torch.bool)
    known[:, names.index(word) if word in names else numbers.index(word)] = True
    return known


PARTS: dict[str, Any] = {"mask": masked, "keep": kept, "voice": one_voice}


def blanked(x: Tensor, known: Tensor, shape: Any) -> Tensor:
    """An item (1, ...) without what is not given: gray pixels, rests, or nothing."""
    if isinstance(shape, ImageShape):
        return torch.where(known, x, 0)
    return torch.where(known, x, (x > 0).to(x.dtype) if shape.voices > 1 else 0)
