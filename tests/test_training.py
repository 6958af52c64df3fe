"""The loop and the run folder: exact resumption, refusal of silent changes, guards, and what the disk does."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fabulate
from fabulate.config import Training, override
from fabulate.data import Data
from fabulate.errors import ConfigError, DivergedError, RunError
from fabulate.models import family, names
from fabulate.models.base import Player
from fabulate.models.families.gan import GAN
from fabulate.models.families.vae import VAE
from fabulate.training import configure, read_log
from fabulate.training.folder import RunFolder
from fabulate.training.loop import Learner
from fabulate.types import BatchSource
from tiny import small


def learner(name: str, data: Data, **hyperparameters: object) -> Learner:
    config, training = configure(name, "default", {**small(name), "steps": 30, "batch_size": 16, **hyperparameters})
    torch.manual_seed(0)
    return Learner(family(name)(config, data.shape, data.classes if training.conditional else ()), training, data.train)


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def tiny(name: str, out: Path, data: Data, **options: object) -> fabulate.GenerativeModel:
    return fabulate.train(name, data, out=out, quiet=True, **{**small(name), "steps": 24, "batch_size": 16, **options})


@pytest.mark.parametrize("name", names())
def test_a_restored_learner_goes_on_bit_for_bit(name: str, digits: Data) -> None:
    straight, first, second = (learner(name, digits) for _ in range(3))
    for _ in straight.steps():
        pass
    steps = first.steps()
    for _ in range(11):
        next(steps)
    second.restore(first.state())
    for _ in second.steps():
        pass
    assert second.step == straight.step == 30
    assert torch.equal(weights(second.sampler()), weights(straight.sampler()))
    assert torch.equal(weights(second.model), weights(straight.model))


def test_every_epoch_shows_each_image_once_in_a_new_order(digits: Data) -> None:
    class Recorder(BatchSource):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def __len__(self) -> int:
            return 50

        def stored(self, indices: Tensor) -> fabulate.Batch:
            self.seen += indices.tolist()
            return digits.train.stored(indices)

    recorder = Recorder()
    lesson = learner("ae", digits, batch_size=16, steps=1000)
    lesson.images = recorder
    for lesson.step in range(25):  # 400 images: 8 epochs of 50, most batches straddle two
        lesson.micro_batches()
    epochs = [recorder.seen[i : i + 50] for i in range(0, 400, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8


def test_a_batch_larger_than_the_data_set_trains(digits: Data) -> None:
    few = fabulate.Images(digits.train.x[:3], digits.train.y[:3])
    lesson = learner("ae", digits, batch_size=16)
    lesson.images = few
    (batch,) = lesson.micro_batches()
    assert len(batch.x) == 16


@pytest.mark.usefixtures("float64")
def test_micro_batches_add_up_to_the_whole_batch(digits: Data) -> None:
    """An autoencoder's loss has no noise, so that only the order of additions differs: rounding of float64."""
    whole, parts = (learner("ae", digits, accumulate=n) for n in (1, 4))
    for _, _ in zip(whole.steps(), parts.steps(), strict=True):
        pass
    names_moved = [name for name, _ in whole.model.named_parameters()]
    assert names_moved
    for name in names_moved:
        torch.testing.assert_close(
            whole.model.get_parameter(name), parts.model.get_parameter(name), rtol=1e-9, atol=1e-11
        )


def test_players_move_one_at_a_time(digits: Data) -> None:
    lesson = learner("gan", digits)
    before = {name: weights(player.module) for name, player in lesson.players.items()}
    batches = lesson.micro_batches()
    lesson.turn("critic", lesson.players["critic"], batches, 1e-3)
    assert not torch.equal(weights(lesson.model.critic), before["critic"])
    assert torch.equal(weights(lesson.model.generator), before["generator"])
    assert all(p.grad is None for p in lesson.model.generator.parameters())


def test_a_player_takes_every_nth_turn(digits: Data) -> None:
    lesson = learner("gan", digits, critic_steps=3)
    turns = [name for terms in lesson.steps() for name in terms if name.endswith(".loss")]
    assert turns.count("critic.loss") == 30
    assert turns.count("generator.loss") == 10


def test_average_lags_behind_the_weights_and_is_off_when_asked(digits: Data) -> None:
    lesson = learner("ae", digits, ema=0.9)
    start = torch.cat([p.flatten() for p in lesson.average.parameters()]).detach().clone()
    next(lesson.steps())
    decay = min(0.9, 2 / 11)
    now, average = (torch.cat([p.flatten() for p in m.parameters()]) for m in (lesson.model, lesson.sampler()))
    torch.testing.assert_close(average, decay * start + (1 - decay) * now, rtol=1e-5, atol=1e-7)
    assert not torch.equal(average, now)
    plain = learner("ae", digits, ema=0.0)
    assert plain.sampler() is plain.model


