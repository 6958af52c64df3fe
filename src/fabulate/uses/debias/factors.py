"""Factors of variation: parts of the code, what each tells of the class, and whether it tells the same everywhere.

A factor is the palette, or one number of the structure code. What it tells of the class is the mutual information

    I(f; y) = E log p(f | y) / p(f),                                                    in bits

where the densities are those of other images than the mean is of (cross-fitting: Chernozhukov et al.,
"Double/debiased machine learning", 2018, https://doi.org/10.1111/ectj.12097), or a fine density would tell of the class
by chance; and an image speaks against its class by a factor where p(f | y) < p(f) / AGAINST.

Data from several places have more to tell. What makes the class has the same relation to it everywhere, P(y | f, e) =
P(y | f) in every environment e; what merely goes along with it has not (Peters, Buehlmann, Meinshausen, "Causal
inference by using invariant prediction", 2016, https://doi.org/10.1111/rssb.12167; Arjovsky et al. 2019,
https://arxiv.org/abs/1907.02893). Within cells of f the class and the environment must then be independent: the
likelihood ratio G = 2 sum n log(n / expected) follows chi-squared, and (G - degrees of freedom) / 2N estimates
I(y; e | f), the information by which the factor fails.

Factors that somebody knows of each image, groups to test by, environments or attributes, come as a table: a CSV file
with a heading, whose first column names images as `fabulate debias` writes them into weights.csv (files by their path
below the source, images of arrays as train[7]). Of its other columns that one says what they are which is called so:
group, environment, attribute, or as the file is, scanner in scanners.csv.

Legend: N images, D numbers in a factor's code, K classes, E environments, M cells.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fabulate.config import nearest
from fabulate.data.report import listed
from fabulate.errors import ConfigError, DataError
from fabulate.files import cell
from fabulate.seeds import permutation
from fabulate.uses.debias.densities import Density, Labels, Numbers, gaussians, histogram, log_prior_of, weights
from fabulate.uses.debias.recolour import DuotoneConfig

AGAINST = 2.0
IDLE = 0.1  # deviation of a code's means below which the model makes no use of a number
CELLS = 20  # of equal counts, along one number
FEW = 5  # images expected in a cell of the table of class and environment, below which G is no chi-squared
LEVEL = 0.01  # of the test over all factors together
LARGEST = 1 << 30  # bytes of a table: ten million images


class Factor(NamedTuple):
    """A part of the code and what it tells."""

    name: str
    columns: tuple[int, ...]
    """Its numbers in the code."""
    bits: float
    """What it tells of the class."""
    weights: Numbers
    """How much each image would have to count to make it tell nothing (N,)."""
    against: int
    """Images that speak against their class by it."""
    failure: float | None = None
    """I(y; e | f) in bits: by how much its relation to the class differs between environments. None without them."""
    p_value: float | None = None
    """Of a failure at least so large, were the relation the same."""


def named(config: DuotoneConfig) -> dict[str, tuple[int, ...]]:
    """The columns of every factor by its name; `structure` is all of that part.

    >>> list(named(DuotoneConfig(structure=2, palette=3)).items())[:2]
    [('palette', (2, 3, 4)), ('structure', (0, 1))]
    """
    s, t = config.structure, config.palette
    single = {f"structure-{i}": (i,) for i in range(s)}
    return {"palette": tuple(range(s, s + t)), "structure": tuple(range(s)), **single}


def columns(names: tuple[str, ...], config: DuotoneConfig) -> tuple[int, ...]:
    """The columns of several factors together. Errors: `ConfigError` for names that are none (naming the nearest)."""
    known = named(config)
    if not names:
        raise ConfigError(f"debiasing needs a factor to make independent of the class: {', '.join(known)}")
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no factor {name!r}{nearest(name, [*known])} (factors: {', '.join(known)})")
    return tuple(sorted({column for name in names for column in known[name]}))


def found(
    codes: Tensor,
    y: Labels,
    classes: int,
    config: DuotoneConfig,
    density: Density,
    environments: Labels | None = None,
    seed: int = 0,
) -> list[Factor]:
    """The palette and each number of the structure that the model uses, of codes (N, Z); the most telling ones first.

    With environments (N,) those come first whose relation to the class differs most.
    """
    z = codes.double().numpy()
    log_prior = log_prior_of(y, classes)
    factors = []
    for name, place in named(config).items():
        f = z[:, place]
        if name == "structure" or (len(place) == 1 and f.std() < IDLE):
            continue
        log_density = (density if len(place) > 1 else histogram)(f, y, classes, seed)(f)
        weight = weights(log_density, y, log_prior)
        ratio = log_density[np.arange(len(y)), y] - np.logaddexp.reduce(log_density + log_prior, axis=1)
        bits = information(f, y, classes, density if len(place) > 1 else histogram, seed)
        failure = (None, None) if environments is None else invariance(cells(f, seed), y, environments)
        against = int((ratio < -np.log(AGAINST)).sum())
        factors.append(Factor(name, place, bits, weight, against, *failure))
    return sorted(factors, key=lambda one: (-(one.failure or 0.0), -one.bits))


def information(f: Numbers, y: Labels, classes: int, density: Density, seed: int = 0) -> float:
    """I(f; y) in bits of codes (N, D), each half by the densities of the other; at least 0.

    >>> y = np.arange(2000) % 2
    >>> noise = np.random.default_rng(0).normal(size=(2000, 1))
    >>> information(noise, y, 2, histogram) < 0.01, information(noise + 9 * y[:, None], y, 2, histogram) > 0.9
    (True, True)
    """
    total = 0.0
    halves = permutation(len(y), seed, "debias", "halves").numpy()
    for one, other in ((halves[::2], halves[1::2]), (halves[1::2], halves[::2])):
        log_density = density(f[one], y[one], classes, seed)(f[other])
        log_all = np.logaddexp.reduce(log_density + log_prior_of(y[one], classes), axis=1)
        total += float((log_density[np.arange(len(other)), y[other]] - log_all).sum())
    return max(0.0, total / len(y) / float(np.log(2)))


def cells(f: Numbers, seed: int = 0) -> Labels:
    """The cell (N,) of each code (N, D): equal counts along one number, the likeliest Gaussian of several."""
    if f.shape[1] == 1:
        edges = np.quantile(f[:, 0], np.linspace(0, 1, CELLS + 1)[1:-1])
        return np.searchsorted(edges, f[:, 0])
    found: Labels = gaussians(f, seed)(f).argmax(1)
    return found


def invariance(cell: Labels, y: Labels, environments: Labels) -> tuple[float, float]:
    """I(y; e | cell) in bits, corrected for chance and at least 0, and the p-value of the test that it is 0.

    >>> e, y = np.arange(400) % 2, np.arange(400) // 2 % 2
    >>> invariance(np.zeros(400, int), y, e)  # as often each class in both places
    (0.0, 1.0)
    >>> invariance(np.zeros(400, int), e, e)[0] > 0.9  # each place a class of its own
    True
    """
    from scipy.stats import chi2, chi2_contingency

    total, freedom = 0.0, 0
    table = np.zeros((cell.max() + 1, y.max() + 1, environments.max() + 1))
    np.add.at(table, (cell, y, environments), 1)
    for counts in table:
        counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
        if min(counts.shape) < 2:
            continue
        g = chi2_contingency(counts, correction=False, lambda_="log-likelihood")
        if g.expected_freq.min() >= FEW:
            total, freedom = total + float(g.statistic), freedom + g.dof
    if not freedom:
        return 0.0, 1.0
    bits = (total - freedom) / (2 * len(y) * float(np.log(2)))
    return max(0.0, bits), float(chi2.sf(total, freedom))


def spurious(factors: list[Factor]) -> Factor | None:
    """The factor whose relation to the class differs most between environments, if it is more than chance."""
    failing = [one for one in factors if one.p_value is not None and one.p_value < LEVEL / len(factors)]
    return max(failing, key=lambda one: one.failure or 0.0, default=None)


def telling(factors: list[Factor]) -> Factor:
    """The factor that tells most of the class."""
    return max(factors, key=lambda one: one.bits)


# Factors that somebody knows


def read_column(path: Path, images: Sequence[str], what: str) -> list[str]:
    """The column of a table that says `what` the `images` are, in their order; other images in it do not matter.

    Errors: `DataError` for a file that cannot be read, has no such column or several, says two things of one image, or
    lacks some of the images.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"the table of {what} {path} has more than {LARGEST:,} bytes; give one row for each image")
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            rows = [(lines.line_num, row) for row in lines if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table of {what} {path} cannot be read: {error}") from error
    if len(rows) < 2 or any(len(row) < 2 for _, row in rows):
        given = next((row for _, row in rows if len(row) < 2), rows[0][1] if rows else ["nothing"])
        raise DataError(
            f"{path} must be a CSV file with a heading and two columns, image and {what}; "
            f"given: {','.join(given)[:100]}"
        )
    place = column(path, rows[0][1], what)
    known: dict[str, tuple[int, str]] = {}
    for line, row in rows[1:]:
        image, value = row[0].strip(), row[place].strip() if place < len(row) else ""
        first, before = known.setdefault(image, (line, value))
        if before != value:
            raise DataError(
                f"{path} says two things of {image}: its {what} is {before or 'empty'} in line {first} and "
                f"{value or 'empty'} in line {line}. Leave one of them"
            )
    found = [known.get(name, known.get(cell(name), (0, "")))[1] for name in images]
    missing = [name for name, value in zip(images, found, strict=True) if not value]
    if missing:
        raise DataError(
            f"{path} does not name the {what} of {len(missing):,} of {len(images):,} images: "
            f"{', '.join(listed(missing, limit=3))}; it names images such as {next(iter(known))}"
        )
    return found


def column(path: Path, heading: Sequence[str], what: str) -> int:
    """Which column of a table is called `what`, or else as the file is, each with or without an s in the end.

    >>> column(Path("t.csv"), ["image", "weather", "Group"], "group")
    2
    >>> column(Path("scanner.csv"), ["image", "hospital", "scanner"], "attribute")
    2

    Errors: `DataError` naming the columns.
    """
    names = [name.strip() for name in heading]
    for word in (what, path.stem.casefold().removesuffix("s")):
        called = [i for i, name in enumerate(names) if i and name.casefold().removesuffix("s") == word]
        if len(called) == 1:
            return called[0]
        if called:
            raise DataError(f"{path} has several columns called {word}: {', '.join(names)[:200]}. Leave one of them")
    raise DataError(
        f"{path} has no column called {what} (its first line: {', '.join(names)[:200]}); "
        f"call the one that is meant {what}"
    )
