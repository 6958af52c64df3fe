"""Our Adam against torch's: the same weights to the last bit, and states that either can continue."""

import copy

import pytest
import torch

from fabulate.training.adam import Adam

SHAPES = [(5, 3), (7,), (2, 3, 3, 3)]
RATES = [1e-2, 3e-3, 3e-3, 1e-3, 1e-1, 2e-4]
BETAS = (0.5, 0.99)


@pytest.fixture(params=[torch.float32, torch.float64])
def parameters(request):
    """Parameters, the last of them with channels last in memory."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator, dtype=request.param) for shape in SHAPES]
    tensors[-1] = tensors[-1].contiguous(memory_format=torch.channels_last)
    return [torch.nn.Parameter(tensor) for tensor in tensors]


def gradients(parameters, step):
    """Gradients of a step, laid out as the parameters are."""
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator)).detach() for p in parameters]


def by_torch(optimizer, parameters, step):
    for p, gradient in zip(parameters, gradients(parameters, step), strict=True):
        p.grad = gradient
    optimizer.param_groups[0]["lr"] = RATES[step]
    optimizer.step()


def test_moves_as_torch_does_and_continues_what_torch_began_and_the_other_way(parameters):
    theirs = copy.deepcopy(parameters)
    optimizer = torch.optim.Adam(theirs, betas=BETAS, fused=True)
    adam = Adam(parameters, BETAS)
    for step in range(2):
        by_torch(optimizer, theirs, step)
        adam.update(gradients(parameters, step), RATES[step])
    assert all(map(torch.equal, parameters, theirs))
    adam = Adam(parameters, BETAS)
    adam.restore(copy.deepcopy(optimizer.state_dict()))
    for step in range(2, 4):
        by_torch(optimizer, theirs, step)
        adam.update(gradients(parameters, step), RATES[step])
    assert all(map(torch.equal, parameters, theirs))
    other = torch.optim.Adam(theirs, betas=BETAS, fused=True)
    other.load_state_dict({**other.state_dict(), **copy.deepcopy(adam.state())})
    for step in range(4, 6):
        by_torch(other, theirs, step)
        adam.update(gradients(parameters, step), RATES[step])
    assert all(map(torch.equal, parameters, theirs))


def test_a_dropped_update_changes_nothing_and_does_not_count(parameters):
    adam = Adam(parameters, BETAS)
    adam.update(gradients(parameters, 0), 1e-2, torch.tensor(0.0))
    before = copy.deepcopy((parameters, adam.state()))
    bad = [torch.full_like(p, torch.nan) for p in parameters]
    adam.update(bad, 1e-2, torch.tensor(1.0))
    assert all(map(torch.equal, parameters, before[0]))
    for i, of_one in adam.state()["state"].items():
        assert all(torch.equal(of_one[name], before[1]["state"][i][name]) for name in of_one)
    assert {float(count) for count in adam.counts} == {1.0}


def test_a_parameter_without_gradient_stands_still(parameters):
    adam, still = Adam(parameters, BETAS), parameters[1].detach().clone()
    adam.update([g if i != 1 else None for i, g in enumerate(gradients(parameters, 0))], 1e-2)
    assert torch.equal(parameters[1], still)
    assert not adam.means[1].any()