def test_learning_rate_rises_then_follows_its_schedule(digits: Data) -> None:
    lesson = learner("ae", digits, steps=1000, warmup=10, lr=1.0)
    rates = []
    for lesson.step in range(1000):
        rates.append(lesson.rate())
    assert rates[0] == pytest.approx(1 / 11, rel=1e-3)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[500] == pytest.approx(0.5, rel=1e-2)
    assert rates[-1] < 1e-4
    lesson.training = override(lesson.training, {"schedule": "constant"})
    assert lesson.rate() == 1.0


def test_clip_bounds_the_gradient(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = {}
    for clip in (0.0, 1e-3, 1e9):
        lesson = learner("vae", digits, clip=clip)
        taken: list[torch.Tensor] = []
        monkeypatch.setattr(lesson.optimizers["model"], "update", lambda gradients, *_, to=taken: to.extend(gradients))
        next(lesson.steps())
        norms[clip] = float(torch.nn.utils.get_total_norm(taken))
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert norms[0.0] == norms[1e9] > 1


def test_budgets(digits: Data) -> None:
    n = len(digits.train)
    assert learner("ae", digits, steps=None, epochs=2, batch_size=100).total == -(-2 * n // 100)
    assert configure("ae", "tutorial", {"steps": 7})[1].epochs is None
    assert configure("gan", "default", {"lr": None, "betas": (0.9, 0.999)})[1] == Training()
    first = learner("ae", digits, steps=10, epochs=200)
    assert first.total == 10, "the budget that is spent first ends the training"
    timed = learner("ae", digits, steps=None, minutes=0.02)
    assert timed.total is None
    for _ in timed.steps():
        pass
    assert timed.step > 0
    assert timed.seconds == pytest.approx(1.2, abs=0.5)


@pytest.mark.parametrize("name", names())
def test_a_run_holds_everything_and_the_same_call_knows_it_is_done(name: str, digits: Data, tmp_path: Path) -> None:
    model = tiny(name, tmp_path / "run", digits)
    run = tmp_path / "run"
    present = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"config.json", "log.jsonl", "curves.png", "samples.png", "checkpoints/latest.json"} <= present
    assert {"model/config.json", "model/model.safetensors", "model/README.md", "model/samples.png"} <= present
    assert not [path for path in present if path.endswith((".tmp", ".pt", ".pkl"))]
    stamp = (run / "model" / "model.safetensors").stat().st_mtime_ns
    again = tiny(name, run, digits)
    assert torch.equal(again.sample(3), model.sample(3))
    assert (run / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    assert torch.equal(fabulate.load(run).sample(3), model.sample(3))
    assert torch.equal(fabulate.load(run / "model").sample(3), model.sample(3))


def test_the_log_ends_with_test_numbers(digits: Data, tmp_path: Path) -> None:
    tiny("vae", tmp_path, digits)
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert rows[-1]["finished"]
    test = rows[-2]["test"]
    assert test["loss"] == pytest.approx(test["reconstruction"] + test["kl"], rel=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.5}, "training.lr was 0.001, now 0.5"),
        ({"latent_dim": 6}, "model.latent_dim was 5, now 6"),
        ({"seed": 3}, "training.seed was 0, now 3"),
        ({"network": fabulate.nets.MLP(hidden=(17,))}, "model.network.hidden was [16], now [17]"),
    ],
)
def test_a_changed_hyperparameter_is_refused_by_name(
    change: dict[str, object], words: str, digits: Data, tmp_path: Path
) -> None:
    tiny("vae", tmp_path, digits)
    with pytest.raises(RunError) as caught:
        tiny("vae", tmp_path, digits, **change)
    assert words in str(caught.value)
    assert "--out" in str(caught.value)


def test_a_run_from_before_there_was_validation_goes_on(digits: Data, tmp_path: Path) -> None:
    tiny("vae", tmp_path, digits, validation=0)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["training"]["validation"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"training\.validation was 0\.0, now 0\.1"):
        tiny("vae", tmp_path, digits)
    tiny("vae", tmp_path, digits, validation=0)


def test_other_images_are_refused(digits: Data, tmp_path: Path) -> None:
    tiny("vae", tmp_path, digits)
    with pytest.raises(RunError, match="the images changed"):
        tiny("vae", tmp_path, fabulate.load_data(digits.train.x[:100]))


def test_two_processes_cannot_share_a_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match="another process is training"):
        RunFolder(tmp_path)
    folder.close()
    RunFolder(tmp_path).close()


def broken_loss(model: VAE, after: int) -> None:
    """From the given step on, the loss is not a number."""
    calls = iter(range(10_000))
    honest = model.loss

    def loss(batch: fabulate.Batch) -> dict[str, Tensor]:
        terms = honest(batch)
        return terms if next(calls) < after else {**terms, "loss": terms["loss"] * float("nan")}

    model.loss = loss


def test_a_loss_that_is_not_finite_stops_before_the_update(digits: Data) -> None:
    lesson = learner("vae", digits)
    broken_loss(lesson.model, after=5)
    lesson.players = lesson.model.players()
    steps = lesson.steps()
    for _ in range(5):
        next(steps)
    before = weights(lesson.model)
    with pytest.raises(DivergedError, match=r"step 6: the player 'model' has loss = nan.*lower --lr"):
        next(steps)
    assert lesson.step == 5
    assert torch.equal(weights(lesson.model), before)


