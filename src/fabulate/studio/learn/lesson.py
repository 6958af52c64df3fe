"""A lesson: a model of points in training, turn by turn, and a picture of it whenever one is asked for.

The model is one of the registry, its players move by `training.loop.Learner`, and its losses are its own. What differs
from `fabulate train`: the points are few numbers, so the networks of the default presets are narrow; the learning rate
stands still until somebody moves it; nothing is held out, averaged or compiled. The textbook's presets keep their
networks to the letter.

A picture is one packet of bytes, as the page reads it (little-endian):

    uint32 length of what follows, uint32 length of the JSON, the JSON, filled up with spaces to a multiple of 4,
    float32 points (n, 2), float32 arrows (m, 4): where each begins and how far it reaches, uint8 field (g, g)
"""

import json
import secrets
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fabulate.config import override, to_json
from fabulate.errors import ConfigError, DataError, DivergedError
from fabulate.models.base import evaluating
from fabulate.models.families import family
from fabulate.models.families.flow import FlowSampling
from fabulate.nets import MLP
from fabulate.seeds import seeded
from fabulate.studio import requests as asked
from fabulate.studio.learn.code import code_of
from fabulate.studio.learn.exercises import EXERCISES
from fabulate.studio.learn.toys import PAIR, as_images, coverage, points_of
from fabulate.studio.learn.views import VIEWS, FlowView
from fabulate.training.loop import Learner
from fabulate.types import Tensors

STEPS = 20_000  # in a lesson
WORKING = 0.015  # seconds of training between two pictures, at most
RECENT = 50  # turns whose mean tells how good a model is
FEWEST = 20  # points of a drawing
IDLE = 600  # seconds after which a lesson that stands still ends

Json = dict[str, Any]

ODE = FlowSampling(solver="ipndm")  # so that a point follows from its code
# What a lesson's model has instead of its preset's values, beside the preset's name.
NARROW: dict[tuple[str, str], Json] = {
    ("ae", "default"): {"network": MLP(hidden=(64, 64))},
    ("vae", "default"): {"network": MLP(hidden=(64, 64))},
    ("gan", "default"): {"network": MLP(hidden=(64, 64), activation="leaky_relu")},
    ("flow", "default"): {"network": MLP(hidden=(128, 128)), "times": "uniform", "sampling": ODE},
    ("flow", "tutorial"): {"network": MLP(hidden=(128, 128)), "sampling": ODE},
    ("nf", "default"): {"depth": 2, "width": 8, "hidden": 64},
    ("nf", "tutorial"): {"width": 8},
}
# Points are so cheap that more of them in a step teach more in the same time.
BATCH = {("flow", "default"): 256}
# What may be moved, with what it is at first. The first kind makes another model, the second changes the one there is.
MAKING: dict[str, Json] = {"ae": {"latent_dim": 1}, "vae": {"latent_dim": 2}}
MOVING: dict[tuple[str, str], Json] = {
    ("vae", "default"): {"beta": 1.0},
    ("vae", "tutorial"): {"beta": 1.0},
    ("gan", "default"): {"penalty": 0.05},
    ("flow", "default"): {"evaluations": 8, "time": 0.5},
    ("flow", "tutorial"): {"evaluations": 8, "time": 0.5},
    ("nf", "default"): {"temperature": 1.0},
    ("nf", "tutorial"): {"temperature": 1.0},
}


