"""What a model of sequences is worth: does it predict better than counting, does it copy, does it vary?

The likelihood is exact, so the first question has a number: nats per symbol of sequences never trained on, beside what
an n-gram gives that was counted in the same training part, and what a uniform guess does. Divided by log 2 it is bits
per character. Of running text every symbol is scored once, with half a window before it at least: each window is scored
together with the half of the one before.

Copying is told from style by the longest run of symbols that a sample shares with the training part, beside that of
texts nobody copied: the test part. Variety is the share of different n-grams, beside that of as many real sequences.

Legend: N sequences, T places.
"""

from collections.abc import Sequence
from math import log, sqrt
from typing import Any

import torch
from torch import Tensor

from fabulate.data import Data
from fabulate.data.media import medium
from fabulate.errors import ConfigError
from fabulate.evaluation.subject import Findings, Measured, timed
from fabulate.metrics.intervals import Estimate
from fabulate.models import GenerativeModel
from fabulate.models.counting import Counts
from fabulate.models.families.ar import AR, COUNTS, ends_counted
from fabulate.report import Card, Row
from fabulate.seeds import permutation
from fabulate.types import SequenceShape, Stages

SAMPLES, COMPARED = 500, 100  # samples drawn, and compared with the training part letter by letter
GRAM = 5  # symbols of the n-grams that variety is told by
PORTION = 64


def of_sequences(model: GenerativeModel, data: Data, n: int, seed: int, told: Stages) -> Measured:
    """What is measured of texts or tunes. Errors: `ConfigError` for a model without a likelihood of symbols."""
    if not isinstance(model, AR):
        raise ConfigError(f"{model.family} has no likelihood of symbols")
    real = data.train if data.test is None else data.test
    seconds: dict[str, float] = {}
    told("likelihood", 0, 1)
    with timed(seconds, "likelihood"):
        predicted = likelihood(model, data, seed)
    told("samples", 0, 1)
    with timed(seconds, "samples"):
        texts = model.sample(min(n, SAMPLES), seed=seed)
    told("copies", 0, 1)
    with timed(seconds, "copies"):
        copied = originality(model, data, texts, seed)
    warning = "These sequences have no test part: a model that copies them looks best here. Hold some out."
    return Measured(
        f"training {model.shape.medium}" if data.test is None else f"test {model.shape.medium}",
        len(real),
        {"name": "symbols"},
        seconds,
        (warning,) if data.test is None else (),
        (predicted, copied),
    )


def likelihood(model: AR, data: Data, seed: int) -> Findings:
    """Nats per symbol, of the model and of counting."""
    assert isinstance(model.shape, SequenceShape)
    test = data.train if data.test is None else data.test
    counts = model.counts
    if counts is None:
        counts = Counts(len(model.shape.symbols), COUNTS)
        counts.fit([masked(data, rows) for rows in torch.split(torch.arange(len(data.train)), 1000)])
    rows = torch.arange(len(test))
    own, alone, places, characters = scored(model, counts, data, test, rows)
    some = permutation(len(data.train), seed, "evaluate", "train")[: len(test)]
    of_train, _, train_places, _ = scored(model, counts, data, data.train, some)
    value, by_counting = per_symbol(own, places), per_symbol(alone, places)
    gain = per_symbol(alone - own, places)
    uniform = log(len(model.shape.symbols) - (1 if getattr(test, "running", False) else 0))
    found = [
        Row(name="Nats per symbol", value=value, better="lower", noise=uniform, words="noise is a uniform guess"),
        Row(
            name="Bits per symbol",
            value=Estimate(*(number / log(2) for number in value)),
            better="lower",
            noise=uniform / log(2),
        ),
        Row(
            name=f"Counting alone, order {counts.order} (nats per symbol)",
            value=by_counting,
            better="neither",
            noise=uniform,
            words="what an n-gram of the same training part gives",
        ),
        Row(name="Gain over counting (nats per symbol)", value=gain, better="higher"),
        Row(name="Nats per sequence", value=Estimate.of_mean(own), better="lower"),
    ]
    if not torch.equal(characters, places) and model.shape.voices == 1:
        words = "of each text as it is spelled in pieces; other spellings would add a little to its probability"
        found.insert(0, Row(name="Nats per character", value=per_symbol(own, characters), better="lower", words=words))
    if (v := model.shape.voices) > 1:
        steps = (places - 1) / v  # the end is no step, and what it costs is shared by all
        words = "a step is a whole chord, of all voices; the first one and the end of the piece are counted"
        found.insert(0, Row(name="Nats per step", value=per_symbol(own, steps), better="lower", words=words))
        by = Row(name="Counting alone (nats per step)", value=per_symbol(alone, steps), better="neither")
        found.insert(1, by)
    if data.test is not None:
        before = per_symbol(of_train, train_places)
        reach = sqrt(sum(((part.high - part.low) / 2) ** 2 for part in (value, before)))
        gap = value.value - before.value
        found.append(
            Row(
                name="Generalisation gap (nats per symbol)",
                value=Estimate(gap, gap - reach, gap + reach),
                better="lower",
                words="how much more an unseen symbol costs than one of the training part; counts have seen that one",
            )
        )
    better = {1: "yes", 0: "about as well", -1: "no"}[gain.sign]
    because = (
        f"{value.value:.3f} nats per symbol; counting alone gives {by_counting.value:.3f}, guessing {uniform:.3f}."
    )
    card = Card("Does it predict better than counting?", better, because, "good" if gain.sign > 0 else "poor")
    how = "every symbol once, with half a window before it at least" if getattr(test, "running", False) else "all of it"
    sentence = f"Measured on {len(test):,} test {model.shape.medium} ({int(places.sum()):,} symbols), {how}."
    return Findings(title="Likelihood", rows=tuple(found), sentences=(sentence,), cards=(card,))


