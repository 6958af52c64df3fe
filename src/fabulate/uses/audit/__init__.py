"""Audit: may samples of a model be handed out, or do they give away the images it was trained on?

    from fabulate.uses import audit

    done = audit.run("runs/vae-photos", data, "runs/vae-photos/audit")
    print(done.cards[0])

Samples that are nearly training images are sought in `near_copies`; `examine` asks everything, whether it can be told
which images were trained on too, and `run` does what `fabulate audit` does. An audit knows the
attacks that it tries: finding nothing is no proof that there is nothing to find, as training with differential privacy
would be (Dwork, Roth 2014, https://doi.org/10.1561/0400000042).
"""

from fabulate.uses.audit.page import Done, run

__all__ = ["Done", "run"]