def test_a_gradient_that_is_not_finite_is_named(digits: Data) -> None:
    """sqrt at 0 has an infinite slope and a finite value."""
    lesson = learner("gan", digits)
    model = lesson.model
    assert isinstance(model, GAN)

    def loss(batch: fabulate.Batch) -> dict[str, Tensor]:
        return {"loss": sum((p - p.detach()).sum().abs().sqrt() for p in model.generator.parameters())}

    lesson.players["generator"] = Player(model.generator, loss)
    with pytest.raises(DivergedError, match="the player 'generator' has gradient = "):
        next(lesson.steps())


def test_divergence_keeps_the_last_good_checkpoint(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = VAE.loss
    calls = iter(range(10_000))

    def loss(self: VAE, batch: fabulate.Batch) -> dict[str, Tensor]:
        terms = honest(self, batch)
        return terms if next(calls) < 14 else {**terms, "loss": terms["loss"] / 0}

    monkeypatch.setattr(VAE, "loss", loss)
    with pytest.raises(DivergedError, match=r"Last good checkpoint in .*: step 10"):
        tiny("vae", tmp_path, fabulate.load_data(digits.train.x[:9]), save_every=5, steps=500)
    monkeypatch.undo()
    tiny("vae", tmp_path, fabulate.load_data(digits.train.x[:9]), steps=500)
    assert read_log(tmp_path)[-1]["finished"]


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_reading_walks_back_to_the_newest_good_checkpoint(damage: str, digits: Data, tmp_path: Path) -> None:
    whole = tiny("ae", tmp_path / "whole", digits, save_every=8)
    tiny("ae", tmp_path / "run", digits, save_every=8)
    run = tmp_path / "run"
    latest = json.loads((run / "checkpoints" / "latest.json").read_text())
    path = run / "checkpoints" / latest["name"]
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:100] if damage == "truncated" else data[:-50] + b"?" + data[-49:])
    state, passed = (folder := RunFolder(run)).restore()
    folder.close()
    assert state is not None
    assert state["step"] < latest["step"]
    assert len(passed) == 1
    assert latest["name"] in passed[0]
    again = tiny("ae", run, digits, save_every=8)
    assert torch.equal(weights(again), weights(whole))


def test_a_full_disk_is_told_and_leaves_checkpoints_intact(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync
    calls = iter(range(10_000))

    def full(handle: int) -> None:
        if next(calls) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left on device.*intact"):
        tiny("ae", tmp_path / "run", digits, save_every=2)
    monkeypatch.undo()
    folder = RunFolder(tmp_path / "run")
    state, passed = folder.restore()
    folder.close()
    assert state is not None
    assert not passed
    assert torch.equal(weights(tiny("ae", tmp_path / "run", digits)), weights(tiny("ae", tmp_path / "other", digits)))


def test_a_folder_that_cannot_be_made_is_told_before_any_step(digits: Data, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="Not a directory"):
        tiny("ae", tmp_path / "file" / "run", digits)


def test_a_models_warnings_are_told_once_and_not_at_the_beginning(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def warnings(self: VAE, terms: dict[str, float]) -> list[str]:
        asked.append(terms["loss"])
        return ["the first", "another"] if len(asked) > 3 else ["the first"]

    monkeypatch.setattr(VAE, "warnings", warnings)
    monkeypatch.setattr("fabulate.training.session.SETTLED", 4)
    fabulate.train("vae", digits, out=tmp_path, **{**small("vae"), "steps": 40, "batch_size": 16})
    said = capsys.readouterr().out
    assert said.count("Warning: the first\n") == said.count("Warning: another\n") == 1
    assert asked == [row["train"]["loss"] for row in read_log(tmp_path) if "train" in row][3:]


def test_classes_are_asked_of_images_that_have_none(digits: Data, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no classes"):
        tiny("vae", tmp_path / "run", fabulate.load_data(digits.train.x[:50]), conditional=True)
    assert not (tmp_path / "run").exists()


def test_the_words_of_configure() -> None:
    with pytest.raises(ConfigError, match="training needs a budget: epochs, steps, minutes"):
        fabulate.train("gan", "digits", quiet=True, steps=None)
    with pytest.raises(ConfigError, match="unknown hyperparameter 'latent_dims'; did you mean 'latent_dim'"):
        configure("vae", "default", {"latent_dims": 3})
    with pytest.raises(ConfigError, match="no preset 'tutorail'; did you mean 'tutorial'"):
        configure("vae", "tutorail", {})
    with pytest.raises(ConfigError, match="no network 'conf'; did you mean 'conv'"):
        configure("vae", "default", {"network": "conf"})
    with pytest.raises(ConfigError, match="cannot be used here"):
        fabulate.train("vae", "digits", device="cuda:99", quiet=True, steps=1)
