"""Which vector instructions torch's compiler may use here: found out once, not in every run."""

from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import torch


def vectors_tried(folder: Path) -> None:
    """Tell torch's compiler that this machine's vector instructions work, once all of them have been tried.

    For each kind that the processor names, the compiler builds a program and loads it into a process of its own: more
    than a second in every run, also where all is compiled already. That all were good is written down in the folder.
    """
    from torch._inductor import config, cpu_vec_isa

    if config.cpp.vec_isa_ok is not None:  # the user's word
        return
    with config.patch({"cpp.vec_isa_ok": True}):
        named = [str(isa) for isa in cpu_vec_isa.valid_vec_isa_list.__wrapped__()]
    what = f"{torch.__version__} {named}"
    place = folder / f"vectors-{blake2b(what.encode(), digest_size=8).hexdigest()}.txt"
    if not place.exists() and [str(isa) for isa in cpu_vec_isa.valid_vec_isa_list()] == named:  # here they are tried
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            place.write_text(what + "\n")
    if place.exists():
        config.cpp.vec_isa_ok = True
