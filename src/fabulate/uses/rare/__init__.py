"""How likely is a rare event, of a simulator or among the images of a model? And what does it look like?

    from fabulate import rare

    event = rare.estimate(simulator, dim=100, threshold=3.5)
    print(event)                        # 0.000935 (0.000922 to 0.000949) from 40000 calls

    found = rare.tail(model, rare.brightness, quantile=1e-3, n=64)
    print(found.event)                  # the same, for images; found.images, found.weights

Plain simulation needs 100 / P calls for a standard error of 10 %: a million for P = 1e-4. Importance sampling draws
from a proposal q under which failures are frequent, and weights each by what it is worth: the mean of
1{g(x) > threshold} p(x) / q(x) is P whatever q is, and its error small when q resembles p among the failures. Here q
is a generative model that learns them: the cross-entropy method, level by level (`adaptive`), with a model that looks
for the few directions that matter and for the modes in them (`proposal`). For images the simulator is a model's decoder
and a score of what it draws (`simulator`, `tail`); `run` does what the verb does.

Read the warnings: with too few failures, rounds that disagree, or a threshold out of reach, the interval promises too
much. One danger no method sees from samples: a mode of failures that nothing hints at on the lower levels.
"""

from fabulate.uses.rare.event import RareEvent
from fabulate.uses.rare.folder import run
from fabulate.uses.rare.methods import estimate
from fabulate.uses.rare.proposal import Fit, Proposal, subspace_mixture
from fabulate.uses.rare.tail import Tail, along, brightness, darkness, odds, surprise, tail

__all__ = [
    "Fit",
    "Proposal",
    "RareEvent",
    "Tail",
    "along",
    "brightness",
    "darkness",
    "estimate",
    "odds",
    "run",
    "subspace_mixture",
    "surprise",
    "tail",
]
