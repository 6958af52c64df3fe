"""`fabulate sample RUN`: new images as PNGs in (class) folders, or as one .npz."""

from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fabulate.cli.several import several, start
from fabulate.cli.shared import counting, glance, named, off_images, parse, sampling_of, told, where
from fabulate.config import Compile, PositiveInt, spec, to_json
from fabulate.errors import ConfigError
from fabulate.models.base import NoChoice
from fabulate.models.families import families
from fabulate.samples import faster, write_npz, write_samples
from fabulate.training import load

Flat = tyro.conf.arg(name="")


@spec
class Arguments:
    """Draw new images from a run: PNGs with a grid and a manifest, or one .npz. Name the run to see its own options."""

    run: tyro.conf.Positional[str]
    """A run folder, a model folder or a model on the Hugging Face hub."""
    n: Annotated[PositiveInt, tyro.conf.arg(aliases=["-n"])] = 64
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
    device: str = "cpu"
    """Where to draw: cpu, cuda, ..."""
    processes: PositiveInt = 1
    """Processes of this machine that share the images; it changes nothing in them."""
    compile: Compile = "auto"
    """Compile the network, where it is called again and again; auto does for many images. It changes how sums round."""
    overwrite: bool = False
    """Write into a folder that is not empty, or over an existing .npz."""


UNFINISHED = "a folder without manifest.json is not whole; the same command with --overwrite draws all images again"


def main(argv: list[str]) -> None:
    seen = glance(with_flags(any_way()), argv)
    both = parse(with_flags(NoChoice() if seen is None else sampling_of(seen.arguments.run)), argv, "fabulate sample")
    flags: Arguments = both.arguments
    if flags.out is not None and flags.npz is not None:
        raise ConfigError("give --out (a folder of PNGs) or --npz (one file), not both")
    start(flags.processes, ["sample", *argv])
    sampling = to_json(both.sampling)
    with several(flags.device, "drawing", UNFINISHED) as processes:
        model = processes.leads(lambda: load(flags.run, flags.device)) or load(flags.run, flags.device)
        options: dict[str, Any] = {"seed": flags.seed, "batch_size": flags.batch_size, "overwrite": flags.overwrite}
        with faster(model, flags.n, flags.compile, told, sampling), counting("drawing") as progress:
            options |= {"progress": progress, "processes": processes, "say": told, **sampling}
            if flags.npz is not None:
                places = [write_npz(model, off_images(flags.npz, flags.run), flags.n, flags.label, **options)]
            else:
                of_class = named(flags.label, model.classes)
                folder = off_images(flags.out or Path(flags.run) / "drawn" / f"seed-{flags.seed}{of_class}", flags.run)
                write_samples(model, folder, flags.n, flags.label, **options)
                places = [folder, folder / "grid.png"]
    where("images" if flags.npz is None else "arrays", *places)


def with_flags(sampling: Any) -> Any:
    """The arguments, and a flag for each field of a way of sampling."""
    own: list[Any] = [
        ("arguments", Annotated[Arguments, Flat]),
        ("sampling", Annotated[type(sampling), Flat], field(default_factory=lambda: sampling)),
    ]
    return make_dataclass("Sample", own, namespace={"__doc__": Arguments.__doc__}, frozen=True)


def any_way() -> Any:
    """The flags of all families: which of them a run has is known when the run is, which may stand behind them."""
    ways = [way for cls in families().values() if (way := getattr(cls.Config(), "sampling", None)) is not None]
    every: dict[str, tuple[str, Any, Any]] = {}
    for each in (each for way in ways for each in fields(way)):  # whether a word follows is all that matters here
        every[each.name] = (each.name, bool, False) if each.type is bool else (each.name, str | None, None)
    return make_dataclass("AnyWay", every.values(), frozen=True)()