def masked(data: Data, rows: Tensor) -> Tensor:
    """Training sequences, with -1 behind their ends."""
    x = data.train.stored(rows).x.flatten(1).long()
    return torch.where(ends_counted(x), x, -1)


@torch.no_grad()
def scored(model: AR, counts: Counts, data: Data, of: Any, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nats of sequences by the model and by counting, how many symbols each has, and how many characters: (N,) each.

    The end counts as one of both.
    """
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    assert isinstance(model.shape, SequenceShape)
    lengths = torch.tensor([max(1, len(symbol)) for symbol in model.shape.symbols], dtype=torch.float64)
    for part in torch.split(rows, PORTION):
        x, y = of.stored(part)
        x = x.flatten(1)
        names = None if y is None or not model.classes else [data.classes[int(k)] for k in y]
        parts = [(x, 0)]
        if of.running:  # the second half of each window has the first before it; the first half, the window before
            half = x.shape[1] // 2
            before = of.stored((part - 1).clamp_min(0)).x
            joined = torch.cat([before[:, half:], x[:, :half]], 1)
            first = (part == 0)[:, None]
            parts = [(x, half), (torch.where(first, x, joined), x.shape[1] - half)]
        own, alone, places, characters = (torch.zeros(len(part), dtype=torch.float64) for _ in range(4))
        for sequences, start in parts:
            counted = model.counting(sequences.long())
            counted[:, :start] = False
            if of.running and start == x.shape[1] - half:  # the very first has nothing before it
                counted = torch.where(first, torch.arange(x.shape[1]) < half, counted)
            log_p, _ = counts.of_symbols(torch.where(model.counting(sequences.long()), sequences.long(), -1))
            own -= (model.log_probs(sequences.view(-1, *model.shape.dims), names).cpu().double() * counted).sum(1)
            alone -= (log_p.cpu().double() * counted).sum(1)
            places += counted.sum(1)
            characters += (lengths[sequences.long()] * counted).sum(1)
        found.append((own, alone, places, characters))
    own, alone, places, characters = (torch.cat(column) for column in zip(*found, strict=True))
    return own, alone, places, characters


def per_symbol(nats: Tensor, places: Tensor) -> Estimate:
    """The ratio of two sums over independent sequences (N,), with the ratio estimator's error.

    >>> per_symbol(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0])).value
    2.0
    """
    ratio = float(nats.sum() / places.sum())
    if len(nats) < 2:
        return Estimate(ratio)
    error = float((nats - ratio * places).std()) / (float(places.double().mean()) * sqrt(len(nats)))
    return Estimate.about(ratio, error)


def originality(model: AR, data: Data, samples: Tensor, seed: int) -> Findings:
    """Whether samples (N, T) are copies, and whether they vary; each symbol is a letter here, whatever it says."""
    noun = model.shape.medium
    test = data.train if data.test is None else data.test
    train = lettered(data.train.stored(torch.arange(len(data.train))).x)
    some = permutation(len(test), seed, "evaluate", "real")[: len(samples)]
    others = test.stored(some).x
    texts, real = lettered(samples), lettered(others)
    joint = "" if getattr(data.train, "running", False) else "\0"  # windows follow each other
    whole, known = joint.join(train), {*train}
    runs = [longest_run(text, whole) for text in texts[:COMPARED]]
    real_runs = [longest_run(text, whole) for text in real[:COMPARED]]
    copies, real_copies = (sum(text in known for text in part) for part in (texts, real))
    share, usual = Estimate.of_share(copies, len(texts)), Estimate.of_share(real_copies, len(real))
    typical = float(torch.tensor(real_runs).double().mean())
    rows = [
        Row(
            name="Longest run copied from training (symbols)",
            value=Estimate.of_mean(torch.tensor(runs).double()),
            better="neither",
            floor=typical,
            words="mean over samples; perfect is that of the test part, which copied nothing",
        ),
        Row(
            name="Whole copies of training items",
            value=share,
            better="neither",
            floor=usual.value,
            words="share of samples; perfect is that of the test part",
        ),
        Row(
            name=f"Different {GRAM}-grams",
            value=Estimate(different(texts)),
            better="neither",
            floor=different(real),
            words="among all of the samples; perfect is that of as many real ones",
        ),
        Row(
            name=f"{GRAM}-grams that training has",
            value=Estimate(shared(texts, whole)),
            better="neither",
            floor=shared(real, whole),
            words="share; perfect is that of the test part",
        ),
    ]
    of_real = judged(model, model.items(others))
    for name, (good, of) in judged(model, model.items(samples)).items():
        floor, whole_number = of_real.get(name, (0, 1))
        words = "share; perfect is that of the test part"
        share_of = Estimate.of_share(good, of)
        rows.append(Row(name=name, value=share_of, better="higher", floor=floor / max(1, whole_number), words=words))
    mean = sum(runs) / len(runs)
    copied = data.test is not None and (mean > 1.5 * typical or share.low > usual.high)
    because = (
        f"{share.value:.1%} of the samples stand in the training part, {usual.value:.1%} of the test part do. The "
        f"longest run that a sample shares with the training {noun} has {mean:.1f} symbols on average, the longest "
        f"of all {max(runs)}; {noun} of the test part share {typical:.1f}, and at most {max(real_runs)}."
    )
    card = Card("Is it copied?", "partly" if copied else "no", because, "poor" if copied else "good")
    sentence = f"{len(texts):,} samples, seed {seed}; runs are those of the first {len(runs):,}."
    return Findings(title="Copies and variety", rows=tuple(rows), sentences=(sentence,), cards=(card,))


def lettered(x: Tensor) -> list[str]:
    """Sequences (N, ...) up to their ends, with a letter for each symbol.

    >>> lettered(torch.tensor([[1, 2, 0, 0], [2, 1, 1, 2]])) == ["\\1\\2", "\\2\\1\\1\\2"]
    True
    """
    return ["".join(map(chr, row[: (*row, 0).index(0)])) for row in x.flatten(1).tolist()]


def judged(model: AR, texts: Sequence[str]) -> dict[str, tuple[int, int]]:
    """What the medium can count in texts: how many are as they should be, and of how many, in all."""
    found: dict[str, tuple[int, int]] = {}
    for text in texts:
        for name, (good, of) in medium(model.shape).judge(text).items():
            before = found.get(name, (0, 0))
            found[name] = before[0] + good, before[1] + of
    return found


def longest_run(text: str, whole: str) -> int:
    """The length of the longest run of symbols that a text shares with another.

    >>> longest_run("the cat sat", "a cat sits")
    6
    """
    best = 0
    for i in range(len(text)):
        while i + best < len(text) and text[i : i + best + 1] in whole:
            best += 1
    return best


def grams(texts: Sequence[str]) -> list[str]:
    """All n-grams of texts."""
    return [text[i : i + GRAM] for text in texts for i in range(len(text) - GRAM + 1)]


def different(texts: Sequence[str]) -> float:
    """The share of different n-grams among all."""
    found = grams(texts)
    return len({*found}) / max(1, len(found))


def shared(texts: Sequence[str], whole: str) -> float:
    """The share of the n-grams of texts that another text has."""
    found, known = grams(texts), {whole[i : i + GRAM] for i in range(len(whole) - GRAM + 1)}
    return sum(one in known for one in found) / max(1, len(found))
