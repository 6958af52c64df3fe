"""What the page may ask for: each body with its bounds, and the command line that it amounts to.

What is out of bounds is refused with the field's name before anything is read or made. `words` gives the command as it
is typed, which the page shows and `jobs.py` runs; paths in it have been found to lie under the roots.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from fabulate.config import Reading
from fabulate.errors import FabulateError
from fabulate.files import read_json
from fabulate.studio.places import NAMED, Roots

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(max_length=4096)]
Values = dict[Annotated[str, Field(max_length=64)], Any]
Coordinate = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
READING = vars(Reading())
Some = Annotated[int, Field(ge=1, le=400)]
"""Images that are drawn at once, to be looked at."""


Pixel = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=1e-6, le=1, allow_inf_nan=False)]


class Command(NamedTuple):
    """A command line, what it is about for people, and the folder that it writes."""

    words: list[str]
    about: str
    path: str


class Body(BaseModel):
    """A request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Intake(Body):
    """Images to look at."""

    source: Text
    reading: Values = {}


class Train(Body):
    """A training: what differs from the preset, as nested values."""

    family: Text
    preset: Text = "default"
    source: Text
    reading: Values = {}
    model: Values = {}
    training: Values = {}
    out: Text

    def command(self, roots: Roots) -> Command:
        """`fabulate train`; the values are checked by the specs themselves."""
        from fabulate.studio.forms import checked

        checked(self)
        source, out = roots.source(self.source), roots.shown(roots.allowed(self.out))
        preset = [] if self.preset == "default" else ["--preset", self.preset]
        values = {**self.reading, **self.model, **self.training}
        return Command(
            ["train", self.family, source, *preset, *flags(values), "--out", out], f"train {self.family}", out
        )


class Continue(Body):
    """The rest of a training that was stopped."""

    run: Text

    def command(self, roots: Roots) -> Command:
        """`fabulate train` with all that the run's own config.json tells, the family too."""
        run = roots.shown(roots.existing(self.run))
        return Command(["train", "--config", f"{run}/config.json", "--out", run], f"train {run}", run)


class Sample(Body):
    """Samples as files."""

    run: Text
    n: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    seed: Seed = 0
    label: Text | None = None
    sampling: Values = {}

    def command(self, roots: Roots) -> Command:
        """`fabulate sample`."""
        run = roots.shown(roots.existing(self.run))
        label = [] if self.label is None else ["--label", self.label]
        words = ["sample", run, "-n", str(self.n), "--seed", str(self.seed), *label, *flags(self.sampling)]
        return Command(words, f"sample {run}", run)


class Interpolate(Body):
    """A walk between the first samples of two seeds."""

    run: Text
    seeds: tuple[Seed, Seed] = (0, 1)
    steps: Annotated[int, Field(ge=2, le=100)] = 10
    label: Text | None = None

    def command(self, roots: Roots) -> Command:
        """`fabulate interpolate`."""
        run = roots.shown(roots.existing(self.run))
        label = [] if self.label is None else ["--label", self.label]
        words = ["interpolate", run, "--seeds", *map(str, self.seeds), "--steps", str(self.steps), *label]
        return Command([*words, "--overwrite"], f"walk in {run}", run)


class Evaluate(Body):
    """A report on one run."""

    run: Text
    n: Annotated[int, Field(ge=2, le=100_000)] = 10_000

    def command(self, roots: Roots) -> Command:
        """`fabulate evaluate`."""
        run = roots.shown(roots.existing(self.run))
        return Command(["evaluate", run, "-n", str(self.n), "--overwrite"], f"evaluate {run}", run)


class Compare(Body):
    """A comparison of runs."""

    runs: Annotated[list[Text], Field(min_length=2, max_length=4)]
    n: Annotated[int, Field(ge=2, le=100_000)] = 10_000

    def command(self, roots: Roots) -> Command:
        """`fabulate compare`."""
        paths = [roots.existing(run) for run in self.runs]
        runs = [roots.shown(path) for path in paths]
        out = roots.shown(roots.allowed(str(paths[0].parent / f"compare-{'-'.join(path.name for path in paths)}")))
        words = ["compare", *runs, "-n", str(self.n), "--out", out, "--overwrite"]
        return Command(words, f"compare {', '.join(path.name for path in paths)}", out)


class Fit(Body):
    """A detector of outliers."""

    source: Text
    reading: Values = {}
    false_alarm: Annotated[float, Field(gt=0, lt=1)] = 0.05
    out: Text

    def command(self, roots: Roots) -> Command:
        """`fabulate outliers fit`."""
        from fabulate.studio.forms import checked_reading

        source, out = roots.source(self.source), roots.shown(roots.allowed(self.out))
        checked_reading(self.source, self.reading)
        alarm = ["--false-alarm", f"{self.false_alarm:g}"]
        words = ["outliers", "fit", source, *flags(self.reading), *alarm, "--out", out]
        return Command(words, f"learn what is normal in {source}", out)


class Score(Body):
    """A ranking by a detector."""

    detector: Text
    source: Text
    n: Annotated[int, Field(ge=1, le=1000)] = 64

    def command(self, roots: Roots) -> Command:
        """`fabulate outliers score`."""
        detector, source = roots.existing(self.detector), roots.source(self.source)
        out = roots.shown(detector / (source if source in NAMED else roots.existing(source).name))
        words = ["outliers", "score", roots.shown(detector), source, "-n", str(self.n), "--out", out, "--overwrite"]
        return Command(words, f"rank {source}", out)


@with_config(ConfigDict(extra="ignore"))
class Promise(TypedDict):
    """Of a detector's parameters, what a new one is asked to keep."""

    false_alarm: float