class Lesson:
    """A model of points in training."""

    given: asked.Lesson

    def __init__(self, given: asked.Lesson) -> None:
        """Errors: `ConfigError` for what the family does not have, `DataError` for a drawing of too few points."""
        self.name, self.given = secrets.token_hex(8), given
        self.knobs = self.moved(given, MOVING.get((given.family, given.preset), {}))
        making = MAKING.get(given.family, {})
        if given.latent_dim is not None:
            if not making:
                raise ConfigError(f"latent_dim: {given.family} has none in a lesson")
            making = {"latent_dim": given.latent_dim}
        data = self.data_of(given)
        preset = family(given.family).presets[given.preset]
        config = override(preset.model, NARROW.get((given.family, given.preset), {}) | making)
        lesson = {
            "steps": STEPS,
            "epochs": None,
            "schedule": "constant",
            "ema": 0.0,
            "validation": 0.0,
            "compile": "off",
        }
        training = override(
            preset.training,
            lesson
            | {"seed": given.seed, "batch_size": BATCH.get((given.family, given.preset), preset.training.batch_size)},
        )
        with seeded(given.seed, "weights"):
            self.model = family(given.family)(config, PAIR)
        self.learner = Learner(self.model, training, Tensors(as_images(data)))
        self.data, self.view = data, VIEWS[given.family](self.model, data)
        if given.rate is not None:
            self.learner.lr = given.rate
        self.move(self.knobs)
        self.turns = self.all_turns()
        self.players = [*self.learner.players]
        self.taken = 0  # turns
        self.terms: dict[str, float] = {}  # the mean of each since the last picture that heard of it
        self.heard: dict[str, list[float]] = {}
        self.recent: dict[str, deque[float]] = {}
        self.modes: deque[int] = deque(maxlen=20)  # covered in the last pictures
        self.near = 0.0
        self.pictures = 0
        self.playing, self.speed, self.trouble = False, 100, ""
        self.touched, self.watched = time.monotonic(), False

    @staticmethod
    def data_of(given: asked.Lesson) -> Tensor:
        """The points (N, 2) to learn from."""
        if given.data != "drawing":
            return points_of(given.data, given.seed)
        if len(given.points) < FEWEST:
            raise DataError(f"points: draw {FEWEST} or more to learn from, given {len(given.points)}")
        return torch.tensor(given.points)

    @staticmethod
    def moved(given: asked.Knobs, known: Json) -> Json:
        """What is known, moved. Errors: `ConfigError` for what is not known."""
        if strange := given.moved.keys() - known.keys():
            raise ConfigError(
                f"{min(strange)}: there is none in this lesson (there are: rate{', '.join(['', *known])})"
            )
        return known | given.moved

    def move(self, knobs: Json) -> None:
        """Let what was moved count from the next turn, or picture, on."""
        config: Json = {name: knobs[name] for name in ("beta", "penalty") if name in knobs}
        sampling: Json = {name: knobs[name] for name in ("evaluations", "temperature") if name in knobs}
        if config:
            self.model.config = override(self.model.config, config)
        if sampling:
            self.model.sampling = override(self.model.sampling, sampling)
        if isinstance(self.view, FlowView):
            self.view.time = knobs["time"]

    def all_turns(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Turn after turn, to the end of the budget."""
        self.model.train()
        while self.learner.progress < 1:
            yield from self.learner.turns()

    # What the page asks for

    def steer(self, given: asked.Steer) -> None:
        """Change what is going on. Errors: `ConfigError` for what the family does not have."""
        self.knobs = self.moved(given, self.knobs)
        self.touched = time.monotonic()
        self.move(self.knobs)
        if given.rate is not None:
            self.learner.lr = given.rate
        if given.speed is not None:
            self.speed = given.speed
        if given.playing is not None:
            self.playing = given.playing and not self.over
        for _ in range(given.turns):
            self.turn()

    def play(self) -> None:
        """Train for a picture's time, in whole steps."""
        until, last = time.perf_counter() + WORKING, self.step + self.speed
        while self.playing and self.step < last and time.perf_counter() < until:
            for _ in range(len(self.players) - self.taken % len(self.players)):
                self.turn()

    def turn(self) -> None:
        """The next player's turn."""
        if self.over:
            return
        try:
            _, terms = next(self.turns)
        except (StopIteration, DivergedError) as error:
            self.playing = False
            self.trouble = str(error) or f"{STEPS:,} steps are all that a lesson has; begin it anew"
            return
        self.taken += 1
        for name, value in terms.items():
            self.heard.setdefault(name, []).append(float(value))
            self.recent.setdefault(name, deque(maxlen=RECENT)).append(float(value))

    @property
    def step(self) -> int:
        """Steps that are done: every player had its turn."""
        return self.taken // len(self.players)

    @property
    def over(self) -> bool:
        """Whether nothing more can be learnt here."""
        return bool(self.trouble)

    @property
    def idle(self) -> bool:
        """Whether it stands still, and nobody has touched it for long."""
        return not self.playing and time.monotonic() - self.touched > IDLE

    def mean(self, term: str) -> float:
        """A term's mean over the last turns; not a number before there are enough."""
        values = self.recent.get(term, ())
        return sum(values) / RECENT if len(values) == RECENT else float("nan")

    # Pictures

    def facts(self) -> bytes:
        """What the page has to know once, with the data as points."""
        model = to_json(self.model.config)
        told = {
            "name": self.name,
            "family": self.given.family,
            "preset": self.given.preset,
            "data": self.given.data,
            "players": self.players,
            "units": dict(self.model.units),
            "arrows_are": self.view.arrows_are,
            "exact": self.view.exact,
            "field_is": self.view.field_is,
            "side": self.view.side,
            "model": {
                name: value for name, value in model.items() if name in ("latent_dim", "network", "game", "target")
            },
            "numbers": sum(weights.numel() for weights in self.model.parameters()),
            "batch": self.learner.batch_size,
            "code": code_of(self.model),
        }
        return packet(told, self.data, self.data.new_zeros(0, 4), b"")

    def picture(self) -> bytes:
        """What there is to see now."""
        with evaluating(self.model):
            points = self.view.points()
            with_arrows = self.pictures % 2 == 0 or not self.playing  # the page keeps those it has
            arrows = torch.cat(self.view.arrows(), 1) if with_arrows else points.new_zeros(0, 4)
            with_field = bool(self.view.side) and (self.pictures % self.view.every == 0 or not self.playing)
            field = levels(self.view.field(), self.view.logarithmic) if with_field else b""
        self.pictures += 1
        self.terms |= {name: sum(values) / len(values) for name, values in self.heard.items()}
        self.heard.clear()
        told: Json = {
            "step": self.step,
            "next": self.players[self.taken % len(self.players)],
            "half": bool(self.taken % len(self.players)),
            "terms": {name: round(value, 6) for name, value in self.terms.items()},
            "rate": self.learner.lr,
            "knobs": self.knobs,
            "playing": self.playing,
            "trouble": self.trouble,
        }
        if self.given.data == "grid":
            found = coverage(points)
            self.modes.append(found.modes)
            self.near = found.near
            told |= {"modes": found.modes, "near": round(found.near, 4)}
        told["solved"] = [each.name for each in EXERCISES if each.solved is not None and each.solved(self)]
        return packet(told, points, arrows, field)


def packet(told: Json, points: Tensor, arrows: Tensor, field: bytes) -> bytes:
    """JSON, points (N, 2), arrows (M, 4) and a field as the page reads them."""
    about = json.dumps({**told, "counts": [len(points), len(arrows), len(field)]}, allow_nan=False).encode()
    about += b" " * (-len(about) % 4)
    body = len(about).to_bytes(4, "little") + about
    body += b"".join(np.ascontiguousarray(each.detach().numpy(), "<f4").tobytes() for each in (points, arrows)) + field
    return len(body).to_bytes(4, "little") + body


def levels(field: Tensor, logarithmic: bool) -> bytes:
    """A field's values as levels 0..255: p^(1/2), which shows the flanks too, or from the lowest to the highest."""
    values = field.double()
    if logarithmic:
        values = ((values - values.max()) / 2).exp()
    else:
        values = (values - values.min()) / (values.max() - values.min()).clamp_min(1e-9)
    return bytes((255 * values).round().to(torch.uint8).numpy())
