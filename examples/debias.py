"""Digits whose colour nearly always goes along with them: a classifier learns the colour, until images are recoloured.

python examples/debias.py
"""

import numpy as np

from fabulate import Debiaser, Images, load_data
from fabulate.uses.debias import proof

COLOURS = np.array(
    [
        *([220, 20, 60], [0, 128, 0], [30, 60, 220], [230, 200, 0], [240, 120, 0]),
        *([140, 20, 160], [0, 190, 200], [240, 50, 230], [150, 150, 150], [160, 90, 30]),
    ]
)
WITH_DIGIT = 0.95  # of the training images have the colour of their digit


def painted(images: Images, colour: np.ndarray) -> Images:
    """Gray images (N, 1, H, W) in the colours numbered (N,)."""
    return Images(np.rint(images.x * (COLOURS[colour] / 255)[:, :, None, None]).astype(np.uint8), images.y)


def main(steps: int = 1000, classifier_steps: int = 300) -> dict[str, float]:
    data = load_data("digits")
    chance = np.random.default_rng(0)
    own, any_colour = data.train.y, chance.integers(0, 10, len(data.train))
    colour = np.where(chance.random(len(own)) < WITH_DIGIT, own, any_colour)
    train = painted(data.train, colour)
    test = painted(data.test, chance.integers(0, 10, len(data.test)))  # in any colour

    debiaser = Debiaser(steps=steps).fit(train)  # is not told a colour
    against = debiaser.weights_[colour != own].sum() / debiaser.weights_.sum()
    print(f"{np.mean(colour != own):.1%} of the images have the colour of another digit; by weight {against:.0%}")

    found = {}
    for name, show in proof.ways(train, debiaser).items():
        classifier = proof.teach(train, data.classes, show, steps=classifier_steps)
        found[name] = proof.tested(classifier, test, np.ones(len(test)), data.classes, None).overall.value
        print(f"{name:10} {found[name]:.1%} of the test images, whose colours tell nothing")
    return found


if __name__ == "__main__":
    main()
