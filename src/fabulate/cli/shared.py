"""What the verbs share: parsing, reading images with a progress bar, and saying where something was written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from fabulate import models
from fabulate.config import DataSpec, data_spec, from_json
from fabulate.data import Data, Images, load_spec
from fabulate.errors import ConfigError, RunError
from fabulate.files import read_json
from fabulate.models.base import GenerativeModel, NoChoice
from fabulate.models.capabilities import Encodes

T = TypeVar("T")

PORTION = 64  # images encoded at a time: between them the bar moves

# A network's kind is chosen by --network, not by a sub-command; what is not given is None without being typed so.
STYLE = (tyro.conf.AvoidSubcommands, tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)


def parse(cls: type[T], argv: list[str], prog: str, default: T | None = None) -> T:
    """Parse flags into a dataclass; `--help` ends here.

    Errors: `ConfigError` with what tyro would print in a box, as one line.
    """
    box = StringIO()
    try:
        with redirect_stderr(box):
            flags = tyro.cli(cls, args=argv, prog=prog, default=default, config=STYLE)
    except SystemExit as end:
        if not end.code:
            raise
        lines = [line.strip("│╭╮╰╯─ ") for line in box.getvalue().splitlines()[1:]]
        problem = " ".join(lines[: lines.index("")] if "" in lines else lines)
        options = [line.split()[0] for line in lines if line.startswith("--")]
        meant = f"; did you mean {options[0]}?" if options and problem.startswith("Unrecognized") else ""
        raise ConfigError(f"{problem}{meant} ({prog} --help lists the options)") from None
    assert flags is not None  # tyro's type says that a default of None could come back
    return flags


def load_images(spec: DataSpec, streams: bool = False) -> Data:
    """The images a spec names, with a bar while they are decoded and a line about what was set aside.

    Errors: `DataError`, also for streamed ones where the verb does not say that it can do with `streams`.
    """
    with counting("reading images") as progress:
        data = load_spec(spec, progress)
    if data.report.warning:
        told(data.report.warning)
    return data if streams else data.whole()


def image_codes(model: Encodes, data: Data, images: Images, chosen: Tensor) -> Tensor:
    """The codes (N, Z) of chosen images, with a bar: some families search for each."""
    codes = []
    with counting("finding codes") as progress:
        for first in range(0, len(chosen), PORTION):
            x, y = images.batch(chosen[first : first + PORTION])
            codes.append(model.encode(x, class_names(model, data, y)))
            progress(first + len(x), len(chosen))
    return torch.cat(codes)


def class_names(model: GenerativeModel, data: Data, y: Tensor | None) -> list[str] | None:
    """The classes of images for a conditional model, by name: other images may number them otherwise."""
    return [data.classes[int(c)] for c in y] if model.classes and y is not None else None


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere; told (done, total) it moves, and it is gone afterwards."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def told(sentence: str) -> None:
    """Tell people something beside what the verb answers."""
    Console(stderr=True).print(sentence, highlight=False, markup=False, soft_wrap=True)


def where(what: str, *places: Path | str) -> None:
    """Say where something was written."""
    for place in places:
        Console().print(f"{what:10} {place}", highlight=False, markup=False, soft_wrap=True)


def run_config(argv: list[str]) -> dict[str, Any] | None:
    """The config.json of the run or model folder that is a verb's first word; None when there is none on this disk."""
    run = Path(argv[0]) if argv and not argv[0].startswith("-") else None
    return (
        None if run is None or not (run / "config.json").is_file() else read_json(run / "config.json", dict[str, Any])
    )


def run_data(argv: list[str]) -> DataSpec:
    """The data flags' defaults for a verb on a run (its first word): the run's own images, read as it read them.

    Other images (`--data`) are by default fitted to the model: its channels, and its size when it is square.
    """
    config = run_config(argv)
    if config is None:
        return DataSpec()
    if "data" not in config:  # a model folder knows only its shape
        own = DataSpec()
    else:
        own = data_spec(config["data"])
        if not any(word.split("=")[0] == "--data" for word in argv):
            return own
    channels, height, width = config["shape"]
    return replace(own, channels=channels, size=height if height == width else None)


def run_sampling(argv: list[str]) -> Any:
    """How a run draws samples when no flag says otherwise: a spec, whose fields are the flags."""
    config = run_config(argv)
    if config is None or config.get("family") not in models.names():
        return NoChoice()
    return getattr(from_json(models.family(config["family"]).Config, config["model"]), "sampling", NoChoice())


def absent(path: Path, overwrite: bool) -> Path:
    """A path that may be written: its folder is made, and an existing file is refused unless told to overwrite."""
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists; give --overwrite to replace it, or another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
