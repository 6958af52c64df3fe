"""Balance biased images: find who is rare in its class, without labels of the bias, and make up for it.

    from fabulate import Debiaser

    debiaser = Debiaser().fit(data.train)
    debiaser.weights_                               # (N,), how much each image has to count
    DataLoader(images, sampler=debiaser.sampler())  # for a training of your own
    debiaser.recoloured(x)                          # (B, C, H, W), the same images in the colours of others

How codes become densities and densities weights is told in `densities`; what the codes are, in `recolour`; `run` and
`run_pairs` do what `fabulate debias` does.
"""

from fabulate.uses.debias.debiaser import Debiaser
from fabulate.uses.debias.factors import Factor
from fabulate.uses.debias.page import run, run_pairs

__all__ = ["Debiaser", "Factor", "run", "run_pairs"]
