"""`fabulate info RUN`: what a run is, how far it came, how good it is."""

from collections.abc import Mapping
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from fabulate.cli.parsing import parse
from fabulate.config import spec
from fabulate.training import best_samples, read_config, read_log


@spec
class Arguments:
    """Tell what a run is: its model, its images, how far it came and its numbers on test images."""

    run: tyro.conf.Positional[Path]
    """A run folder."""


def info(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate info")
    config, log = read_config(flags.run), read_log(flags.run)
    rows: list[tuple[str, object]] = [
        ("family", config["family"]),
        ("images", f"{config['data']['name']}, {'x'.join(map(str, config['shape']))} (C x H x W)"),
        ("classes", ", ".join(config["classes"]) or "not learnt"),
        ("model", words(config["model"])),
        ("training", words(config["training"])),
        ("versions", words(config["versions"])),
    ]
    if log:
        last = log[-1]
        state = "finished" if last.get("finished") else "not finished: the same training command continues"
        rows.append(
            ("progress", f"{last['step']:,} steps, {last['epoch']:g} epochs, {last['seconds']:.1f} s ({state})")
        )
    for part in ("train", "test"):
        measured = [row for row in log if row.get(part)]
        if measured:
            numbers = "  ".join(f"{name} {value:.5g}" for name, value in measured[-1][part].items())
            rows.append((part, f"{numbers}  (step {measured[-1]['step']:,})"))
    if (best := best_samples(log)) is not None:
        distance = best["samples"]["frechet_distance"]
        rows.append(
            ("best", f"{flags.run / 'best'}: step {best['step']:,}, Fréchet distance of its samples {distance:.5g}")
        )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, str(value))
    Console().print(table, highlight=False, markup=False)


def words(values: Mapping[str, object], within: str = "") -> str:
    """Hyperparameters in a line, named as their flags are; those that are not set are left out.

    >>> words({"latent_dim": 2, "network": {"kind": "unet", "width": 8, "patch": None}})
    'latent_dim 2, network unet, network.width 8'
    """
    texts = []
    for name, value in values.items():
        if isinstance(value, dict):
            kind = [f"{within}{name} {value['kind']}"] if "kind" in value else []
            rest = words({k: v for k, v in value.items() if k != "kind"}, f"{within}{name}.")
            texts += kind + ([rest] if rest else [])
        elif value is not None:
            texts.append(f"{within}{name} {spaced(value)}")
    return ", ".join(texts)


def spaced(value: object) -> str:
    """A value as it would be typed: lists with spaces."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
