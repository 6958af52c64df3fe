"""Outliers among texts, tunes and chords: a model of normal ones tells how surprising each symbol is.

An autoregressive model learns four fifths of the normals; the last fifth calibrates: split conformal prediction, whose
promise is a theorem (`conformal.py`). A sequence of n symbols is judged by

    s(x) = (log p(x) + n h) / sqrt(n),        h = -sum log p / sum n over the normals held out,

its log-likelihood less what so many symbols cost on average, in units that do not depend on n: a sum of n surprises
varies as sqrt(n) does. log p(x) alone calls long sequences strange, and log p(x) / n short ones. What has a symbol that
no normal has is stranger than all that have none.

Legend: N sequences, M held-out normals, T places.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field, with_config
from torch import Tensor
from typing_extensions import TypedDict

from fabulate.config import DataSpec, PositiveInt, data_spec, override
from fabulate.data import Data, image_names
from fabulate.data.media import medium
from fabulate.errors import DataError, RunError
from fabulate.files import own_folder, read_json, write_json
from fabulate.metrics.intervals import Estimate
from fabulate.models import GenerativeModel
from fabulate.models.families.ar import AR
from fabulate.report import Facts, Figure, Figures, Marked, Marks, Notes, Page, Section, plots, write_page
from fabulate.seeds import permutation
from fabulate.training import configure
from fabulate.training import fit as train
from fabulate.types import Progress, SequenceShape, Tensors, silent
from fabulate.uses.outliers import conformal
from fabulate.uses.outliers.ranking import Judged, Ranking, classes_of, ranked, record, written
from fabulate.uses.outliers.saving import CONFIG, FORMAT, KIND

Numbers = npt.NDArray[np.float64]
FOLDS = 5  # of the normals, one of which is held out
STEPS = 300  # of training where no budget is given
PORTION = 256
LIKELY, UNLIKELY = 3.0, 8.0  # nats of a symbol from which it is marked, and that make its mark full
STRANGE = 50.0  # nats of a symbol that the normals do not have
NAME = "likelihood"


class SequenceDetector:
    """Learns normal sequences, and tells how normal others are. After `fit`: `threshold_`, `false_alarm_`, as images'.

    `false_alarm`: the share of normals that may be called outliers. `steps`: of training. `seed`: which normals are
    held out, and the training's.
    """

    names_ = (NAME,)
    model: AR
    usual: float
    """h: nats that a symbol costs on average."""
    raw_normals_: Numbers

    def __init__(
        self, false_alarm: float = 0.05, steps: int | None = None, seed: int = 0, device: str = "auto"
    ) -> None:
        conformal.rank(1, false_alarm)  # refuses a rate that is none
        self.false_alarm, self.steps, self.seed, self.device = false_alarm, steps, seed, device

    def fit(self, x: Tensor, shape: SequenceShape, progress: Progress | None = None) -> Self:
        """Learn normals x (N, T), at least 10. Errors: `DataError` for fewer. `progress`: (steps done, all steps)."""
        if len(x) < 2 * FOLDS:
            raise DataError(f"outliers need at least {2 * FOLDS} normal {shape.medium} to learn from; given {len(x)}")
        held, *rest = permutation(len(x), self.seed, "outliers", "folds").chunk(FOLDS)
        config, training = configure("ar", "default", {"steps": self.steps or STEPS, "seed": self.seed})
        learnt: Any = shape  # where most families have images
        model = train(
            "ar", config, training, Tensors(x[torch.cat(rest)]), learnt, device=self.device, progress=progress
        )
        assert isinstance(model, AR)
        self.model = model
        nats, n = self.costs(x[held])
        self.usual = float(nats.sum() / n.sum())
        self.raw_normals_ = self.standardised(nats, n)
        self.calibrate()
        return self

    def calibrate(self) -> None:
        """Set the threshold from the normals; call it after a change of `false_alarm`."""
        self.normals_, self.weights_ = self.raw_normals_, np.ones(len(self.raw_normals_))
        self.threshold_, k = conformal.threshold(self.normals_, self.false_alarm)
        self.false_alarm_: Estimate = conformal.false_alarms(k, len(self.normals_))

    def surprises(self, x: Tensor) -> Tensor:
        """-log p of each symbol of sequences (N, ...), 0 behind their ends: (N, T) in nats."""
        return torch.cat([-self.model.log_probs(part).cpu() for part in torch.split(x, PORTION)])

    def costs(self, x: Tensor) -> tuple[Numbers, Numbers]:
        """Nats of sequences (N, ...), and how many symbols each has, the end among them."""
        n = self.model.counting(self.model.tokens(x)).sum(1)
        return self.surprises(x).double().sum(1).numpy(), n.double().numpy()

    def standardised(self, nats: Numbers, n: Numbers) -> Numbers:
        """s(x) (N,), higher = more normal."""
        return np.asarray((n * self.usual - nats) / np.sqrt(n))

    def p_values_of(self, scores: Numbers) -> Numbers:
        """The p-values (N,) of scores."""
        return conformal.p_values(scores, self.normals_)

    def judge(self, strings: Sequence[str]) -> tuple[Numbers, list[list[tuple[str, float]]]]:
        """The scores (N,) of written sequences, and each one's symbols with the nats that they cost."""
        shape = self.model.shape
        assert isinstance(shape, SequenceShape)
        its: Any = medium(shape)
        known, scores, symbols = {*shape.symbols}, np.empty(len(strings)), []
        spell = its.speller(shape.symbols, shape.voices)
        for first in range(0, len(strings), PORTION):
            rows = [spell(string)[: shape.size - 1] for string in strings[first : first + PORTION]]
            x = torch.zeros(len(rows), shape.size, dtype=torch.int16)
            places = {symbol: i for i, symbol in enumerate(shape.symbols)}
            strange = torch.zeros(x.shape, dtype=torch.bool)
            for i, row in enumerate(rows):
                strange[i, : len(row)] = torch.tensor([symbol not in known for symbol in row], dtype=torch.bool)
                x[i, : len(row)] = torch.tensor([places.get(symbol, 1) for symbol in row], dtype=torch.int16)
            nats = torch.where(strange, STRANGE, self.surprises(x.view(-1, *shape.dims)))
            n = torch.tensor([len(row) + 1 for row in rows])
            scores[first : first + len(rows)] = self.standardised(nats.double().sum(1).numpy(), n.double().numpy())
            symbols += [[*zip([*row, END], cost.tolist(), strict=False)] for row, cost in zip(rows, nats, strict=True)]
        return scores, symbols


