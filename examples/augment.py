"""Are more images of rare digits worth anything? Eight ways to train one classifier on images it never saw.

python examples/augment.py
"""

import numpy as np
from imblearn.pipeline import make_pipeline
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

import fabulate
from fabulate import GenerativeOverSampler
from fabulate.data import Images
from fabulate.uses.augment import NAMES, Proof, prove, verdict

RARE = {8: 12, 9: 12}  # images that are left of these digits


def main(steps: int = 1000, seeds: int = 3) -> Proof:
    data = fabulate.load_data("digits")
    keep = np.concatenate([np.flatnonzero(data.train.y == k)[: RARE.get(k)] for k in range(10)])
    real = Images(data.train.x[keep], data.train.y[keep])

    # As a step of an imbalanced-learn pipeline: rows in, rows out.
    over = GenerativeOverSampler(
        sampling_strategy={8: 80, 9: 80}, image_shape=real.shape, hyperparameters={"steps": steps}
    )
    model = make_pipeline(over, LogisticRegression(max_iter=3000))
    rows, test_rows = real.x.reshape(len(real), -1), data.test.x.reshape(len(data.test), -1)
    for name, tried in (("plain", model[-1:]), ("with more", model)):
        found = tried.fit(rows, real.y).predict(test_rows)
        print(f"logistic regression, {name}: balanced accuracy {balanced_accuracy_score(data.test.y, found):.3f}")

    # And whether that is more than chance, and more than what is free: a convolutional network, trained in eight ways.
    x, y = over.fit_resample(rows, real.y)
    more = Images(x[len(rows) :].reshape(-1, *real.shape), y[len(rows) :])
    proof = prove(real, more, data.test, data.classes, seeds=seeds)
    for name in NAMES:
        print(f"{name:10} {proof.sizes[name]:5} images   balanced accuracy {proof.accuracy(name)}")
    print(*verdict(proof).sentences, sep="\n")
    return proof


if __name__ == "__main__":
    main()
