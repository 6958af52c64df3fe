"""Scouts: failures far out, which show modes that the levels of g hide.

Where g rises slowly to one mechanism and steeply to another, all levels below the threshold follow the slow one: the
other is as rare at each of them as at the threshold, and rounds that climb never meet it. Draws of N(0, 9 I) fail by
either. They are too far out to estimate anything by, but those that a proposal does not cover, q < p, are points of a
mode that it is blind to. In the directions in which they differ from noise they keep their places, weighted by p over
the density that they came from; in the others they tell nothing, and p itself draws. The next proposal takes a share of
its points from there: if they fail, every later fit knows the mode, and if not, no more than this share is lost.

Legend: M scouts, D dimensions, R directions.
"""

from math import log

import torch
from torch import Tensor

from fabulate.prob import effective_size, systematic
from fabulate.seeds import generator
from fabulate.uses.rare.calls import Calls
from fabulate.uses.rare.proposal import Proposal, SubspaceMixture, fit_t_mixture, signal_subspace

WIDE = 3.0  # standard deviations of a scout's draw
PART = 40  # of so many calls one is a scout's
FEWEST = 10  # failures that a mode is learnt from
WORTH = 25  # effective points that it is learnt from at least: nearer to the centre they are likelier, and fewer
SHARE = 0.3  # of a proposal's draws


def scouts(calls: int) -> int:
    """How many of a budget of calls are scouts.

    >>> scouts(40_000), scouts(300)
    (1000, 0)
    """
    return calls // PART if calls // PART >= FEWEST else 0


def failed_scouts(ask: Calls, dim: int, threshold: float, n: int, seed: int) -> Tensor:
    """Those of n draws of N(0, 9 I) that fail (M, D)."""
    chance = generator(seed, "rare", "scouts")
    x = WIDE * torch.randn(n, dim, generator=chance, dtype=torch.float64)
    if not n:
        return x
    g, _ = ask(x.numpy())
    return x[torch.from_numpy(g) > threshold]


def scouting(proposal: Proposal, scouts: Tensor, chance: torch.Generator) -> Proposal:
    """A proposal that also looks where failed scouts (M, D) show modes that it does not cover."""
    other = missed(scouts, proposal, chance)
    return proposal if other is None else Either(proposal, other)


def missed(scouts: Tensor, proposal: Proposal, chance: torch.Generator) -> Proposal | None:
    """A density of the modes that failed scouts (M, D) show and a proposal does not cover, if there are any."""
    x = scouts[proposal.log_ratio(scouts) < 0]
    if len(x) < FEWEST:
        return None
    even = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    basis, _ = signal_subspace(x / WIDE, even)
    if not basis.shape[1]:
        return None
    z = x @ basis
    ratio = -z.square().sum(1) / 2 * (1 - WIDE**-2)  # log of p over their density, in these directions
    low, high, enough = 0.0, 1.0, min(WORTH, len(x) / 2)
    for _ in range(20):  # the largest power of it that leaves enough effective points
        power = (low + high) / 2
        if effective_size((power * ratio).softmax(0)) >= enough:
            low = power
        else:
            high = power
    weights = (low * ratio).softmax(0)
    rows = systematic(weights, max(WORTH, int(effective_size(weights))), chance)
    return SubspaceMixture(basis, 1.0, fit_t_mixture(z[rows], chance))


class Either:
    """Draws of one proposal, and a share of another's."""

    def __init__(self, first: Proposal, second: Proposal, share: float = SHARE) -> None:
        self.first, self.second, self.share = first, second, share

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        few = round(self.share * n)
        return torch.cat([self.first.draw(n - few, generator), self.second.draw(few, generator)])

    def log_ratio(self, x: Tensor) -> Tensor:
        return torch.logaddexp(
            self.first.log_ratio(x) + log(1 - self.share), self.second.log_ratio(x) + log(self.share)
        )
