"""Do synthetic images help? Six ways to train one classifier, tested on images that nothing was learnt from.

from fabulate.uses.prove import prove, verdict

proof = prove(real, synthetic, test, classes)
proof.difference("both", "classic").value              # with its interval
verdict(proof).sentences                               # in words, "Synthetic images did not help here" among them
"""

from fabulate.uses.prove.arms import ARMS
from fabulate.uses.prove.parts import parts
from fabulate.uses.prove.proof import Proof, prove
from fabulate.uses.prove.verdict import verdict

__all__ = ["ARMS", "Proof", "parts", "prove", "verdict"]
