"""Autoregression and counting: exact probabilities, that sum to one; samples that no cache and no batch changes."""

from itertools import product

import pytest
import torch

from fabulate.config import Training, override
from fabulate.errors import CapabilityError, ConfigError
from fabulate.models import GenerativeModel, family
from fabulate.models.counting import Counts, discounts
from fabulate.models.families.ar import ARConfig
from fabulate.nets.tokens import Transformer
from fabulate.seeds import generator, seeded
from fabulate.training.loop import Learner
from fabulate.types import ImageShape, SequenceShape, Tensors

SHAPE = SequenceShape(4, ("", "a", "b"))
WORDS = SequenceShape(9, ("", *"abcd"))


def made(shape, classes=(), **values):
    cls = family("ar")
    small = {"transformer": Transformer(width=16, layers=2, dropout=0.0), "counts": 3, **values}
    with seeded(0, "weights"):
        return cls(override(cls.presets["default"].model, small), shape, classes).eval()


def words(n, length=9, symbols=4, seed=0):
    """Sequences in which a symbol mostly follows the one before it, of random lengths."""
    g = generator(seed, "words")
    x = torch.randint(1, symbols + 1, (n, length), generator=g)
    follow = torch.rand(n, length, generator=g) < 0.7
    for t in range(1, length):
        x[:, t] = torch.where(follow[:, t], x[:, t - 1] % symbols + 1, x[:, t])
    ends = torch.randint(1, length, (n,), generator=g)
    return (x * (torch.arange(length) < ends[:, None])).to(torch.int16)


def masked(x):
    ended = (x == 0).cumsum(1)
    return torch.where((ended == 0) | ((ended == 1) & (x == 0)), x.long(), -1)


def all_sequences(length, symbols):
    """Each sequence of up to so many symbols once, with zeros behind its end."""
    found = {tuple(s[: s.index(0)] if 0 in s else s) for s in product(range(symbols), repeat=length)}
    return torch.tensor([[*s, *[0] * (length - len(s))] for s in found], dtype=torch.int16)


