"""The loop: what a step does, exact resumption, Adam, the guard, and steps that are compiled."""

import time
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from fabulate.compiling import Compiled
from fabulate.config import Training, override
from fabulate.data import Data, Images
from fabulate.errors import ConfigError, DivergedError
from fabulate.models import family, names
from fabulate.models.base import Player
from fabulate.models.families.vqvae import VQVAE
from fabulate.nets import MLP, Conv
from fabulate.seeds import seeded
from fabulate.training import configure
from fabulate.training.devices import flushed
from fabulate.training.loop import ENOUGH_MINUTES, ENOUGH_STEPS, Guard, Learner, compiling_pays, gradients
from fabulate.training.optimizers import FASTER, MOMENTUM, Adam, Muon, inner
from fabulate.types import Batch, BatchSource
from tiny import SMALL, pictures, small

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:DeprecationWarning"
)  # torch's compiler uses its own old ways


def learner(name: str, images: BatchSource | None = None, **hyperparameters: object) -> Learner:
    values = {**small(name), "steps": 30, "batch_size": 16, **hyperparameters}
    config, training = configure(name, "default", values)
    with seeded(0):
        model = family(name)(config, SMALL)
        return Learner(model, training, pictures(SMALL, 100) if images is None else images)


def goes_on_to_the_bit(make: Callable[[], Learner], left: int) -> None:
    """A learner that continues the state of one that was left after some steps ends as one that nobody left."""
    straight, first, second = (make() for _ in range(3))
    steps = first.steps()
    for _ in range(left):
        next(steps)
    second.restore(first.state())
    assert torch.equal(finish(second), finish(straight))
    assert torch.equal(flat(second.sampler()), flat(straight.sampler()))
    assert second.step == straight.step


def finish(lesson: Learner) -> Tensor:
    """The weights in the end."""
    for _ in lesson.steps():
        pass
    return flat(lesson.model)


def flat(model: torch.nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten().double() for value in model.state_dict().values()])


@pytest.mark.parametrize("name", names())
def test_a_restored_learner_goes_on_bit_for_bit(name):
    goes_on_to_the_bit(lambda: learner(name, steps=4), left=2)


