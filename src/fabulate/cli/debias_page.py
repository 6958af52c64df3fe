"""The page of `fabulate debias`: what varies, who is rare in its class, and what weights or new images change."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from fabulate.evaluation.page import answers, facts, figure, page
from fabulate.metrics.intervals import Estimate
from fabulate.pictures import grid
from fabulate.report import Card as Answer
from fabulate.uses.debias import Debiaser, Factor
from fabulate.uses.debias.filling import Filled
from fabulate.uses.debias.proof import Proof
from fabulate.uses.debias.verdict import verdicts
from fabulate.uses.debias.weights import effective

WAYS = {
    "plain": "as it is",
    "weights": "by weight",
    "recolour": "recoloured",
    "generated": "with generated images",
}
SHOWN = 10  # pairs in a row of generated images


def sentence(debiaser: Debiaser) -> str:
    """What was found, in a line."""
    weights = debiaser.weights_
    return (
        f"{' and '.join(debiaser.chosen_)}: made independent of the class, {len(weights):,} images teach like "
        f"{effective(weights):,.0f}; one counts {weights.max() / np.median(weights):.3g} times a usual one at most"
    )


def of_codes(
    name: str, debiaser: Debiaser, factors: Image.Image, recoloured: Image.Image, proofs: Mapping[str, Proof]
) -> str:
    """The page of weights by codes."""
    weights = debiaser.weights_
    told = [
        ("images", f"{len(weights):,}"),
        ("made independent of the class", ", ".join(debiaser.chosen_)),
        ("density of codes", debiaser.density),
        ("images teach like", f"{effective(weights):,.0f} of equal weight"),
        ("largest weight", f"{weights.max() / np.median(weights):.3g} times the median"),
    ]
    caption = (
        "Each row is a factor of variation. On the left images from both its ends, on the right those it makes rare in "
        "their class though they are common in others: a bias shows where they look as they should, and are few."
    )
    body = (
        f'<p class="eyebrow">fabulate debias</p><h1>{escape(name)}</h1>{verdict_cards(proofs)}'
        + f"<section>{facts(told)}</section>{proof_section(proofs)}"
        + f'<section><h2>What varies, and who is rare</h2><div class="pictures">{figure(caption, factors)}</div>'
        + f"{factor_table(debiaser.factors_)}</section><section><h2>The same images, recoloured</h2>"
        + '<div class="pictures">'
        + figure("Below each image the same with the factor of another, drawn at random.", recoloured)
        + "</div></section>"
    )
    return page(f"Bias in {name}", body)


def of_pairs(name: str, filled: Filled, classes: Sequence[str], proofs: Mapping[str, Proof]) -> str:
    """The page of filled-up pairs."""
    made = len(filled.images) - filled.real
    told = [("real images", f"{filled.real:,}"), ("generated", f"{made:,}")]
    if filled.absent:
        pairs = ", ".join(f"{classes[k]} {a}" for k, a in filled.absent[:8])
        more = f" and {len(filled.absent) - 8} more" if len(filled.absent) > 8 else ""
        told.append(("pairs without any image, not generated", pairs + more))
    pictures = ""
    if made:
        step = max(1, made // (4 * SHOWN))
        shown = filled.images.x[filled.real :: step][: 4 * SHOWN]
        picture = figure("Drawn for pairs of class and attribute that were rare.", grid(shown, columns=SHOWN))
        pictures = f'<section><h2>Generated images</h2><div class="pictures">{picture}</div></section>'
    body = (
        f'<p class="eyebrow">fabulate debias</p><h1>{escape(name)}</h1>{verdict_cards(proofs)}'
        f"<section>{facts(told)}</section>{proof_section(proofs)}{pictures}"
    )
    return page(f"Bias in {name}", body)


QUESTIONS = {
    "weights": "Teach by weight?",
    "recolour": "Teach with recoloured images?",
    "generated": "Teach with generated images?",
}


def verdict_cards(proofs: Mapping[str, Proof]) -> str:
    """What to do, first of all; that nobody knows, where nothing was tested."""
    if not proofs:
        because = (
            "No classifier was tested, so nobody knows what this changes: it takes test images, and steps for them."
        )
        return answers([Answer("Does it help?", "not tested", because, "unknown")])
    return answers(Answer(QUESTIONS[way], *said) for way, said in verdicts(proofs).items())


def proof_section(proofs: Mapping[str, Proof]) -> str:
    """Accuracies of classifiers side by side: over all test images, where the bias is undone, and in each group."""
    if not proofs:
        return ""
    all_proofs = list(proofs.values())
    rows = [
        ("all test images", [found.overall for found in all_proofs]),
        ("weighted, as if nothing went along with the class", [found.unbiased for found in all_proofs]),
    ]
    first = all_proofs[0]
    if first.pairs:
        balanced = [found.balanced for found in all_proofs]
        rows.append(("mean over pairs of class and group", [one for one in balanced if one is not None]))
        worst = [found.worst for found in all_proofs]
        rows.append(("the worst pair", [one[1] for one in worst if one is not None]))
    rows += [(f"group {group}", [found.groups[group] for found in all_proofs]) for group in first.groups]
    lines = "".join(
        f"<tr><td>{escape(what)}</td>{''.join(f'<td>{percent(one)}</td>' for one in values)}</tr>"
        for what, values in rows
    )
    head = "".join(f"<th>{escape(WAYS[way])}</th>" for way in proofs)
    return (
        "<section><h2>Before and after</h2><p>Accuracy on test images of the same classifier, taught on the images as "
        "they are and in other ways; 95 % intervals.</p>"
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
        "</section>"
    )


def factor_table(factors: Sequence[Factor]) -> str:
    """What each factor tells of the class, and between environments."""
    tested = any(factor.p_value is not None for factor in factors)
    lines = "".join(
        f"<tr><td><b>{escape(one.name)}</b></td><td>{one.bits:.3f}</td><td>{one.against:,}</td>"
        + (f"<td>{one.failure:.5f}</td><td>{one.p_value:.2g}</td>" if tested else "")
        + "</tr>"
        for one in factors
    )
    more = "<th>bits by which that differs between environments</th><th>p-value</th>" if tested else ""
    head = f"<tr><th>factor</th><th>bits it tells of the class</th><th>images against their class</th>{more}</tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{lines}</tbody></table></div>'


def percent(rate: Estimate) -> str:
    """An accuracy with its interval.

    >>> percent(Estimate(0.5, 0.4, 0.6))
    '50.0 % (40.0 to 60.0)'
    """
    return f"{100 * rate.value:.1f} % ({100 * rate.low:.1f} to {100 * rate.high:.1f})"