END = "."  # what is shown for the end of a sequence
Share = Annotated[float, Field(gt=0, lt=1)]


@with_config(ConfigDict(extra="allow"))
class Config(TypedDict):
    """config.json of a detector of sequences; what else stands there is the caller's."""

    kind: Literal["outliers"]
    format: Literal[5]
    medium: str
    false_alarm: Share
    steps: PositiveInt | None
    seed: int
    usual: float
    raw_normals: Annotated[list[float], Field(min_length=1)]
    model_sha256: str


def save(detector: SequenceDetector, folder: Path, **about: Any) -> None:
    """Write a fitted detector into a folder; `about` is kept in config.json beside it."""
    config = Config(
        kind=KIND,
        format=FORMAT,
        medium=detector.model.shape.medium,
        false_alarm=detector.false_alarm,
        steps=detector.steps,
        seed=detector.seed,
        usual=detector.usual,
        raw_normals=detector.raw_normals_.tolist(),
        model_sha256=detector.model.weights_hash(),
    )
    write_json(own_folder(folder) / CONFIG, {**about, **config})
    detector.model.save_pretrained(folder / "model")


def of_sequences(folder: Path) -> bool:
    """Whether a folder holds a detector of sequences."""
    return (folder / CONFIG).is_file() and "medium" in read_json(folder / CONFIG, dict[str, Any])


def load(folder: Path) -> SequenceDetector:
    """The detector of a folder, as it was fitted. Errors: `RunError` where it is damaged, or of another version."""
    config: Config = read_json(folder / CONFIG, Config)
    detector = SequenceDetector(config["false_alarm"], config["steps"], config["seed"])
    model = GenerativeModel.from_pretrained(folder / "model")
    if not isinstance(model, AR) or model.weights_hash() != config["model_sha256"]:
        raise RunError(f"{folder}: {CONFIG} and its model are of different fits; fit again with --overwrite")
    detector.model, detector.usual = model, config["usual"]
    detector.raw_normals_ = np.array(config["raw_normals"])
    detector.calibrate()
    return detector


