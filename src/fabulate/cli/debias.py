"""`fabulate debias SOURCE`: who is rare in its class, how much must it count, and what does that change?"""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field
from rich.console import Console

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Device, Flat, images_and_folder, stages, where
from fabulate.config import PositiveInt, Reading, spec
from fabulate.errors import ConfigError
from fabulate.uses.debias import Debiaser, page, proof


@spec
class Arguments:
    """Find images that are rare in their class, weigh them, and test whether a classifier becomes fairer by it."""

    source: tyro.conf.Positional[str]
    """The images, in a folder for each class: a folder, a name such as mnist, an .npz file."""
    reading: Annotated[Reading, Flat] = Reading()
    by: tuple[str, ...] = ()
    """What shall tell nothing of the class: palette, structure, structure-3, ... (default: what tells most of it; with
    --environments what differs most between them)."""
    density: Literal["mixture", "histogram"] = "mixture"
    """How the density of codes in a class is estimated."""
    target: Literal["overall", "even"] | None = None
    """What the factor follows in every class afterwards: its density over all classes, or the same everywhere."""
    groups: Path | None = None
    """A CSV file with the group of each test image: accuracy is told for each. Used in the test only."""
    environments: Path | None = None
    """A CSV file with the environment of each training image: what differs between them is the bias."""
    attribute: Path | None = None
    """A CSV file with an attribute of each image: rare pairs of class and attribute are filled up by new images."""
    fill: PositiveInt = 200
    """With --attribute: images of a pair, real and generated."""
    family: str = "vae"
    """With --attribute: the family of the model that generates."""
    recoloured: bool = False
    """Also write each training image with the factor (as its colours) of another, in a folder for each class."""
    steps: PositiveInt | None = None
    """Training steps of the model (default: 150 epochs, but 500 to 2,000 steps; with --attribute 3,000)."""
    classifier_steps: Annotated[int, Field(ge=0)] | None = None
    """Training steps of each classifier that is tested; 0 tests none (default: 40 epochs, but 300 to 600 steps)."""
    seed: int = 0
    """Of all that is random."""
    device: Device = "auto"
    out: Path | None = None
    """The folder to write (default: runs/debias-SOURCE)."""
    overwrite: bool = False
    """Replace the results of an earlier `debias`; other files in the folder stay."""


def debias(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate debias")
    if flags.attribute and (flags.by or flags.environments or flags.groups or flags.recoloured or flags.target):
        raise ConfigError(
            "--attribute names the bias, so --by, --environments, --groups, --target and --recoloured do not go with it"
        )
    debiaser = Debiaser(
        flags.by or None,
        density=flags.density,
        target=flags.target,
        steps=flags.steps,
        device=flags.device,
        seed=flags.seed,
    )
    images = flags.reading.of(flags.source)
    data, out = images_and_folder(
        images, flags.out, lambda data: Path("runs", f"debias-{data.name}"), flags.overwrite, page.RECORD, page.Record
    )
    with stages() as progress:
        if flags.attribute is None:
            done = page.run(
                data,
                out,
                debiaser,
                groups=flags.groups,
                environments=flags.environments,
                recoloured=flags.recoloured,
                classifier_steps=flags.classifier_steps,
                progress=progress,
            )
        else:
            done = page.run_pairs(
                data,
                out,
                flags.attribute,
                up_to=flags.fill,
                family=flags.family,
                hyperparameters={} if flags.steps is None else {"steps": flags.steps},
                seed=flags.seed,
                device=flags.device,
                classifier_steps=flags.classifier_steps,
                progress=progress,
            )
    print(done.summary)
    if done.proofs:
        Console().print(page.proof_table(done.proofs).to_console())
        print(proof.advice(done.proofs, page.WAYS))
    for card in proof.verdicts(done.proofs).values():
        print(card)
    for name in done.files:
        where(name.partition(".")[0], out / name)
