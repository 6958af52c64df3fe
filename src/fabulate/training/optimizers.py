"""What moves the weights: Adam, or Muon for the matrices between features and Adam for the rest.

Both take gradients that lie in memory as their parameters do, change nothing where an update is to be dropped, and give
a state from which training continues to the bit.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from fabulate.config import Training
from fabulate.nets.blocks import Condition

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # five steps of this quintic bring singular values between 0.7 and 1.2
ITERATIONS = 5
FASTER = 10  # times Adam's learning rate: 0.02 beside 2e-3, as its authors use it


def optimizer_of(module: nn.Module, training: Training) -> "Adam | Muon":
    """The optimiser that a training asks for, of all parameters of a module."""
    parameters = list(module.parameters())
    if training.optimizer == "adam":
        return Adam(parameters, training.betas)
    return Muon(parameters, inner(module), training.betas)


class Adam:
    """Adam (Kingma, Ba 2015, https://arxiv.org/abs/1412.6980), all parameters of a player in one operation.

    It is `torch.optim.adam.adam(fused=True)`. The class `torch.optim.Adam` is not used because making one loads torch's
    compiler: a second of every start.

    >>> p = torch.tensor([1.0, 1.0])
    >>> Adam([p], betas=(0.9, 0.999)).update([torch.tensor([5.0, -0.1])], rate=0.25)
    >>> p
    tensor([0.7500, 1.2500])
    """

    def __init__(self, parameters: Sequence[Tensor], betas: tuple[float, float]) -> None:
        self.parameters, self.betas = parameters, betas
        self.means = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.counts = [torch.zeros((), device=p.device) for p in parameters]  # of updates

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor | None], rate: float, dropped: Tensor | None = None) -> None:
        """One update; gradients lie in memory as their parameters do, and one without (None) stands still.

        Where `dropped` (0-d, on the device) is 1, nothing changes.
        """
        each = zip(self.parameters, gradients, self.means, self.squares, self.counts, strict=True)
        moved = [some for some in each if some[1] is not None]
        parameters, given, means, squares, counts = (list(column) for column in zip(*moved, strict=True))
        beta1, beta2 = self.betas
        fused = partial(adam, fused=True, amsgrad=False, maximize=False, weight_decay=0.0, eps=1e-8)
        fused(parameters, given, means, squares, [], counts, found_inf=dropped, lr=rate, beta1=beta1, beta2=beta2)

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs, in the words of `torch.optim.Adam`."""
        each = zip(self.counts, self.means, self.squares, strict=True)
        return {"state": {i: {"step": n, "exp_avg": m, "exp_avg_sq": s} for i, (n, m, s) in enumerate(each)}}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state. Errors: `KeyError` or `ValueError` where it does not cover every parameter."""
        if [*state["state"]] != [*range(len(self.means))]:
            raise ValueError(f"it tells of {len(state['state'])} parameters, and there are {len(self.means)}")
        for i, saved in state["state"].items():
            for name, own in (("step", self.counts[i]), ("exp_avg", self.means[i]), ("exp_avg_sq", self.squares[i])):
                if own.shape != saved[name].shape:
                    raise ValueError(f"parameter {i} is {tuple(own.shape)}, and {tuple(saved[name].shape)} was saved")
                own.copy_(saved[name])


def inner(module: nn.Module) -> set[int]:
    """Numbers of the parameters that Muon moves: the weights of linear and convolutional layers between features.

    Not so the first and the last layer, which read and write the numbers of an image, nor what embeds time and class:
    on MNIST these make it worse (docs/LOG.md).

    >>> inner(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)))
    {2}
    """
    embedding = {layer for part in module.modules() if isinstance(part, Condition) for layer in part.modules()}
    layers = [layer for layer in module.modules() if isinstance(layer, LAYERS) and layer not in embedding]
    weights = {id(layer.weight) for layer in layers[1:-1]}
    return {i for i, parameter in enumerate(module.parameters()) if id(parameter) in weights}


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest matrices (N, R, C), R <= C, whose singular values are all about 1, by Newton and Schulz's iteration.

    >>> [round(float(s), 1) for s in orthogonalised(torch.diag(torch.tensor([5.0, 0.5]))[None])[0].diagonal()]
    [0.7, 0.7]
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


class Muon:
    """Momentum whose direction is orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    A gradient's few large singular directions would else drown the rest; here each matrix of the network moves alike in
    all of them. A convolution's weight is a matrix of its output channels by all it reads; one that has more outputs
    than inputs moves sqrt(outputs / inputs) times as far. `inner`: numbers of the parameters it moves, at 10 times the
    learning rate of Adam, which moves the others. (`torch.optim.Muon` takes no convolutions.)
    """

    def __init__(self, parameters: Sequence[Tensor], inner: set[int], betas: tuple[float, float]) -> None:
        self.inner = sorted(inner)
        self.parameters = [parameters[i] for i in self.inner]
        self.momenta = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.outer = [i for i in range(len(parameters)) if i not in inner]
        self.adam = Adam([parameters[i] for i in self.outer], betas)

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor | None], rate: float, dropped: Tensor | None = None) -> None:
        """One update; see `Adam`."""
        self.adam.update([gradients[i] for i in self.outer], rate, dropped)
        keep = 1.0 if dropped is None else 1.0 - dropped
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}  # each parameter and its direction, R <= C
        for i, parameter, momentum in zip(self.inner, self.parameters, self.momenta, strict=True):
            if (gradient := gradients[i]) is None:
                continue
            finite = gradient if dropped is None else torch.where(dropped > 0, momentum, gradient)
            momentum.lerp_(finite, 1 - MOMENTUM)
            direction = finite.lerp(momentum, MOMENTUM).flatten(1)
            wide = direction if len(direction) <= direction.shape[1] else direction.mT
            by_shape.setdefault((wide.shape[0], wide.shape[1]), []).append((parameter, wide))
        for (rows, columns), pairs in by_shape.items():
            moves = orthogonalised(torch.stack([wide for _, wide in pairs])) * (keep * -rate * FASTER)
            for (parameter, _), move in zip(pairs, moves, strict=True):
                moved = move if len(parameter) == rows else (columns / rows) ** 0.5 * move.mT
                parameter.add_(moved.reshape(parameter.shape))

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs."""
        return {**self.adam.state(), "momentum": dict(enumerate(self.momenta))}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state. Errors: `KeyError` or `ValueError` where it does not cover every parameter."""
        self.adam.restore(state)
        if [*state["momentum"]] != [*range(len(self.momenta))]:
            raise ValueError(f"it tells of {len(state['momentum'])} momenta, and there are {len(self.momenta)}")
        for i, momentum in enumerate(self.momenta):
            if momentum.shape != state["momentum"][i].shape:
                raise ValueError(f"momentum {i} is {tuple(momentum.shape)}, and another shape was saved")
            momentum.copy_(state["momentum"][i])