def spec_of(folder: Path, source: str, limit_broken: float) -> DataSpec:
    """How to read a source as the normals of a folder's detector were read."""
    own = data_spec(read_json(folder / CONFIG, dict[str, Any]).get("data", {}))
    return override(own, {"source": source, "limit_broken": limit_broken})


def strings_of(data: Data) -> list[str]:
    """All sequences of a data set, written, training ones first."""
    parts = [part for part in (data.train, data.test) if part is not None]
    return [text for part in parts for text in medium(data.shape).items(torch.from_numpy(part.x), data.shape)]


def judged(detector: SequenceDetector, data: Data, name: str) -> tuple[Judged, list[list[tuple[str, float]]]]:
    """What a detector says of all sequences of a data set, and each one's symbols with the nats that they cost.

    Errors: `DataError` for another medium than the one that was learnt; `name` is what the detector is called there.
    """
    shape: Any = detector.model.shape
    if data.shape.medium != shape.medium:
        raise DataError(f"{name} learnt {shape.medium}, and {data.spec.source} has {data.shape.medium}")
    scores, symbols = detector.judge(strings_of(data))
    p_values = detector.p_values_of(scores)
    return Judged(image_names(data), classes_of(data), scores, p_values, scores < detector.threshold_), symbols


def run(
    detector: SequenceDetector, data: Data, out: Path, *, name: str, n: int = 64, progress: Progress | None = None
) -> Ranking:
    """Judge all sequences of a source and write outliers.csv, .json and .html, with `n` of the strangest.

    Errors: as of `judged`.
    """
    told = progress or silent
    told(0, 1)
    found, symbols = judged(detector, data, name)
    told(1, 1)
    ranking = ranked([found])
    own_folder(out)
    written(ranking, record(detector, data, ranking), out)
    write_page(out / "outliers.html", page(name, detector, data, ranking, symbols, n))
    return ranking


def page(
    name: str,
    detector: SequenceDetector,
    data: Data,
    ranking: Ranking,
    symbols: Sequence[Sequence[tuple[str, float]]],
    n: int,
) -> Page:
    """What was found, and `n` of the strangest sequences, with the symbols marked that surprise."""
    found, scores = int(ranking.outliers.sum()), ranking.scores
    its: Any = medium(data.shape)
    space = its.separator
    shown = []
    for i in ranking.order[:n].tolist():
        verdict = "outlier" if ranking.outliers[i] else "normal"
        caption = f"{ranking.names[i]}: score {scores[i]:.3g}, p {ranking.p_values[i]:.2g}, {verdict}"
        shares = [(nats - LIKELY) / (UNLIKELY - LIKELY) for _, nats in symbols[i]]
        marks = [
            (symbol + space, min(1.0, max(0.0, share))) for (symbol, _), share in zip(symbols[i], shares, strict=True)
        ]
        shown.append(Marks(ranking.classes[i], caption, marks))
    spread = plots.histogram(
        {f"these {data.shape.medium}": scores, "normal ones held out of the fit": detector.normals_},
        detector.threshold_,
        "score, log-likelihood by length: higher is more normal",
        (float(min(scores.min(), detector.normals_.min())), float(max(scores.max(), detector.normals_.max()))),
    )
    facts = [
        (data.shape.medium, f"{len(scores):,}"),
        ("outliers", f"{found:,} ({found / len(scores):.1%})"),
        ("false alarms expected", f"{conformal.percent(detector.false_alarm_)} of normal {data.shape.medium}"),
        ("held-out normals", f"{len(detector.normals_):,}"),
        ("detector", name),
    ]
    legend = (
        f"The strangest first. A symbol is marked that the model gives less than {np.exp(-LIKELY):.0%}, fully below "
        f"{np.exp(-UNLIKELY):.1g}; {END} is the end."
    )
    return Page(
        kind="fabulate outliers",
        title=data.name,
        about=f"Outliers of {data.name}",
        sections=[
            Section("", [Facts(facts)]),
            Section("Scores", [Figures([Figure(spread, "Left of the line: outliers.")])]),
            Section("The strangest", [Notes([legend]), Marked(shown)]),
        ],
    )