@with_config(ConfigDict(extra="ignore"))
class Fitted(TypedDict):
    """A detector's config.json, as far as fitting it again needs it."""

    data: dict[str, Any]
    parameters: Promise


class Refit(Body):
    """A detector that learns from what a ranking's detector learnt from, without the images that were rejected."""

    ranking: Text

    def command(self, roots: Roots) -> Command:
        """`fabulate outliers fit --without`."""
        ranking = roots.existing(self.ranking)
        about: Fitted = read_json(ranking.parent / "config.json", Fitted)
        if "source" not in about["data"]:
            raise FabulateError("ranking: its detector was not learnt from a source of images")
        source = roots.source(str(about["data"]["source"]))
        reading = {name: value for name, value in about["data"].items() if name in READING and value != READING[name]}
        out, rejected = roots.shown(Path(f"{ranking.parent}-again")), roots.shown(ranking / "reject.txt")
        alarm = ["--false-alarm", f"{about['parameters']['false_alarm']:g}"]
        words = ["outliers", "fit", source, *flags(reading), *alarm, "--without", rejected]
        return Command([*words, "--out", out, "--overwrite"], f"learn what is normal without {rejected}", out)


class Draw(Body):
    """Samples to be looked at."""

    run: Text
    n: Some = 64
    seed: Seed = 0
    label: Text | None = None
    sampling: Values = {}


class Write(Draw):
    """Texts or tunes to be read and heard: fewer, as each takes as long as many images."""

    n: Annotated[int, Field(ge=1, le=24)] = 6


class Codes(Body):
    """A map of codes of so many real and as many drawn images."""

    run: Text
    n: Annotated[int, Field(ge=10, le=2000)] = 400
    label: Text | None = None


class Decode(Codes):
    """Codes to decode: their places along the map's principal directions, in standard deviations."""

    places: Annotated[
        list[Annotated[list[Coordinate], Field(min_length=1, max_length=32)]], Field(min_length=1, max_length=120)
    ]


class Decide(Body):
    """Which images of a ranking are kept and which are thrown out, by their names."""

    ranking: Text
    keep: Annotated[list[Text], Field(max_length=100_000)] = []
    reject: Annotated[list[Text], Field(max_length=100_000)] = []


class Rows(Body):
    """Some rows of a ranking, from the strangest on."""

    ranking: Text
    start: Annotated[int, Field(ge=0, le=10**7)] = 0
    count: Annotated[int, Field(ge=1, le=100)] = 48


class Knobs(Body):
    """What may be moved in a lesson while it goes on, where its family has it."""

    rate: Rate | None = None
    """Learning rate."""
    beta: Annotated[float, Field(ge=0, le=50, allow_inf_nan=False)] | None = None
    penalty: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    evaluations: Annotated[int, Field(ge=1, le=50)] | None = None
    time: Annotated[float, Field(ge=0.02, le=0.98, allow_inf_nan=False)] | None = None
    temperature: Annotated[float, Field(ge=0.1, le=2, allow_inf_nan=False)] | None = None

    @property
    def moved(self) -> Values:
        """Those that are given, but for the learning rate, which every family has."""
        names = Knobs.model_fields.keys() - {"rate"}
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Lesson(Knobs):
    """A model of points of the plane, to be trained as one looks on."""

    family: Literal["ae", "vae", "gan", "flow", "nf"]
    preset: Literal["default", "tutorial"] = "default"
    data: Literal["ring", "moons", "grid", "drawing"] = "ring"
    points: Annotated[list[tuple[Pixel, Pixel]], Field(max_length=2000)] = []
    """Of a drawing."""
    seed: Seed = 0
    latent_dim: Annotated[int, Field(ge=1, le=2)] | None = None


class Steer(Knobs):
    """What changes in a lesson."""

    lesson: Text
    playing: bool | None = None
    turns: Annotated[int, Field(ge=0, le=100)] = 0
    """Players' turns to take at once."""
    speed: Annotated[int, Field(ge=1, le=100)] | None = None
    """Steps between two pictures, at most."""


class Answer(Body):
    """A number that may solve an exercise."""

    lesson: Text
    exercise: Text
    value: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


COMMANDS: dict[str, type[Any]] = {
    "train": Train,
    "continue": Continue,
    "sample": Sample,
    "interpolate": Interpolate,
    "evaluate": Evaluate,
    "compare": Compare,
    "outliers-fit": Fit,
    "outliers-score": Score,
    "outliers-refit": Refit,
}
Verb = Literal[
    "train",
    "continue",
    "sample",
    "interpolate",
    "evaluate",
    "compare",
    "outliers-fit",
    "outliers-score",
    "outliers-refit",
]


def flags(values: Mapping[str, Any], within: str = "") -> list[str]:
    """Nested values as options of the command line; None says nothing, as the default.

    >>> flags({"latent_dim": 2, "network": {"kind": "mlp", "hidden": [64, 32]}, "conditional": True, "size": None})
    ['--latent-dim', '2', '--network', 'mlp', '--network.hidden', '64', '32', '--conditional']
    >>> flags({"range": "-1000:3000"})
    ['--range=-1000:3000']
    """
    words: list[str] = []
    for name, value in values.items():
        flag = f"--{within}{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            words += [flag, str(value["kind"])] if "kind" in value else []
            words += flags({key: each for key, each in value.items() if key != "kind"}, f"{within}{name}.")
        elif isinstance(value, bool):
            words += [flag] if value else [f"--{within}no-{name.replace('_', '-')}"]
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        elif value is not None:
            words += [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]
    return words
