"""`fabulate export RUN`: a model for other programs: an ONNX file, a page of its own, or a folder for diffusers."""

from pathlib import Path

import tyro

from fabulate.cli.parsing import parse
from fabulate.cli.shared import counting, off_images, stages, where
from fabulate.config import spec
from fabulate.errors import ConfigError
from fabulate.files import vacant_file
from fabulate.share.diffusers import to_diffusers
from fabulate.share.graphs import Part
from fabulate.share.onnx import Written, check_packages, write_onnx
from fabulate.share.web import LARGEST, write_web
from fabulate.training import load


@spec
class Arguments:
    """Write a run's model for other programs: by --onnx as a graph that onnxruntime runs, by --web as a page that draws
    in the browser; otherwise a diffusion model, trained with `--preset diffusers`, as a folder for diffusers."""

    run: tyro.conf.Positional[str]
    """A run folder, a model folder or a model on the Hugging Face hub."""
    onnx: Path | None = None
    """The ONNX file to write."""
    web: Path | None = None
    """The folder of a page to write, which any file server can serve."""
    part: Part | None = None
    """What of the model it is: codes to pixels, noise to codes, pixels to codes, or one evaluation of a diffusion model
    (default: decoder, or denoiser of a model that takes many evaluations)."""
    out: Path | None = None
    """The folder for diffusers (default: RUN/diffusers)."""
    overwrite: bool = False
    """Replace an existing file, or write into a folder that is not empty."""


def export(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate export")
    given = [f"--{name}" for name in ("onnx", "web", "out") if getattr(flags, name) is not None]
    if len(given) > 1:
        raise ConfigError(f"one thing is written at a time: give {' or '.join(given)}")
    if flags.part is not None and flags.onnx is None:
        raise ConfigError(f"--part {flags.part} is of an ONNX file: give --onnx FILE as well")
    if flags.onnx is not None:
        check_packages()
        file = vacant_file(off_images(flags.onnx, flags.run), flags.overwrite, "--onnx")
        with counting("writing the graph"):
            written = write_onnx(load(flags.run), file, flags.part)
        print(f"{written.part}: {written.told}")
        tell([written])
        where("onnx", file)
    elif flags.web is not None:
        folder, title = off_images(flags.web, flags.run), Path(flags.run).resolve().name
        with stages() as told:
            tell(write_web(load(flags.run), folder, title, overwrite=flags.overwrite, stages=told))
        size = sum(file.stat().st_size for file in folder.iterdir())
        slow = ", which takes long to open: a smaller network draws sooner, too" if size > LARGEST else ""
        print(f"{size / 1e6:.1f} MB{slow}; to look at it: python -m http.server --directory {folder}")
        where("page", folder / "index.html")
    else:
        folder = off_images(flags.out or Path(flags.run) / "diffusers", flags.run)
        where("diffusers", to_diffusers(load(flags.run), folder, flags.overwrite))


def tell(graphs: list[Written]) -> None:
    for each in graphs:
        print(f"{each.part} differs from the model by at most {each.difference:.1e}, as onnxruntime computes it")
