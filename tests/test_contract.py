"""What every family keeps (`fabulate.models.contract`), asked of the whole registry: families x networks x classes.

A family added to `fabulate/models/families` is tested here without a line of new code; none is named. And laws that
are broken are found, and told with their cure.
"""

import pickle

import pytest
import torch
from torch import nn

from fabulate.config import Preset, spec
from fabulate.models.base import GenerativeModel, Player
from fabulate.models.capabilities import Encodes, Scores
from fabulate.models.contract import LAWS
from fabulate.models.families import family
from fabulate.models.small import Case, kinds
from tiny import cases, long, make

CASES = cases()
ASKED = [(law, case) for law in LAWS for case in CASES if LAWS[law].applies(case)]


LONG = {"its_own_class_is_likelier"}  # laws that train
PRECISE = {"samples_are_decoded_codes"}  # laws of how precise codes are


def slow(law: str, case: Case) -> bool:
    """Whether it is asked of a conditional model once more, with another kind of network, and is not about classes.

    And whether a law that trains is asked of what differs by little from another case.
    """
    if law in LONG and (case.space or long(case.family)):
        return True
    return bool(case.classes) and not LAWS[law].conditional and case.kind != kinds(family(case.family))[-1]


@pytest.mark.parametrize(
    ("law", "case"),
    [
        pytest.param(law, case, id=f"{law}-{case}", marks=[pytest.mark.slow] if slow(law, case) else [])
        for law, case in ASKED
    ],
)
def test_every_family_keeps_the_law(law, case, request):
    if law in PRECISE:
        request.getfixturevalue("whole")
    problems = list(LAWS[law].broken(case))
    assert not problems, "\n".join(problems)


def test_every_law_is_asked_and_says_what_it_wants():
    assert {law for law, _ in ASKED} == LAWS.keys()
    assert len({law.says for law in LAWS.values()}) == len(LAWS) > 15
    assert all(law.says for law in LAWS.values())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_model_survives_pickling_and_draws_the_same_images(case):
    model = make(case)
    assert torch.equal(pickle.loads(pickle.dumps(model)).sample(3, seed=5), model.sample(3, seed=5))


@spec
class BadConfig:
    """Breaks what can be broken."""

    latent_dim: int = 4
    """Numbers in a code."""
    steps: int = 3


@pytest.fixture
def bad():
    """A family that breaks many laws, registered only as long as the test runs."""

    class Bad(Encodes, Scores, family="bad"):
        Config = BadConfig
        presets = {"default": Preset(BadConfig())}

        def __init__(self, config, shape, classes=()):
            super().__init__(config, shape, classes)
            self.layer, self.unused = nn.Linear(4, self.shape.size), nn.Parameter(torch.zeros(1))

        def players(self):
            return {"model": Player(self.layer, lambda batch: {"loss": self.layer.weight.square().sum(1)})}

        def decode(self, z, y=None):
            return 3 * self.layer(z - z.mean(0)).unflatten(1, self.shape)

        def prior(self, n, y, generator):
            return torch.randn(n, 4)

        def codes(self, batch):
            return batch.x.flatten(1)[:, :4]

        def encode(self, x, y=None):
            return (x.flatten(1) @ self.layer.weight)[:, :3]

        def score(self, x, y=None):
            return self.codes(self.given(x, y)).sum(1) + torch.rand(len(x))

    yield Case("bad", None)
    GenerativeModel.families.pop("bad")


@pytest.mark.parametrize(
    ("law", "words"),
    [
        ("hyperparameters_are_declared", "BadConfig has steps, as Training has: give other names"),
        ("hyperparameters_are_declared", "BadConfig says nothing of steps: write a docstring below each field"),
        ("players_share_out_the_parameters", "the parameter unused is moved by no player"),
        ("losses_reach_all_parameters", "has the shape (64,): take its mean over the batch"),
        ("losses_reach_all_parameters", "gives no finite gradient to bias: use them in it, or remove them"),
        ("thirty_steps_lower_the_loss", "it could not be asked: RuntimeError: grad can be implicitly created only for"),
        ("samples_are_images", "`sample` gives images outside [-1, 1]: end `decode` or `draw` with torch.tanh"),
        ("samples_are_addressed", "two calls with one seed differ: take all randomness from the generator"),
        ("samples_do_not_see_each_other", "samples change with those drawn beside them"),
        ("using_a_model_leaves_no_trace", "`sample` draws from torch's global generator"),
        ("images_are_taken_as_they_come", "`encode` got uint8 pixels and raised RuntimeError: call `self.given(x, y)`"),
        ("codes_are_those_that_samples_come_from", "`encode` gives codes of the shape (6, 3) where `prior` has (6, 4)"),
    ],
)
def test_a_broken_law_is_found_and_told_with_its_cure(bad, law, words):
    assert LAWS[law].applies(bad)
    found = LAWS[law].problems(bad)
    assert any(words in sentence for sentence in found), found
