"""The page of `fabulate outliers score`: how scores are spread, and the strangest images with their heat maps."""

from collections.abc import Sequence
from html import escape

import numpy as np

from fabulate.data import Data
from fabulate.evaluation.page import facts, page
from fabulate.notebooks import img
from fabulate.pictures import grid
from fabulate.uses.outliers import OutlierDetector, ranking
from fabulate.uses.outliers.conformal import percent
from fabulate.uses.outliers.learning import Progress
from fabulate.uses.outliers.ranking import Numbers, Ranking

NORMALS = 8  # images above the threshold that are shown behind the outliers, at least
BINS, WIDE, HIGH = 48, 960, 190  # of the histogram, in its own units
FAR = 4  # times the threshold: whatever scores below that is drawn there
LEGEND = (
    "The strangest first. Below each image the same in gray, red where it departs from what a model of normal images "
    f"makes of it: from {ranking.COLD:g} times what normal images do (no red) to {ranking.HOTTEST:g} times (full red)."
)


def ranking_page(
    name: str, detector: OutlierDetector, data: Data, ranked: Ranking, n: int, progress: Progress | None = None
) -> str:
    """The page: what was asked of the detector called `name`, what was found, and `n` of the strangest images."""
    found = int(ranked.outliers.sum())
    told = [
        ("images", f"{len(ranked.scores):,}"),
        ("outliers", f"{found:,} ({found / len(ranked.scores):.1%})"),
        ("false alarms expected", f"{percent(detector.false_alarm_)} of normal images"),
        ("held-out normals", f"{len(detector.normals_):,}"),
        ("scores", ", ".join(detector.names_)),
        ("detector", name),
    ]
    below = ranked.order[: min(found, n)]
    above = ranked.order[found : found + max(n - found, NORMALS)]
    shown = np.concatenate([below, above])
    pictures = dict(zip(shown.tolist(), cards(detector, data, ranked, shown, progress), strict=True))
    left = f"; {found - len(below):,} more are in outliers.csv" if found > len(below) else ""
    line = (
        f"Threshold: score {detector.threshold_:.4g}. The {found:,} images before this line score lower and are called "
        f"outliers{left}; those behind it are not."
    )
    body = (
        f'<p class="eyebrow">fabulate outliers</p><h1>{escape(data.name)}</h1><section>{facts(told)}</section>'
        f"<section><h2>Scores</h2>{histogram(ranked.scores, detector)}</section>"
        f'<section><h2>The strangest images</h2><p class="soft">{escape(LEGEND)}</p><div class="cards">'
        + "".join(pictures[i] for i in below.tolist())
        + f'<p class="threshold">{escape(line)}</p>'
        + "".join(pictures[i] for i in above.tolist())
        + f"</div></section><section><h2>The same as a table</h2>{table(ranked, shown)}</section>"
    )
    return page(f"Outliers of {data.name}", body)


def cards(
    detector: OutlierDetector, data: Data, ranked: Ranking, shown: np.ndarray, progress: Progress | None
) -> list[str]:
    """Each image above its heat map, with its name, class and score."""
    x, found = ranking.pixels(data)[shown], []
    for i, image in zip(shown.tolist(), x, strict=True):
        colour = image if len(image) == 3 else image.repeat(3, axis=0)
        heat = ranking.painted(image[None], detector.heat_maps(image[None]))[0]
        own = f"<div>{escape(ranked.classes[i])}</div>" if ranked.classes[i] else ""
        picture = img(grid(np.stack([colour, heat]), columns=1), f"{ranked.names[i]} and its heat map")
        found.append(
            f"<figure>{picture}<figcaption><b>{escape(ranked.names[i])}</b>{own}<div>score {ranked.scores[i]:.4g}, "
            f"p {ranked.p_values[i]:.2g}</div></figcaption></figure>"
        )
        if progress is not None:
            progress(len(found), len(shown))
    return found


def histogram(scores: Numbers, detector: OutlierDetector) -> str:
    """How many images score what, beside the held-out normals, with a line at the threshold."""
    least = min(float(scores.min()), float(detector.normals_.min()))
    low, high = max(least, FAR * detector.threshold_), max(float(scores.max()), float(detector.normals_.max()))
    edges = np.linspace(low, max(high, low + 1e-9), BINS + 1)
    shares = [np.histogram(np.clip(of, low, edges[-1]), edges)[0] / len(of) for of in (scores, detector.normals_)]
    top, width, floor = max(float(share.max()) for share in shares), WIDE / BINS, HIGH - 26

    def at(score: float) -> float:
        return WIDE * (score - low) / (edges[-1] - low)

    bars = "".join(
        f'<rect class="{kind}" x="{i * width + 1:.1f}" y="{floor - (floor - 20) * share / top:.1f}" '
        f'width="{width - 2:.1f}" height="{(floor - 20) * share / top:.1f}"></rect>'
        for kind, of in zip(("judged", "normals"), shares, strict=True)
        for i, share in enumerate(of)
        if share
    )
    x = at(detector.threshold_)
    words = f"threshold {detector.threshold_:.4g}"
    beside = f'x="{x + 6:.1f}"' if x < WIDE / 2 else f'x="{x - 6:.1f}" text-anchor="end"'
    ends = f"{low:.3g}{' and less' if least < low else ''}", f"{edges[-1]:.3g}"
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDE} {HIGH}" role="img"><title>Scores, and the {escape(words)}</title>'
        f'{bars}<rect class="axis" y="{floor}" width="{WIDE}" height="1"></rect>'
        f'<rect class="at" x="{x - 1:.1f}" y="4" width="2" height="{floor - 4}"></rect>'
        f'<text {beside} y="14">{escape(words)}</text>'
        f'<text x="0" y="{HIGH - 8}">{escape(ends[0])}</text>'
        f'<text x="{WIDE}" y="{HIGH - 8}" text-anchor="end">{escape(ends[1])}</text>'
        f'<text x="{WIDE / 2}" y="{HIGH - 8}" text-anchor="middle">score, mean log p: higher is more normal</text>'
        '</svg><p class="soft"><span class="key judged"></span> these images <span class="key normals"></span> normal '
        "images held out of the fit; shares of each. Left of the line: outliers.</p>"
    )


def table(ranked: Ranking, shown: Sequence[int] | np.ndarray) -> str:
    """Rank, name, class, score, p-value and verdict of some images."""
    known = any(ranked.classes)
    rows = [row("th", ["rank", "image", *(["class"] if known else []), "score", "p-value", "outlier"])]
    place = {i: k for k, i in enumerate(ranked.order.tolist(), start=1)}
    for i in np.asarray(shown).tolist():
        called = [ranked.names[i], ranked.classes[i]] if known else [ranked.names[i]]
        verdict = "yes" if ranked.outliers[i] else "no"
        rows.append(
            row("td", [str(place[i]), *called, f"{ranked.scores[i]:.4g}", f"{ranked.p_values[i]:.3g}", verdict])
        )
    return f'<div class="wide"><table><thead>{rows[0]}</thead><tbody>{"".join(rows[1:])}</tbody></table></div>'


def row(kind: str, cells: Sequence[str]) -> str:
    """A row of a table, its cells of the kind th or td."""
    return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"