@pytest.mark.parametrize("counts", [0, 1, 3])
@pytest.mark.usefixtures("float64")
def test_the_probabilities_of_all_sequences_sum_to_one(counts):
    model = made(SHAPE, counts=counts)
    model.init_from_data(Tensors(words(40, 4, 2)))
    everything = all_sequences(4, 3)
    assert len(everything) == 1 + 2 + 4 + 8 + 16
    assert float(model.log_prob(everything).exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.usefixtures("float64")
def test_the_probabilities_of_all_images_of_two_levels_sum_to_one():
    model = made(ImageShape(1, 2, 3), counts=2)
    images = torch.tensor([*product([-1.0, 1.0], repeat=6)]).view(-1, 1, 2, 3)
    assert float(model.log_prob(images).exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("shape", [WORDS, ImageShape(1, 4, 4), ImageShape(2, 3, 3)])
@pytest.mark.usefixtures("float64")
def test_samples_are_the_same_with_and_without_memory(shape):
    model = made(shape)
    if isinstance(shape, SequenceShape):
        model.init_from_data(Tensors(words(60)))
    chance = torch.rand(8, shape.size, generator=generator(1), dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(model.written(chance, None), model.written(chance, None, remember=False))


def test_samples_come_as_often_as_they_are_likely():
    model = made(SequenceShape(2, ("", "a", "b")), counts=0)
    x = model.sample(4000, seed=1, top_p=1)
    everything = all_sequences(2, 3)
    p = model.log_prob(everything).exp().double()
    seen = torch.stack([(x == one).all(1).double().mean() for one in everything])
    assert ((seen - p).abs() <= 5 * (p * (1 - p) / 4000).sqrt()).all()


def test_a_likelihood_is_that_of_one_symbol_after_the_other_as_samples_are_drawn():
    model = made(WORDS, ("x", "y"))
    model.init_from_data(Tensors(words(60)))
    x, y = words(5, seed=7), torch.tensor([0, 1, 0, 1, 1])
    at_once = model.log_probs(x, y)
    with torch.no_grad():
        for t in range(9):
            hidden = model.network(x[:, : t + 1].long(), y)[:, -1]
            p = model.choice(hidden, x[:, :t].long(), 1.0).gather(1, x[:, t, None].long())[:, 0]
            counts = model.counting(x.long())[:, t]
            assert torch.allclose(p.log().float()[counts], at_once[counts, t], atol=1e-4)


def test_what_follows_the_end_changes_nothing():
    model = made(WORDS)
    x = torch.tensor([[1, 2, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.int16)
    other = x.clone()
    other[0, 5:] = 3
    assert torch.equal(model.log_prob(x), model.log_prob(other))
    assert (model.log_probs(x)[0, 3:] == 0).all()


def test_temperature_and_top_p_keep_to_the_likeliest():
    model = made(WORDS)
    model.init_from_data(Tensors(words(60)))
    plain, cold = (model.log_prob(model.sample(64, temperature=t, top_p=1)).mean() for t in (1.0, 0.3))
    assert cold > plain
    one = model.sample(64, top_p=1e-9)
    assert (one == one[0]).all()  # each the likeliest symbol after the other


def test_texts_leave_the_unlikely_out_and_what_sounds_together_does_not():
    model = made(WORDS)
    model.init_from_data(Tensors(words(60)))
    assert torch.equal(model.sample(16), model.sample(16, top_p=0.95))
    assert not torch.equal(model.sample(16), model.sample(16, top_p=1))
    chords = made(SequenceShape(4, ("", "a", "b", "c"), 2))
    chords.init_from_data(Tensors(torch.randint(1, 4, (20, 4, 2), dtype=torch.int16)))
    assert torch.equal(chords.sample(16), chords.sample(16, top_p=1))


def test_samples_begin_as_asked():
    model = made(WORDS)
    x = model.sample(5, begin="ab")
    assert (x[:, :2] == torch.tensor([1, 2])).all()
    with pytest.raises(ConfigError, match="'q'"):
        model.sample(1, begin="aq")
    with pytest.raises(ConfigError, match="draws images"):
        made(ImageShape(1, 4, 4)).sample(1, begin="a")


def test_a_model_with_counts_comes_back(tmp_path):
    model = made(WORDS)
    model.init_from_data(Tensors(words(60)))
    model.save_pretrained(tmp_path / "m")
    back = GenerativeModel.from_pretrained(tmp_path / "m")
    assert back.shape == WORDS and back.weights_hash() == model.weights_hash()
    assert torch.equal(back.sample(5, seed=3), model.sample(5, seed=3))


def test_a_training_on_sequences_lowers_the_loss_below_what_counting_gives():
    model, held_out = made(WORDS), words(200, seed=5)
    learner = Learner(model, Training(steps=60, lr=1e-2, batch_size=32, validation=0, ema=0), Tensors(words(300)))
    terms = learner.steps()
    next(terms)

    def gain():
        """In nats per symbol; the gate begins at counting, and costs little where the network knows nothing."""
        model.eval()
        counted = model.counting(held_out.long())
        alone = (model.counts.of_symbols(masked(held_out))[0] * counted).sum(1)
        found = (model.log_prob(held_out) - alone).sum() / counted.sum()
        model.train()
        return float(found)

    assert gain() > -0.02
    *_, _ = terms
    assert gain() > 0.03


def test_dropout_is_for_sequences_unless_asked_otherwise():
    cls, wide = family("ar"), Transformer(width=16, layers=1)
    of_words, of_images = (cls(ARConfig(transformer=wide), shape) for shape in (WORDS, ImageShape(1, 4, 4)))
    assert of_words.config.transformer.dropout == 0.2 and of_images.config.transformer.dropout == 0
    asked = cls(ARConfig(transformer=Transformer(width=16, layers=1, dropout=0.5)), WORDS)
    assert [part.p for part in asked.modules() if isinstance(part, torch.nn.Dropout)] == [0.5]


def test_other_families_say_who_learns_sequences():
    cls = family("gan")
    with pytest.raises(CapabilityError, match=r"gan does not learn texts; families that can: ar, vae"):
        cls(cls.presets["default"].model, WORDS)


# Counting


def test_counts_without_a_sequence_are_those_of_the_others():
    """Removing from the counts is counting anew; only the discounts stay, so they are set equal."""
    x = masked(words(12, seed=3))
    x[5] = x[4]  # a copy stays counted
    whole = Counts(5, 4)
    whole.fit([x])
    left, _ = whole.of_symbols(x, without=True)
    for i in range(len(x)):
        rest = Counts(5, 4)
        rest.fit([torch.cat([x[:i], x[i + 1 :]])])
        rest.discounts = whole.discounts
        alone, _ = rest.of_symbols(x[i : i + 1])
        inside = x[i] >= 0
        assert torch.allclose(left[i][inside], alone[0][inside], atol=1e-12)


def test_a_network_of_counts_is_kneser_ney_to_the_letter():
    """A bigram by hand: of "aab", "ab": discounts of the counts' own, continuation counts below."""
    counts = Counts(3, 2)
    counts.fit([torch.tensor([[1, 1, 2, 0]]), torch.tensor([[1, 2, 0, -1]])])
    one, two = counts.discounts[1, 1], counts.discounts[1, 2]
    low = counts.discounts[0]
    # After a: b twice, a once. Contexts before a: the beginning and a; before b: a; before the end: b. So 4 types.
    p_a = (2 - low[2]) / 4 + (2 * low[1] + low[2]) / 4 / 3
    expected = (1 - one) / 3 + (one + two) / 3 * p_a
    assert float(counts.distribution(torch.tensor([[1]]))[0][0, 1]) == pytest.approx(float(expected), abs=1e-12)


def test_counts_of_nothing_are_uniform():
    p, features = Counts(4, 3).distribution(torch.tensor([[1, 2]]))
    assert torch.allclose(p, torch.full((1, 4), 0.25, dtype=torch.float64))
    assert (features == 0).all()


def test_a_training_on_sequences_that_goes_on_ends_with_the_same_weights():
    def learner():
        return Learner(made(WORDS), Training(steps=8, batch_size=32, validation=0), Tensors(words(100)))

    whole, part, rest = learner(), learner(), learner()
    for _ in whole.steps():
        pass
    steps = part.steps()
    for _ in range(3):
        next(steps)
    rest.restore(part.state())
    for _ in rest.steps():
        pass
    assert rest.step == whole.step == 8
    assert rest.sampler().weights_hash() == whole.sampler().weights_hash()


@pytest.mark.parametrize("counts", [[], [1, 1], [2, 2, 2, 2], [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]])
def test_discounts_leave_something_for_what_was_never_met(counts):
    _, once, twice, more = discounts(torch.tensor(counts)).tolist()
    assert 0 < once < 1 and 0 < twice < 2 and 0 < more < 3


def test_images_are_told_their_levels_and_their_limit():
    assert not made(ImageShape(1, 4, 4), levels=2).warnings({}) and not made(WORDS).warnings({})
    (told,) = made(ImageShape(1, 4, 4)).warnings({})
    assert "learnt in 2 gray levels" in told and "--levels" in told
    with pytest.raises(ConfigError, match=r"16,384 of them at most, and 128x129 gray has 16,512; make images smaller"):
        made(ImageShape(1, 128, 129))
