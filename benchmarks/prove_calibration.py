"""How often `prove` says "yes" where nothing differs, and how often it finds a gain: the numbers of docs/augment.md.

python benchmarks/prove_calibration.py     # some 10 minutes of one core

scikit-learn's digits with three rare classes. Classifiers of the way `balanced` are trained with 40 seeds, and as many
with more real images of the rare classes. Each trial takes five seeds for every way without synthetic images and five
others for `both`, and test images drawn with replacement: 100 trials where both are of the first kind, so that nothing
differs, and 100 where `both` is of the second, whose true gain is that of all 40.
"""

import sys

import numpy as np
import torch

from fabulate.data import Images, load_data
from fabulate.features import predict, train_classifier
from fabulate.metrics.classes import balanced_accuracy
from fabulate.seeds import generator
from fabulate.uses.augment import FREE, NAMES, Proof, verdict
from fabulate.uses.augment.page import power
from fabulate.uses.augment.proof import balanced

SEEDS, TRIALS, EACH = 40, 100, 5
RARE, MORE = 8, 20  # images of each rare class, and of each where there are more


def bank(real: Images, test: Images, classes: tuple[str, ...], steps: int) -> torch.Tensor:
    """Which test images each of many classifiers finds: bool (SEEDS, N)."""
    rows = []
    for seed in range(SEEDS):
        way = FREE["balanced"]
        classifier = train_classifier(balanced(real, real, 0), classes, seed=seed, steps=steps, change=way.change)
        rows.append(predict(classifier, test) == torch.from_numpy(test.y))
    return torch.stack(rows)


def main(steps: int = 600) -> None:
    data = load_data("digits")
    y = data.train.y
    few, more = (
        np.concatenate([np.flatnonzero(y == k)[: n if k > 6 else 100] for k in range(10)]) for n in (RARE, MORE)
    )
    banks = [bank(Images(data.train.x[rows], y[rows]), data.test, data.classes, steps) for rows in (few, more)]
    truth = torch.from_numpy(data.test.y)
    means = [
        np.mean([balanced_accuracy(truth, torch.where(row, truth, (truth + 1) % 10), 10).value for row in rows])
        for rows in banks
    ]
    for words, source, gain in (("nothing differs", 0, 0.0), ("more real images", 1, means[1] - means[0])):
        chance, said, seen = generator(0, "trials", source), [], []
        for _ in range(TRIALS):
            images = torch.cat(  # of each class as many as there are, with replacement
                [own[torch.randint(len(own), (len(own),), generator=chance)] for k in range(10)
                 for own in [(truth == k).nonzero().flatten()]]
            )  # fmt: skip
            first = torch.randperm(SEEDS, generator=chance)
            free = banks[0][first[:EACH]][:, images]
            rows = dict.fromkeys(NAMES, free) | {"both": banks[source][first[EACH : 2 * EACH]][:, images]}
            proof = Proof(data.classes, rows, truth[images], dict.fromkeys(NAMES, 0), steps)
            said.append(verdict(proof).word)
            seen.append(float(power(proof, "balanced").split()[3]))
        print(
            f"{words}: true gain {100 * gain:.2f} points; yes {said.count('yes')} of {TRIALS}; it says that it sees "
            f"{np.median(seen):.2g} points 8 times in 10",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
