"""`fabulate audit RUN`: may a run's samples be handed out, or do they give away the images it was trained on?"""

from pathlib import Path

import torch
from rich.console import Console

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Count, Device, Other, OtherImages, Run, images_for, say, stages, where
from fabulate.config import spec
from fabulate.files import outside, replaceable_folder
from fabulate.training import load
from fabulate.uses.audit import run
from fabulate.uses.audit.page import RECORD, Record


@spec
class Arguments:
    """Look for near copies of training images among a run's samples, and try to tell whom it was trained on."""

    run: Run
    data: Other = OtherImages()
    samples: Path | None = None
    """A folder of samples that were drawn (or an .npz): these are audited."""
    n: Count = 1000
    """Else so many samples are drawn."""
    features: str = "auto"
    """What images are compared by: auto (learnt from these images), classifier, encoder, pixels or lite0 (ImageNet)."""
    seed: int = 0
    """Of all that is random."""
    device: Device = "auto"
    out: Path | None = None
    """The folder to write (default: RUN/audit)."""
    overwrite: bool = False
    """Replace an earlier audit; other files in the folder stay."""


def audit(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate audit")
    out = flags.out or flags.run / "audit"
    model = load(flags.run, flags.device)
    replaceable_folder(out, flags.overwrite, RECORD, Record)
    data = images_for(flags.run, model, flags.data)
    outside(out, data.spec.source)
    samples = None
    if flags.samples is not None:
        given = images_for(flags.run, model, OtherImages(source=str(flags.samples)))
        parts = [given.train.x, *([given.test.x] if given.test is not None else [])]
        samples = torch.cat([torch.from_numpy(part) for part in parts])
    with stages() as progress:
        done = run(
            flags.run,
            data,
            out,
            n=flags.n,
            samples=samples,
            features=flags.features,
            seed=flags.seed,
            device=flags.device,
            progress=progress,
        )
    Console().print(done.table.to_console())
    say(*map(str, done.cards))
    for name in done.files:
        where(name.partition(".")[0], out / name)