def test_every_epoch_shows_each_image_once_in_a_new_order():
    class Recorder(BatchSource):
        seen: list[int] = []

        def __len__(self) -> int:
            return 50

        def stored(self, indices: Tensor) -> Batch:
            self.seen.extend(indices.tolist())
            return Batch(torch.zeros(len(indices), *SMALL, dtype=torch.uint8), None)

    lesson = learner("ae", Recorder(), steps=1000)
    for lesson.step in range(25):  # 400 images: 8 epochs of 50, most batches straddle two
        lesson.micro_batches()
    epochs = [lesson.images.seen[i : i + 50] for i in range(0, 400, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8


def test_a_batch_larger_than_the_data_set_trains(digits: Data):
    (batch,) = learner("ae", Images(digits.train.x[:3], digits.train.y[:3])).micro_batches()
    assert len(batch.x) == 16


@pytest.mark.usefixtures("float64")
def test_micro_batches_add_up_to_the_whole_batch():
    """An autoencoder's loss has no noise, so that only the order of additions differs: rounding of float64."""
    torch.testing.assert_close(
        finish(learner("ae", accumulate=4)), finish(learner("ae", accumulate=1)), rtol=1e-9, atol=1e-11
    )


def test_players_move_one_at_a_time():
    lesson = learner("gan")
    before = {name: flat(player.module) for name, player in lesson.players.items()}
    lesson.update("critic", lesson.micro_batches())
    assert not torch.equal(flat(lesson.model.critic), before["critic"])
    assert torch.equal(flat(lesson.model.generator), before["generator"])
    assert all(p.grad is None for p in lesson.model.generator.parameters())


def test_a_player_moves_on_every_nth_step():
    moved = [name for terms in learner("gan", critic_steps=3).steps() for name in terms if name.endswith(".loss")]
    assert moved.count("critic.loss") == 30
    assert moved.count("generator.loss") == 10


class Staged(VQVAE):
    """An autoencoder first, and then a prior of its codes."""

    calls = 0

    def players(self):
        spans = {"autoencoder": (0, 0.4), "prior": (0.4, 1)}
        return {name: player._replace(span=spans[name]) for name, player in super().players().items()}

    def init_from_data(self, images):
        self.calls += 1
        self.seen = flat(self.autoencoder)


def staged(**training: object) -> Learner:
    config, training = configure("vqvae", "default", {**small("vqvae"), "batch_size": 16, **training})
    with seeded(0):
        return Learner(Staged(config, SMALL), training, pictures(SMALL, 100))


@pytest.mark.parametrize(
    "budget", [{"steps": 10}, {"steps": None, "epochs": 1.6}, {"steps": None, "minutes": 0.5}], ids=str
)
def test_a_player_moves_in_its_span_alone(budget, monkeypatch):
    lesson = staged(**budget)
    if "minutes" in budget:
        clock = iter(range(10_000))
        monkeypatch.setattr(time, "perf_counter", lambda: 1.5 * next(clock))  # asked twice a step
        lesson.began = time.perf_counter()
    who = []
    for terms in lesson.steps():
        who.append({name.partition(".")[0] for name in terms})
        assert lesson.all_begun == (who[-1] == {"prior"})
    assert who == 4 * [{"autoencoder"}] + 6 * [{"prior"}]


@pytest.mark.parametrize("ema", [0.9, 0.0])
def test_a_player_whose_span_is_over_keeps_its_average_for_those_that_follow(ema):
    lesson = staged(steps=10, ema=ema)
    steps = lesson.steps()
    for _ in range(4):
        next(steps)
    own, average = flat(lesson.model.autoencoder), flat(lesson.average.autoencoder)
    assert torch.equal(own, average) == (ema == 0)
    assert lesson.model.calls == 1
    for _ in steps:
        pass
    assert lesson.model.calls == 2
    assert torch.equal(lesson.model.seen, average)
    assert torch.equal(flat(lesson.model.autoencoder), average)
    assert torch.equal(flat(lesson.sampler().autoencoder), average)


def test_rate_and_average_are_of_the_players_own_span():
    lesson = staged(steps=1000, warmup=10, lr=1.0)
    rates = {"autoencoder": [], "prior": []}
    for lesson.step in range(1000):
        lesson.begin_spans()
        name = "autoencoder" if lesson.step < 400 else "prior"
        rates[name].append(lesson.rate(name))
    for own in rates.values():
        assert own[0] == pytest.approx(1 / 11, rel=1e-3)
        assert own[10:] == sorted(own[10:], reverse=True)
        assert own[10] > 0.99
        assert own[-1] < 1e-3
    lesson = staged(steps=20)
    for _ in lesson.steps():
        if lesson.step == 8:
            start = [weight.detach().clone() for weight in lesson.average.transformer.parameters()]
        if lesson.step == 9:
            break
    now, average = lesson.model.transformer.parameters(), lesson.average.transformer.parameters()
    for first, weight, mean in zip(start, now, average, strict=True):
        torch.testing.assert_close(mean, 2 / 11 * first + 9 / 11 * weight)  # as after the first step of any training


@pytest.mark.parametrize("left", [1, 4, 6], ids=["before the turn", "at the turn", "after it"])
def test_a_restored_learner_goes_on_with_spans_bit_for_bit(left):
    goes_on_to_the_bit(lambda: staged(steps=10), left)


def test_a_clock_that_is_set_back_opens_no_span_again():
    """Time is reserved for the last pictures, more or less of it as they prove slow or fast."""
    lesson = staged(steps=None, minutes=1.0)
    lesson.seconds, lesson.reserved = 22.0, 20.0
    steps = lesson.steps()
    assert {name.partition(".")[0] for name in next(steps)} == {"prior"}
    lesson.seconds, lesson.reserved, lesson.began = 22.0, 0.0, time.perf_counter() - 22
    assert lesson.progress < 0.4
    assert {name.partition(".")[0] for name in next(steps)} == {"prior"}


def test_average_lags_behind_the_weights_and_is_off_when_asked():
    lesson = learner("ae", ema=0.9)
    start = torch.cat([p.flatten() for p in lesson.average.parameters()]).detach().clone()
    next(lesson.steps())
    decay = min(0.9, 2 / 11)
    now, average = (torch.cat([p.flatten() for p in m.parameters()]) for m in (lesson.model, lesson.sampler()))
    torch.testing.assert_close(average, decay * start + (1 - decay) * now, rtol=1e-5, atol=1e-7)
    assert not torch.equal(average, now)
    plain = learner("ae", ema=0.0)
    assert plain.sampler() is plain.model


def test_learning_rate_rises_then_follows_its_schedule():
    lesson = learner("ae", steps=1000, warmup=10, lr=1.0)
    rates = []
    for lesson.step in range(1000):
        rates.append(lesson.rate("model"))
    assert rates[0] == pytest.approx(1 / 11, rel=1e-3)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[500] == pytest.approx(0.5, rel=1e-2)
    assert rates[-1] < 1e-4
    lesson.training = override(lesson.training, {"schedule": "constant"})
    assert lesson.rate("model") == 1.0


def test_clip_bounds_the_gradient(monkeypatch):
    norms = {}
    for clip in (0.0, 1e-3, 1e9):
        lesson = learner("vae", clip=clip)
        taken: list[Tensor] = []
        monkeypatch.setattr(lesson.optimizers["model"], "update", lambda gradients, *_, to=taken: to.extend(gradients))
        next(lesson.steps())
        norms[clip] = float(torch.nn.utils.get_total_norm(taken))
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert norms[0.0] == norms[1e9] > 1


def test_budgets():
    assert learner("ae", steps=None, epochs=2, batch_size=30).total == 7
    assert configure("ae", "tutorial", {"steps": 7})[1].epochs is None
    assert configure("gan", "default", {"lr": None, "betas": (0.9, 0.999)})[1] == Training()
    assert learner("ae", steps=10, epochs=200).total == 10, "the budget that is spent first ends the training"
    timed = learner("ae", steps=None, minutes=0.02)
    assert timed.total is None
    finish(timed)
    assert timed.step > 0
    assert timed.seconds == pytest.approx(1.2, abs=0.5)


def test_a_loss_that_is_not_finite_stops_before_the_update():
    lesson = learner("vae")
    spoil(lesson, at=5)
    steps = lesson.steps()
    for _ in range(5):
        next(steps)
    before = flat(lesson.model)
    with pytest.raises(DivergedError, match=r"step 6: the player 'model' has loss = nan.*lower --lr"):
        next(steps)
    assert lesson.step == 5
    assert torch.equal(flat(lesson.model), before)


def test_a_patient_guard_drops_the_update_now_and_names_the_step_later():
    lesson = learner("vae")
    lesson.guard = Guard(patient=True, lr=1e-3)  # as on a GPU
    spoil(lesson, at=2, once=True)
    steps = lesson.steps()
    next(steps), next(steps)
    before = flat(lesson.model)
    next(steps)
    assert torch.equal(flat(lesson.model), before)
    next(steps)
    assert torch.isfinite(flat(lesson.model)).all()
    assert not torch.equal(flat(lesson.model), before)
    for use in (lesson.state, lesson.sampler, lesson.guard.check):
        with pytest.raises(DivergedError, match=r"step 3: the player 'model' has loss = nan, gradient = nan"):
            use()


def spoil(lesson: Learner, at: int, once: bool = False) -> None:
    """From a step on, or at it alone, the loss is not a number."""
    honest, calls = lesson.model.loss, iter(range(100))

    def loss(batch: Batch) -> dict[str, Tensor]:
        now = next(calls)
        return {"loss": honest(batch)["loss"] * (float("nan") if now == at or (now > at and not once) else 1)}

    lesson.model.loss = loss
    lesson.players = lesson.model.players()


def test_a_gradient_that_is_not_finite_is_named():
    """sqrt at 0 has an infinite slope and a finite value."""
    lesson = learner("gan")

    def loss(batch: Batch) -> dict[str, Tensor]:
        return {"loss": sum((p - p.detach()).sum().abs().sqrt() for p in lesson.model.generator.parameters())}

    lesson.players["generator"] = Player(lesson.model.generator, loss)
    with pytest.raises(DivergedError, match="the player 'generator' has gradient = "):
        next(lesson.steps())


def test_gradients_lie_in_memory_as_the_parameters_do():
    lesson = learner("vqvae")
    for name, player in lesson.players.items():
        parameters = lesson.parameters[name]
        found = gradients(player, parameters, lesson.images.batch(torch.arange(10)), 1)
        for parameter, gradient in zip(parameters, found.gradients, strict=True):
            assert gradient is None or gradient.stride() == parameter.stride()


def test_tiny_numbers_count_as_zero_within_the_block_only():
    tiny = torch.tensor(1e-39)
    assert tiny * 1 != 0
    with flushed():
        assert tiny * 1 == 0
        with flushed():
            pass
        assert tiny * 1 == 0
    assert tiny * 1 != 0


RATES, BETAS = [1e-2, 3e-3, 3e-3, 1e-3, 1e-1, 2e-4], (0.5, 0.99)


def drawn(parameters: list[torch.nn.Parameter], step: int) -> list[Tensor]:
    """Gradients of a step, laid out as the parameters are."""
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator)).detach() for p in parameters]


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """The last of them has its channels last in memory."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in [(5, 3), (7,), (2, 3, 3, 3)]]
    tensors[-1] = tensors[-1].contiguous(memory_format=torch.channels_last)
    return [torch.nn.Parameter(tensor) for tensor in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_moves_as_torch_does_and_continues_what_torch_began_and_the_other_way(dtype):
    ours, theirs = parameters(dtype), parameters(dtype)

    def both(adam: Adam, optimizer: torch.optim.Adam, steps: range) -> None:
        for step in steps:
            for p, gradient in zip(theirs, drawn(theirs, step), strict=True):
                p.grad = gradient
            optimizer.param_groups[0]["lr"] = RATES[step]
            optimizer.step()
            adam.update(drawn(ours, step), RATES[step])
        assert all(map(torch.equal, ours, theirs))

    optimizer, adam = torch.optim.Adam(theirs, betas=BETAS, fused=True), Adam(ours, BETAS)
    both(adam, optimizer, range(2))
    adam = Adam(ours, BETAS)
    adam.restore(deepcopy(optimizer.state_dict()))
    both(adam, optimizer, range(2, 4))
    other = torch.optim.Adam(theirs, betas=BETAS, fused=True)
    other.load_state_dict({**other.state_dict(), **deepcopy(adam.state())})
    both(adam, other, range(4, 6))


def test_a_dropped_update_of_adam_changes_nothing_and_does_not_count():
    own = parameters()
    adam = Adam(own, BETAS)
    adam.update(drawn(own, 0), 1e-2, torch.tensor(0.0))
    before = deepcopy((own, adam.state()))
    adam.update([torch.full_like(p, torch.nan) for p in own], 1e-2, torch.tensor(1.0))
    assert all(map(torch.equal, own, before[0]))
    for i, of_one in adam.state()["state"].items():
        assert all(torch.equal(of_one[name], before[1]["state"][i][name]) for name in of_one)
    still = own[1].detach().clone()
    adam.update([g if i != 1 else None for i, g in enumerate(drawn(own, 1))], 1e-2)
    assert torch.equal(own[1], still), "one without a gradient stands still"
    assert [float(count) for count in adam.counts] == [2, 1, 2]


def test_muon_moves_matrices_as_torch_does_and_the_rest_as_adam():
    """torch's Muon rounds to bfloat16 on the way, and takes no convolutions: these are matrices of what they read."""
    convolutions = [torch.nn.Conv2d(*channels, 3) for channels in ((2, 1), (1, 12), (12, 2), (2, 3))]
    layers = torch.nn.Sequential(*convolutions)
    own = list(layers.parameters())
    chosen = inner(layers)
    assert chosen == {2, 4}, "neither biases nor the first and the last layer"
    first = deepcopy(own)
    muon, adam = Muon(own, chosen, BETAS), Adam(others := [first[i] for i in (0, 1, 3, 5, 6, 7)], BETAS)
    theirs = [torch.nn.Parameter(first[i].detach().flatten(1)) for i in (2, 4)]
    optimizer = torch.optim.Muon(theirs, weight_decay=0, momentum=MOMENTUM, adjust_lr_fn="original")
    for step in range(3):
        gradients = drawn(own, step)
        muon.update(gradients, RATES[step])
        adam.update([gradients[i] for i in (0, 1, 3, 5, 6, 7)], RATES[step])
        before = [p.detach().clone() for p in theirs]
        for p, i in zip(theirs, (2, 4), strict=True):
            p.grad = gradients[i].flatten(1)
        optimizer.param_groups[0]["lr"] = FASTER * RATES[step]
        optimizer.step()
        for p, i, old in zip(theirs, (2, 4), before, strict=True):
            ours, moved = own[i].flatten(1) - old, p - old
            assert (ours - moved).norm() < 0.1 * moved.norm()
            p.data.copy_(own[i].flatten(1))
    assert all(torch.equal(own[i], other) for i, other in zip((0, 1, 3, 5, 6, 7), others, strict=True))


