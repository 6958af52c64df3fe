"""`fabulate sample RUN`: new images as PNGs in (class) folders, or as one .npz; `fabulate join` puts parts together."""

from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from fabulate import samples
from fabulate.cli.parsing import glance, parse
from fabulate.cli.shared import Count, Device, Flat, counting, named, off_images, sampling_of, told, where
from fabulate.config import Compile, PositiveInt, spec, to_json
from fabulate.errors import ConfigError
from fabulate.models.base import NoChoice
from fabulate.models.families import families
from fabulate.training import load


@spec
class Sample:
    """Draw new images from a run: PNGs with a grid and a manifest, or one .npz. Name the run to see its own options."""

    run: tyro.conf.Positional[str]
    """A run folder, a model folder or a model on the Hugging Face hub."""
    n: Count = 64
    """How many images."""
    label: str | None = None
    """Only images of this class (a conditional model draws every class in turn)."""
    seed: int = 0
    """Which images: the same seed draws the same ones."""
    out: Path | None = None
    """Folder for the PNGs (default: RUN/drawn/seed-SEED, with the label when one is given)."""
    npz: Path | None = None
    """Write one .npz file instead of a folder."""
    batch_size: PositiveInt = 256
    """Images held in memory at a time; it changes nothing in the images."""
    device: Device = "auto"
    start: Annotated[int, Field(ge=0)] | None = None
    """The number of the first image, to draw a part: image i is the same in any. `fabulate join` joins parts."""
    compile: Compile = "auto"
    """Compile the network, where it is called again and again; auto does for many images, but not with --start. It
    changes how sums round."""
    overwrite: bool = False
    """Write into a folder that is not empty, or over an existing .npz."""


def sample(argv: list[str]) -> None:
    seen = glance(with_flags(any_way()), argv)
    both = parse(with_flags(NoChoice() if seen is None else sampling_of(seen.arguments.run)), argv, "fabulate sample")
    flags: Sample = both.arguments
    if flags.out is not None and flags.npz is not None:
        raise ConfigError("give --out (a folder of PNGs) or --npz (one file), not both")
    model = load(flags.run, flags.device)
    part = "" if flags.start is None else f"-from-{flags.start}"
    usual = Path(flags.run) / "drawn" / f"seed-{flags.seed}{named(flags.label, model.classes)}{part}"
    place = off_images(flags.npz or flags.out or usual, flags.run)
    names = "seed", "start", "batch_size", "compile", "overwrite"
    options = {name: getattr(flags, name) for name in names} | to_json(both.sampling)
    with counting("drawing") as progress:
        write = samples.write_samples if flags.npz is None else samples.write_npz
        write(model, place, flags.n, flags.label, progress=progress, say=told, **options)
    if flags.npz is not None:
        where("arrays", place)
        return
    where(model.shape.medium, place, place / "grid.png")
    if (page := place / "index.html").exists():
        where("page", page)


def with_flags(sampling: Any) -> Any:
    """The arguments, and a flag for each field of a way of sampling."""
    own: list[Any] = [
        ("arguments", Annotated[Sample, Flat]),
        ("sampling", Annotated[type(sampling), Flat], field(default_factory=lambda: sampling)),
    ]
    return make_dataclass("Sample", own, namespace={"__doc__": Sample.__doc__}, frozen=True)


def any_way() -> Any:
    """The flags of all families: which of them a run has is known when the run is, which may stand behind them."""
    ways = [way for cls in families().values() if (way := getattr(cls.Config(), "sampling", None)) is not None]
    every: dict[str, tuple[str, Any, Any]] = {}
    for each in (each for way in ways for each in fields(way)):  # whether a word follows is all that matters here
        every[each.name] = (each.name, bool, False) if each.type is bool else (each.name, str | None, None)
    return make_dataclass("AnyWay", every.values(), frozen=True)()


@spec
class Join:
    """Put parts together that `fabulate sample --start` drew, on any machines, as if one had drawn all of them.

    No part may be missing, overlap another, or be drawn by another model or seed.
    """

    parts: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of PNGs with their manifests, or .npz files, in any order."""
    out: Path
    """The folder, or the .npz, to write; the parts stay as they are."""
    n: Annotated[PositiveInt | None, tyro.conf.arg(aliases=["-n"])] = None
    """How many samples there must be, so that the last part cannot be missing unseen."""
    overwrite: bool = False
    """Write into a folder that is not empty, or over an existing .npz."""


def join(argv: list[str]) -> None:
    flags = parse(Join, argv, "fabulate join")
    with counting("joining") as progress:
        samples.join(flags.parts, flags.out, n=flags.n, overwrite=flags.overwrite, progress=progress, say=told)
    where("samples", flags.out)
