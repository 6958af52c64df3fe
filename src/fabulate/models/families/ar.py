"""Autoregression: a sequence is written symbol by symbol, each by all before it, so its likelihood is exact.

Any distribution of sequences is a product of conditionals,

    p(x | y) = prod_t p(x_t | x_1, ..., x_(t-1), y),

and a causal transformer gives all T of a known sequence at once: training is cross-entropy, with no bound (VAE), no
game (GAN) and no inverse (normalizing flow). The price is that samples take T calls, one for each symbol. A sequence
that is shorter than T has an end symbol, which is learnt like all others; what follows it counts for nothing. So p(x)
is a normalised distribution over all sequences of up to T symbols.

Counting, an n-gram with Kneser-Ney smoothing, is hard to beat where sequences are few, and takes seconds. So the
network may have it beside it: a gate g, computed at each place from the network's features and from how often the
context came, mixes the two, and a mixture of distributions is one,

    p(x_t | ...) = g p_network(x_t | ...) + (1 - g) p_counts(x_t | x_(t-N+1), ..., x_(t-1)).

Its own cross-entropy is minimised with the mixture's, or a network that begins worse than the counts would never be
asked, and would not learn. While it learns, each sequence is taken out of the counts first (see `counting`). Grave,
Joulin, Usunier, "Improving neural language models with a continuous cache", 2017, https://arxiv.org/abs/1612.04426, mix
in counts of the latest words in this way; counts of all training text, and the gate, are ours.

Images of few gray levels are sequences too, row by row (van den Oord, Kalchbrenner, Kavukcuoglu, "Pixel recurrent
neural networks", 2016, https://arxiv.org/abs/1601.06759). Gray values between two levels are one of the two by chance
in training and tests: of two levels, that is the dynamic binarisation of MNIST. Scores take the nearest level.

Legend: B batch, N samples, C H W image, T places, K symbols, Y classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import log
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import PositiveFloat, Preset, Training, override, spec
from fabulate.data.media import medium
from fabulate.errors import ConfigError
from fabulate.models.base import TILE, Conditional, GenerativeModel, Labels, Player, evaluating
from fabulate.models.capabilities import Fills, HasLikelihood
from fabulate.models.counting import Counts
from fabulate.models.filling import PARTICLES, UNEVEN, ancestors, effective
from fabulate.nets.tokens import Memory, SequenceTransformer, Transformer
from fabulate.seeds import generator, seeded
from fabulate.types import Batch, BatchSource, ImageShape, SequenceShape, Shape, unit

HEARD = (1, 2, 3, 4)  # symbols before a place of a line that it hears without attention
COUNTS = 6  # order of the n-gram on sequences, where nobody says
PORTION = 2**14  # symbols that go through the network at once where no gradient is asked for
CLOSED = -4.0  # the gate before anything is learnt, in logits: a mixture that is counting, but for 0.02 nats at most
LEVELS = 2  # of gray, where nobody says
DROPOUT = 0.2  # of texts and music: Irish tunes, 0.2 million weights, 0.95 nats a character where none has 1.06
NUCLEUS = 0.95  # top_p of texts and tunes: of Irish jigs 23 of 24 parse, by 1 21; by 0.9 they repeat themselves
MOST = 2**14  # numbers in an image: attention looks from each to all before it
GOLDEN = 0.6180339887  # multiples of it, without their whole parts, fall evenly anywhere in [0, 1)
HEAVY = 128  # times what a pixel of other families costs: a step has some thousand symbols


@spec
class Sampling:
    """How sequences are written."""

    temperature: PositiveFloat = 1.0
    """Less than 1 keeps to likelier symbols: fewer slips, less variety."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw each symbol from the likeliest ones that have this probability together; 1 draws from all, and so from p(x)
    (default: 0.95 of texts and tunes, where one slip spoils a sample; 1 of images and of several voices)."""
    begin: str = ""
    """What every sample begins with, in the symbols of the training sequences."""


@spec
class ARConfig:
    """An autoregressive model."""

    transformer: Transformer = Transformer()
    """The network."""
    counts: Annotated[int, Field(ge=0, le=12)] | None = None
    """Order of the n-gram beside the network, 0 for none (default: 6 on sequences, none on images)."""
    levels: Annotated[int, Field(ge=2, le=16)] | None = None
    """Gray levels of images, in each channel (default: 2, and training says so)."""
    sampling: Sampling = Sampling()
    """How samples are drawn."""


class AR(GenerativeModel, HasLikelihood, Fills, Conditional, family="ar"):
    """Autoregressive model by a causal transformer (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

    The preset `tutorial` is a small one without counts, trained by Adam at a constant rate.
    """

    Config = ARConfig
    takes = (ImageShape, SequenceShape)
    sized_by_data = ("counts.",)
    usual_lr = 2e-3
    method = "exact, by the product of the conditionals"
    measure = "levels"
    units: ClassVar[dict[str, str]] = {
        "loss": "nats per symbol",
        "network": "nats per symbol",
        "counts": "nats per symbol",
    }
    presets = {
        # Counting looks things up, which no compiler takes; Muon is ahead after the same time (docs/LOG.md).
        "default": Preset(ARConfig(), Training(optimizer="muon", compile="off")),
        "tutorial": Preset(
            ARConfig(transformer=Transformer(width=64, layers=2, dropout=0.0), counts=0),
            Training(epochs=10, steps=None, batch_size=64, schedule="constant", warmup=0, ema=0, validation=0, lr=1e-3),
        ),
    }

    config: ARConfig
    sampling: Sampling
    shape: Shape  # type: ignore[assignment]
    alike: Tensor | None
    """Tables (M, K) by which an item's symbols are exchanged at random as it is learnt from: transpositions."""

    def __init__(self, config: ARConfig, shape: Shape, classes: tuple[str, ...] = ()) -> None:
        of_images = isinstance(shape, ImageShape) or len(tuple(shape)) == 3  # type: ignore[arg-type]
        order = config.counts if config.counts is not None else 0 if of_images else COUNTS
        dropout = config.transformer.dropout
        if dropout is None:
            dropout = 0.0 if of_images else DROPOUT
        settled = {"counts": order, "transformer": override(config.transformer, {"dropout": dropout})}
        super().__init__(override(config, settled), shape, classes)
        if isinstance(self.shape, ImageShape):
            c, _, w = self.shape
            if self.shape.size > MOST:
                raise ConfigError(
                    f"ar writes an image number by number, {MOST:,} of them at most, and {self.shape} has "
                    f"{self.shape.size:,}; make images smaller (--size N, --channels 1)"
                )
            self.symbols, self.ends = config.levels or LEVELS, False
            # The same channel of the neighbours above and to the left, and the channels before it of the same pixel.
            steps = {*range(1, c + 1), w * c - c, w * c, w * c + c} - {0}
        else:
            assert isinstance(self.shape, SequenceShape)
            self.symbols, self.ends, v = len(self.shape.symbols), True, self.shape.voices
            steps = {*HEARD} if v == 1 else {*range(1, v + 2), 2 * v}  # of voices, the step before, and one voice more
        steps = {step for step in steps if step < self.shape.size or step == 1}
        places = self.shape.size if not self.ends else v if v > 1 else 0  # that look alike to attention, and are not
        self.network = SequenceTransformer(self.config.transformer, self.symbols, [*steps], places, len(classes))
        self.last = nn.Linear(config.transformer.width, self.symbols)
        self.counts = Counts(self.symbols, order) if order else None
        if self.counts is not None:
            self.gate = nn.Linear(config.transformer.width, 1)
            self.of_counts = nn.Linear(self.counts.features, 1, bias=False)
            for weights in (self.gate.weight, self.of_counts.weight):
                nn.init.zeros_(weights)
            nn.init.constant_(self.gate.bias, CLOSED)
        alike = medium(self.shape).alike(self.shape)
        self.register_buffer("alike", alike, persistent=False)

    @property
    def numbers(self) -> int:
        return HEAVY * self.shape.size

    def players(self) -> dict[str, Player]:
        return {"model": Player(self, self.loss)}

    def init_from_data(self, images: BatchSource) -> None:
        """Count the training sequences."""
        if self.counts is not None:
            self.counts.fit([*self.counted(images)])

    def counted(self, images: BatchSource) -> Iterator[Tensor]:
        """The training sequences with -1 behind their ends, a portion at a time."""
        for numbers in torch.split(torch.arange(len(images)), PORTION):
            x = self.tokens(images.batch(numbers).x.cpu())
            for same in [x] if self.alike is None else (table.cpu()[x] for table in self.alike):
                yield torch.where(self.counting(same), same, -1)

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        if not isinstance(self.shape, ImageShape) or self.config.levels is not None:
            return []
        return [f"images are learnt in {LEVELS} gray levels, as no number was given; --levels 2 to 16 says how many"]

    # Images and sequences

    def tokens(self, x: Tensor, chance: bool = False) -> Tensor:
        """Items as symbols (B, T), int64; gray values fall to the levels beside them by `chance`, or to the nearest."""
        if not isinstance(self.shape, ImageShape):
            return x.flatten(1).long()
        level = unit(x).clamp(0, 1) * (self.symbols - 1)
        level = (level + (torch.rand_like(level) if chance else 0.5)).floor().clamp_max(self.symbols - 1)
        return level.long().permute(0, 2, 3, 1).flatten(1)

    def untokened(self, tokens: Tensor) -> Tensor:
        """Symbols (N, T) as what `sample` gives: images in [-1, 1], or the symbols themselves."""
        if not isinstance(self.shape, ImageShape):
            return tokens.view(-1, *self.shape.dims).to(torch.int16)
        c, h, w = self.shape
        x = tokens.view(-1, h, w, c).permute(0, 3, 1, 2)
        return 2 * x.to(next(self.parameters()).dtype) / (self.symbols - 1) - 1

    def counting(self, tokens: Tensor) -> Tensor:
        """Which places (B, T) count: up to the first end, with it."""
        if not self.ends:
            return torch.ones_like(tokens, dtype=torch.bool)
        return ends_counted(tokens)

    # Probabilities

    def mixed(self, hidden: Tensor, log_network: Tensor, log_counts: Tensor, of_contexts: Tensor) -> Tensor:
        """log p of the mixture, from log p of the network and of the counts, by the gate at each place."""
        gate = self.gate(hidden) + self.of_counts(of_contexts.to(hidden))
        return torch.logaddexp(F.logsigmoid(gate) + log_network, F.logsigmoid(-gate) + log_counts.to(log_network))

    def each(self, tokens: Tensor, y: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """log p of each symbol of sequences (B, T), given those before it, and terms worth logging: (B, T)."""
        hidden = self.network(tokens, y)
        found = F.log_softmax(self.last(hidden), -1).gather(2, tokens[..., None])
        if self.counts is None:
            return found[..., 0], {}
        log_counts, of_contexts = self.counts.of_symbols(
            torch.where(self.counting(tokens), tokens, -1), without=self.training
        )
        both = self.mixed(hidden, found, log_counts[..., None], of_contexts)[..., 0]
        return both, {"network": -found[..., 0], "counts": -log_counts.to(both)}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Minus log p(x) in nats per symbol, and what the network and counting give alone."""
        tokens = self.tokens(batch.x, chance=True)
        places = self.counting(tokens)
        tokens = tokens[:, : int(places.sum(1).max())]  # nothing is behind the longest
        if self.training and self.alike is not None:
            tables = torch.randint(len(self.alike), (len(tokens), 1), device=tokens.device)
            tokens = self.alike[tables, tokens]
        log_p, terms = self.each(tokens, batch.y)
        places = places[:, : tokens.shape[1]]
        found = {name: (value * places).sum() / places.sum() for name, value in {"loss": -log_p, **terms}.items()}
        if "network" in found:  # its gradient, and not its value, counts too
            found["loss"] = found["loss"] + (found["network"] - found["network"].detach())
        return found

    @torch.no_grad()
    def log_probs(self, x: Tensor, y: Labels = None) -> Tensor:
        """log p of each symbol given those before it, in nats (N, T); 0 behind a sequence's end."""
        batch = self.given(x, y)
        tokens = self.tokens(batch.x)
        with evaluating(self):
            found = [
                self.each(part, None if batch.y is None else batch.y[i : i + len(part)])[0]
                for i, part in self.portions(tokens)
            ]
        return torch.cat(found) * self.counting(tokens)

    def portions(self, tokens: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Sequences (N, T) a few at a time, each part behind the number of its first."""
        rows = max(1, PORTION // self.shape.size)
        yield from ((i, tokens[i : i + rows]) for i in range(0, len(tokens), rows))

    def log_prob(self, x: Tensor, y: Labels = None) -> Tensor:
        """log P(x) in nats (N,), a probability: of sequences, or of images at the gray levels next to theirs."""
        return self.log_probs(x, y).double().sum(1)

    def bits_per_dim(self, x: Tensor, y: Labels = None, *, seed: int = 0) -> Tensor:
        """Bits that each pixel of an image of few levels costs (N,), its gray values on levels by chance (`seed`)."""
        x = self.given(x, y).x
        with seeded(seed, "levels", device=self.device):
            x = self.untokened(self.tokens(x, chance=True))
        return -self.log_prob(x, y) / (self.shape.size * log(2))

    # Samples

    def draw(self, tiles: Sequence[torch.Generator], y: Tensor | None) -> Tensor:
        chance = [torch.rand(TILE, self.shape.size, generator=tile, dtype=torch.float64) for tile in tiles]
        return self.untokened(self.written(torch.cat(chance).to(self.device), y))

    def written(self, chance: Tensor, y: Tensor | None, remember: bool = True) -> Tensor:
        """Sequences (N, T) from numbers (N, T) uniform in [0, 1): each symbol where they fall in its distribution.

        `remember`: keep what the network computed of the places before; else all of it is computed anew, to the same.
        """
        begin, top_p = self.beginning(), self.sampling.top_p
        if top_p is None:
            top_p = NUCLEUS if isinstance(self.shape, SequenceShape) and self.shape.voices == 1 else 1.0
        tokens = torch.zeros(chance.shape, dtype=torch.int64, device=chance.device)
        memory: list[Memory] | None = [] if remember else None
        over = torch.zeros(len(chance), dtype=torch.bool, device=chance.device)
        for t in range(chance.shape[1]):
            hidden = self.network(tokens[:, : t + 1], y, memory)[:, -1]
            if t < len(begin):
                tokens[:, t] = begin[t]
                continue
            cumulative = self.choice(hidden, tokens[:, :t], top_p).cumsum(1)
            here = chance[:, t, None] * cumulative[:, -1:]
            drawn = torch.searchsorted(cumulative, here, right=True)[:, 0].clamp_max(self.symbols - 1)
            tokens[:, t] = torch.where(over, 0, drawn)
            if self.ends:
                over |= drawn == 0
                if over.all():
                    break
        return tokens

    @torch.no_grad()
    def fill(
        self,
        x: Tensor,
        known: Tensor,
        y: Labels = None,
        *,
        n: int = 4,
        seed: int = 0,
        particles: int = PARTICLES,
        **sampling: Any,
    ) -> Tensor:
        """n completions of an item x (1, ...) by a particle filter (`models/filling.py`), `particles` for each."""
        batch = self.given(x, y)
        given, marks = self.tokens(batch.x)[0], self.marks(known).to(self.device)
        labels = None if batch.y is None else batch.y.expand(n * particles)
        shape = particles, self.shape.size + 1
        chance = [torch.rand(*shape, generator=generator(seed, "fill", i), dtype=torch.float64) for i in range(n)]
        with evaluating(self), self.drawing(sampling):
            return self.untokened(self.filtered(torch.stack(chance).to(self.device), given, marks, labels))

    def marks(self, known: Tensor) -> Tensor:
        """What is given of an item (T,), from its dimensions."""
        return (known.permute(1, 2, 0) if isinstance(self.shape, ImageShape) else known).flatten()

    def filtered(self, chance: Tensor, given: Tensor, known: Tensor, y: Tensor | None) -> Tensor:
        """Sequences (N, T) through given symbols (T,), by numbers (N, P, T + 1) uniform in [0, 1)."""
        n, p, _ = chance.shape
        tokens = torch.zeros(n * p, self.shape.size, dtype=torch.int64, device=chance.device)
        log_w = torch.zeros(n, p, dtype=torch.float64, device=chance.device)
        rows = torch.arange(n, device=chance.device)[:, None] * p
        over = torch.zeros(n * p, dtype=torch.bool, device=chance.device)
        memory: list[Memory] = []
        v = self.shape.voices if isinstance(self.shape, SequenceShape) else 1
        going_on = (known & (given > 0)).nonzero()
        last = int(going_on.max()) if len(going_on) else -1  # no sequence ends before
        for t in range(self.shape.size):
            hidden = self.network(tokens[:, : t + 1], y, memory)[:, -1]
            odds = self.choice(hidden, tokens[:, :t], self.sampling.top_p or 1.0)
            odds = odds / odds.sum(1, keepdim=True)
            if self.ends and (t < last or t % v) and not known[t]:
                alive = (1 - odds[:, 0]).where(~over, 1.0)
                log_w += alive.clamp_min(1e-30).log().view(n, p)
                odds = odds.index_fill(1, torch.zeros(1, dtype=torch.int64, device=odds.device), 0)
            if known[t]:
                log_w += odds[:, given[t]].clamp_min(1e-30).log().where(~over, 0.0).view(n, p)
                tokens[:, t] = given[t]
            else:
                cumulative = odds.cumsum(1)
                here = chance[:, :, t].reshape(-1, 1) * cumulative[:, -1:]
                drawn = torch.searchsorted(cumulative, here, right=True)[:, 0].clamp_max(self.symbols - 1)
                tokens[:, t] = torch.where(over, 0, drawn)
            if self.ends:
                over |= tokens[:, t] == 0
                if over.all():
                    break
            uneven = effective(log_w) < UNEVEN * p
            if t < last and bool(uneven.any()):
                found = ancestors(log_w, (chance[:, 0, -1] + t * GOLDEN).frac())
                found = torch.where(uneven[:, None], found, torch.arange(p, device=found.device))
                log_w = torch.where(uneven[:, None], 0.0, log_w)
                order = (rows + found).flatten()
                tokens, over = tokens[order], over[order]
                memory = [(k[order], value[order]) for k, value in memory]
        cumulative = torch.softmax(log_w, 1).cumsum(1)
        one = torch.searchsorted(cumulative, chance[:, 1 % p, -1:] * cumulative[:, -1:], right=True)[:, 0]
        return tokens.view(n, p, -1)[torch.arange(n, device=tokens.device), one.clamp_max(p - 1)]

    def choice(self, hidden: Tensor, tokens: Tensor, top_p: float) -> Tensor:
        """p (N, K) of the symbol behind sequences (N, t), as samples are asked to be drawn, in float64.

        The likeliest with `top_p` together: Holtzman et al., "The curious case of neural text degeneration", 2020,
        https://arxiv.org/abs/1904.09751.
        """
        log_p = F.log_softmax(self.last(hidden), 1)
        if self.counts is not None:
            back = self.counts.order - 1
            p, of_contexts = self.counts.distribution(tokens[:, max(0, tokens.shape[1] - back) :] if back else tokens)
            log_p = self.mixed(hidden, log_p, p.log(), of_contexts)
        p = torch.softmax(log_p.double() / self.sampling.temperature, 1)
        if top_p < 1:
            likely, order = p.sort(dim=1, descending=True, stable=True)
            behind = likely.cumsum(1) - likely >= top_p  # the likeliest always stays
            p = p.masked_fill(torch.zeros_like(behind).scatter(1, order, behind), 0)
        return p

    def beginning(self) -> list[int]:
        """The symbols of what samples begin with. Errors: `ConfigError` where the model does not know them."""
        if not self.sampling.begin:
            return []
        if isinstance(self.shape, ImageShape):
            raise ConfigError("begin is a text, and this model draws images; leave it out")
        x = medium(self.shape).given([self.sampling.begin], self.shape)[0]
        return [symbol for symbol in x.flatten().tolist() if symbol]


def ends_counted(tokens: Tensor) -> Tensor:
    """Which places of sequences (B, T) are within them: up to the first end, symbol 0, with it."""
    ended = (tokens == 0).cumsum(1)
    return (ended == 0) | ((ended == 1) & (tokens == 0))
