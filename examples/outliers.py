"""Which of these handwritten digits is no three? Learn threes alone, then find the strays among unseen ones.

python examples/outliers.py
"""

from pathlib import Path
from typing import Any

import numpy as np

import fabulate
from fabulate.pictures import grid, save_png

STRAYS = 12  # other digits that somebody filed with the threes


def filed() -> tuple[Any, Any, Any]:
    """Threes to learn from, a folder's worth of images, and which of those are strays."""
    images = fabulate.load_data("digits").train
    threes, others = images.x[images.y == 3], images.x[images.y != 3]
    places = np.random.default_rng(0).permutation(len(threes))
    learnt, unseen = threes[places[:110]], threes[places[110:]]
    strays = others[np.random.default_rng(1).choice(len(others), STRAYS, replace=False)]
    return learnt, np.concatenate([unseen, strays]), np.arange(len(unseen) + STRAYS) >= len(unseen)


def main(out: Path = Path("runs/strays.png")) -> float:
    learnt, folder, strays = filed()
    detector = fabulate.OutlierDetector(false_alarm=0.05).fit(learnt)
    scores = detector.score_samples(folder)  # higher = more normal
    called = detector.predict(folder) == -1
    rate = detector.false_alarm_
    print(f"{len(learnt)} threes learnt; of unseen ones {rate.value:.1%} will be called outliers", end=" ")
    print(f"({rate.low:.1%} to {rate.high:.1%})")
    print(f"strays called outliers: {called[strays].sum()} of {STRAYS}")
    print(f"threes called outliers: {called[~strays].sum()} of {(~strays).sum()}")

    strangest = np.argsort(scores)[:STRAYS]
    out.parent.mkdir(parents=True, exist_ok=True)
    save_png(grid(folder[strangest], columns=STRAYS), out)
    found = float(strays[strangest].mean())
    print(f"of the {STRAYS} strangest images {found:.0%} are strays: {out}")
    return found


if __name__ == "__main__":
    main()
