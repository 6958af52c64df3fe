"""A turn, compiled or as it is written; when compiling pays; and what keeps broken numbers from the weights."""

from copy import deepcopy

import pytest
import torch

from fabulate.compiling import Compiled
from fabulate.config import Training, override
from fabulate.data import Data
from fabulate.errors import ConfigError, DivergedError
from fabulate.models import GenerativeModel, family
from fabulate.nets import MLP, Conv
from fabulate.seeds import seeded
from fabulate.training import configure
from fabulate.training.devices import flushed
from fabulate.training.guard import Guard
from fabulate.training.loop import Learner
from fabulate.training.turn import ENOUGH_MINUTES, ENOUGH_STEPS, pays, turn
from fabulate.types import Batch
from tiny import SMALL, pictures

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:DeprecationWarning"
)  # torch's compiler uses its own old ways


def learner(name: str, **hyperparameters: object) -> Learner:
    config, training = configure(name, "default", {"steps": 6, "batch_size": 10, **hyperparameters})
    with seeded(0):
        return Learner(family(name)(config, SMALL), training, pictures(SMALL, 40))


def flat(model: GenerativeModel) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.state_dict().values()])


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
    plain, compiled, resumed = (learner(name, compile=word, **choices) for word in ("off", "on", "on"))
    for lesson in (plain, compiled):
        for step, _ in enumerate(lesson.steps(), start=1):
            if step == 3 and lesson is compiled:
                state = deepcopy(compiled.state())
    assert [sentence.split(":")[0] for sentence in compiled.news] == ["Compiling the step"]
    # Six steps of sums in another order, in float64; Adam's first steps carry even the sign of a tiny gradient.
    torch.testing.assert_close(flat(compiled.model), flat(plain.model), rtol=0, atol=1e-9)
    resumed.restore(state)
    for _ in resumed.steps():
        pass
    assert torch.equal(flat(resumed.model), flat(compiled.model))


@pytest.mark.usefixtures("compiler")
def test_what_cannot_be_compiled_is_said_and_taken_as_it_is_written():
    def steps(lesson: Learner) -> torch.Tensor:
        for _ in lesson.steps():
            pass
        return flat(lesson.model)

    plain, tried = learner("nf", compile="off"), learner("nf", compile="off")
    compiled = learner("nf", compile="on").turns["model"]
    compiled.must = False  # as with auto
    tried.turns["model"] = compiled
    assert torch.equal(steps(tried), steps(plain))
    with pytest.raises(ConfigError, match="cannot be compiled"):
        next(learner("nf", compile="on").steps())


def test_a_turns_gradients_lie_in_memory_as_the_parameters_do():
    lesson = learner("vqvae")
    for name, player in lesson.players.items():
        parameters = lesson.parameters[name]
        taken = turn(player, parameters, lesson.images.batch(torch.arange(10)), 1)
        for parameter, gradient in zip(parameters, taken.gradients, strict=True):
            assert gradient is None or gradient.stride() == parameter.stride()


def test_a_part_of_the_loss_has_a_part_of_the_gradient():
    lesson = learner("ae")
    batch: Batch = lesson.images.batch(torch.arange(10))
    whole, quarter = (turn(lesson.players["model"], lesson.parameters["model"], batch, n) for n in (1, 4))
    for one, other in zip(whole.gradients, quarter.gradients, strict=True):
        torch.testing.assert_close(one / 4, other)
    assert torch.equal(whole.terms["loss"], quarter.terms["loss"])


def test_compiling_pays_for_fully_connected_networks_and_long_budgets_only():
    mlp, conv = (family("vae")(family("vae").Config(network=network), SMALL) for network in (MLP(), Conv()))
    timed = override(Training(), {"steps": None, "minutes": ENOUGH_MINUTES})
    assert pays(mlp, Training(), ENOUGH_STEPS, CPU)
    assert not pays(mlp, Training(), ENOUGH_STEPS - 1, CPU)
    assert not pays(conv, Training(), 10**6, CPU)
    assert pays(conv, Training(), 10**6, torch.device("cuda"))
    assert pays(mlp, timed, None, CPU)
    assert not pays(mlp, override(timed, {"minutes": ENOUGH_MINUTES - 1}), None, CPU)


def test_whether_steps_are_compiled_is_decided_by_the_budget(digits: Data):
    def compiled(**words: object) -> bool:
        config, training = configure("vae", "default", {"steps": ENOUGH_STEPS, "epochs": None, **words})
        lesson = Learner(family("vae")(config, digits.shape), training, digits.train)
        return isinstance(lesson.turns["model"], Compiled)

    assert compiled()
    assert not compiled(steps=10)
    assert not compiled(compile="off")
    assert compiled(steps=10, compile="on")


def test_a_patient_guard_drops_the_update_now_and_names_the_step_later():
    lesson = learner("vae")
    lesson.guard = Guard(patient=True, lr=1e-3)  # as on a GPU
    honest, calls = lesson.model.loss, iter(range(100))
    lesson.model.loss = lambda batch: {"loss": honest(batch)["loss"] * (float("nan") if next(calls) == 2 else 1)}
    lesson.players = lesson.model.players()
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


def test_tiny_numbers_count_as_zero_within_the_block_only():
    tiny = torch.tensor(1e-39)
    assert tiny * 1 != 0
    with flushed():
        assert tiny * 1 == 0
        with flushed():
            pass
        assert tiny * 1 == 0
    assert tiny * 1 != 0