def test_a_dropped_update_of_muon_changes_nothing_and_its_state_continues_to_the_bit():
    own = parameters()
    muon = Muon(own, {0}, BETAS)
    muon.update(drawn(own, 0), 1e-2, torch.tensor(0.0))
    before, state = deepcopy(own), deepcopy(muon.state())
    muon.update([torch.full_like(p, torch.nan) for p in own], 1e-2, torch.tensor(1.0))
    assert all(map(torch.equal, own, before))
    other = Muon(before, {0}, BETAS)
    other.restore(state)
    for optimizer, ps in ((muon, own), (other, before)):
        optimizer.update(drawn(ps, 1), 1e-2)
    assert all(map(torch.equal, own, before))
    with pytest.raises(ValueError, match="0 momenta"):
        other.restore({**state, "momentum": {}})


@pytest.mark.slow
@pytest.mark.usefixtures("float64", "compiler")
@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("vae", {"network": MLP(hidden=(16,)), "likelihood": "bernoulli", "samples": 3, "gradient": "path"}),
        ("gan", {"network": MLP(hidden=(16,))}),  # the gradient of a gradient's size
    ],
)
def test_compiled_steps_learn_what_plain_steps_learn_and_continue_to_the_bit(name, choices):
    plain, compiled, resumed = (learner(name, compile=word, steps=6, **choices) for word in ("off", "on", "on"))
    steps = compiled.steps()
    for _ in range(3):
        next(steps)
    state = deepcopy(compiled.state())
    assert [sentence.split(":")[0] for sentence in compiled.messages] == ["Compiling the step"]
    # Six steps of sums in another order, in float64; Adam's first steps carry even the sign of a tiny gradient.
    torch.testing.assert_close(finish(compiled), finish(plain), rtol=0, atol=1e-9)
    resumed.restore(state)
    assert torch.equal(finish(resumed), flat(compiled.model))


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_what_cannot_be_compiled_is_said_and_taken_as_it_is_written():
    """A normalizing flow's first batch decides in Python."""
    plain, tried = learner("nf", compile="off", steps=3), learner("nf", compile="off", steps=3)
    said: list[str] = []
    tried.gradients["model"] = Compiled(gradients, "the step", must=False, say=said.append)
    assert torch.equal(finish(tried), finish(plain))
    assert said[0].startswith("The step is not compiled: ")
    with pytest.raises(ConfigError, match="cannot be compiled"):
        next(learner("nf", compile="on").steps())


def test_compiling_pays_for_fully_connected_networks_and_long_budgets_only():
    mlp, conv = (family("vae")(family("vae").Config(network=network), SMALL) for network in (MLP(), Conv()))
    timed = override(Training(), {"steps": None, "minutes": ENOUGH_MINUTES})
    assert compiling_pays(mlp, Training(), ENOUGH_STEPS, CPU)
    assert not compiling_pays(mlp, Training(), ENOUGH_STEPS - 1, CPU)
    assert not compiling_pays(conv, Training(), 10**6, CPU)
    assert compiling_pays(conv, Training(), 10**6, torch.device("cuda"))
    assert compiling_pays(mlp, timed, None, CPU)
    assert not compiling_pays(mlp, override(timed, {"minutes": ENOUGH_MINUTES - 1}), None, CPU)
    for steps, word, expected in (
        (ENOUGH_STEPS, "auto", True),
        (ENOUGH_STEPS, "off", False),
        (9, "auto", False),
        (9, "on", True),
    ):
        lesson = learner("vae", steps=steps, compile=word)
        assert isinstance(lesson.gradients["model"], Compiled) == expected
