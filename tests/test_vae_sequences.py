"""The VAE of sequences: a likelihood that sums to one, codes that are used, walks between two words."""

import pytest
import torch

from fabulate.config import Training, override
from fabulate.errors import ConfigError
from fabulate.models import family
from fabulate.nets import GRU, MLP
from fabulate.seeds import generator, seeded
from fabulate.training.loop import Learner
from fabulate.types import ImageShape, SequenceShape, Tensors
from test_ar import SHAPE, WORDS, all_sequences, words
from tiny import ends


def made(shape, **values):
    cls = family("vae")
    small = {"latent_dim": 6, "network": GRU(width=24), "components": 1, **values}
    with seeded(0, "weights"):
        return cls(override(cls.presets["default"].model, small), shape).eval()


@torch.no_grad()
@pytest.mark.usefixtures("float64")
def test_the_probabilities_of_all_sequences_sum_to_one_at_each_code():
    model, every = made(SHAPE), all_sequences(4, 3)
    for z in torch.randn(3, 6, generator=generator(0)):
        raw = model.raw(z.expand(len(every), -1), None, every)
        assert float(model.likelihood.log_prob(every, raw).exp().sum()) == pytest.approx(1, abs=1e-9)


@torch.no_grad()
def test_a_code_is_decoded_to_the_likeliest_symbols_behind_each_other():
    model, z = made(WORDS), 3 * torch.randn(5, 6, generator=generator(1))
    x = model.decode(z)
    assert x.dtype == torch.int16 and x.shape == (5, 9)
    again = model.likelihood.mean(model.raw(z, None, x))
    assert torch.equal(again, x)


@torch.no_grad()
def test_voices_are_written_side_by_side():
    shape = SequenceShape(4, ("", "r4", "C4", "E4"), 2, "pieces")
    model = made(shape)
    x = model.sample(3)
    assert x.shape == (3, 4, 2) and model.encode(x).shape == (3, 6)
    assert model.raw(model.encode(x), None, x).shape == (3, 4, 2, 4) and model.score(x).shape == (3,)


def test_what_follows_the_end_changes_no_code():
    model, x = made(WORDS), words(3)
    other = torch.where((x == 0).cumsum(1) > 1, 2, x).to(torch.int16)
    assert (other != x).any() and torch.allclose(model.encode(x), model.encode(other))
    assert torch.equal(model.score(x), model.score(other))


def test_codes_are_used_and_say_what_a_word_is():
    torch.manual_seed(0)
    model = made(WORDS, free_bits=0.5)
    learner = Learner(model, Training(steps=250, lr=5e-3, batch_size=32, validation=0, ema=0), Tensors(words(300)))
    *_, terms = learner.steps()
    assert float(terms["active_units"]) > 0 and not model.warnings({"active_units": 2.0})
    held_out = words(100, seed=8)
    model.eval().requires_grad_(False)
    own = model.likelihood.log_prob(held_out, model.raw(model.encode(held_out), None, held_out))
    others = model.likelihood.log_prob(held_out, model.raw(model.encode(held_out.flip(0)), None, held_out))
    assert own.mean() > others.mean() + 0.5


def test_a_posterior_that_collapsed_is_told():
    (told,) = made(WORDS).warnings({"active_units": 0.0})
    assert "the posterior has collapsed" in told
    assert made(WORDS).config.free_bits == 0.25 and made(ImageShape(1, 8, 8), network=MLP()).config.free_bits == 0
    with pytest.raises(ConfigError, match="the mlp network is not of texts; leave out --network mlp"):
        made(WORDS, network=MLP())
    with pytest.raises(ConfigError, match="the gru network is not of images"):
        made(ImageShape(1, 8, 8))


def test_walks_between_words_and_along_the_code(tmp_path, capsys):
    for name in ("short", "long"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(20):
            text = "abcab"[i % 3 :] * (1 if name == "short" else 2)
            (tmp_path / "data" / name / f"{i}.txt").write_text(text)
    run = tmp_path / "run"
    assert ends("train", "vae", tmp_path / "data", "--out", run, "--steps", 6, "--latent-dim", 4) == 0
    assert "network: gru (up to 11 of 3 symbols: recurrent layers" in capsys.readouterr().out
    assert (run / "reconstructions.png").exists()
    assert ends("sample", run, "-n", 3, "--out", tmp_path / "drawn") == 0
    capsys.readouterr()
    assert ends("interpolate", run, "--items", "abcab", "cab", "--steps", 5) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 5
    assert (run / "drawn" / "interpolation-abcab-cab.png").exists()
    assert ends("traverse", run, "--axes", 2, "--steps", 3) == 0
    assert ends("morph", run, "--from", "short", "--to", "long", "--rows", 2, "--steps", 3) == 0
    assert ends("interpolate", run, "--items", "abcab", "xyz") == 2
    assert "the model has not learnt 'x', 'y', 'z'" in capsys.readouterr().err
