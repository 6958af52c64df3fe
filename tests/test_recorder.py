"""Records: equal where the same code would serve two functions, and only there."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from fabulate.training.recorder import Recorder

X, W = torch.linspace(-1, 1, 6).reshape(2, 3), torch.linspace(1, 2, 3)
FACTORS = torch.tensor([1.0, 2.0, 3.0])


def digest(function, *given: Tensor) -> str:
    with Recorder(given) as recorder:
        result = function(*given)
    return recorder.digest(recorder.word(result))


def slope(x: Tensor, w: Tensor, power: float = 2.0, factors: Tensor = FACTORS) -> Tensor:
    w = w.detach().requires_grad_()
    return torch.autograd.grad(((x * w * factors).tanh() ** power).sum(), [w])[0]


def test_a_record_does_not_depend_on_values():
    assert digest(slope, X, W) == digest(slope, X + 1, 3 * W) == digest(slope, X.clone(), W)


@pytest.mark.parametrize(
    ("other", "given"),
    [
        (lambda x, w: slope(x, w, 3.0), (X, W)),
        (lambda x, w: slope(x, w, 2.0, FACTORS + 1), (X, W)),  # a constant
        (lambda x, w: slope(w, w), (X, W)),  # the same operations on something else
        (lambda x, w: (slope(x, w), w)[1], (X, W)),  # another of the tensors is the result
        (lambda x, w: slope(x, w) + torch.rand(3), (X, W)),
        (slope, (X[:1], W)),
        (slope, (X.T.contiguous().T, W)),  # lies in memory otherwise
        (slope, (X.double(), W.double())),
    ],
    ids=["number", "constant", "input", "result", "noise", "shape", "layout", "kind"],
)
def test_records_tell_functions_apart(other, given):
    assert digest(other, *given) != digest(slope, X, W)


def test_what_is_moved_in_place_is_the_same_tensor():
    def running(x: Tensor, mean: Tensor) -> Tensor:
        return mean.mul_(0.9).add_(x.mean(0))

    def apart(x: Tensor, mean: Tensor) -> Tensor:
        return mean.mul(0.9).add(x.mean(0))

    assert digest(running, X, W.clone()) == digest(running, X, W.clone()) != digest(apart, X, W)


def test_recording_does_not_load_torchs_compiler():
    words = "import sys, torch; from fabulate.training.recorder import Recorder\n"
    words += "with Recorder([]): torch.ones(3).requires_grad_().sum().backward()\n"
    words += "assert 'torch._dynamo' not in sys.modules and 'sympy' not in sys.modules"
    subprocess.run([sys.executable, "-c", words], check=True)
