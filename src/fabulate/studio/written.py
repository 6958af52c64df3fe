"""Texts and tunes as the page shows them: what is written, what can be said of it, what it looks and sounds like."""

import json
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from fabulate.data.media import Medium, medium
from fabulate.studio.loaded import Kept, model_of, version
from fabulate.studio.requests import Write

Json = dict[str, Any]

_drawn: Kept[list[str]] = Kept(8)


def told(its: Medium, items: Sequence[str]) -> list[Json]:
    """Items as the page lists them: a title and a sentence where they have any, the text, and whether it sounds."""
    listed = []
    for i, item in enumerate(items, start=1):
        heard = its.heard(item, str(i))
        title, about = ("", "") if heard is None else (heard.title, heard.about.removeprefix(f"{i}: "))
        listed.append({"title": title, "about": about, "text": item, "sound": bool(heard and heard.sound)})
    return listed


def drawn(run: Path, asked: Write) -> list[str]:
    """Samples of a run's model, kept for who asks for their picture and their sounds."""
    key = version(run), json.dumps(asked.model_dump(), sort_keys=True)

    def make() -> list[str]:
        loaded = model_of(run)
        with loaded.lock:
            return [*loaded.model.items(loaded.model.sample(asked.n, asked.label, seed=asked.seed, **asked.sampling))]

    return _drawn.get(key, make)


def samples(run: Path, asked: Write) -> list[Json]:
    """Samples as the page lists them."""
    return told(medium(model_of(run).model.shape), drawn(run, asked))


def picture(run: Path, asked: Write) -> bytes:
    """What samples look like, as a PNG: piano rolls of music."""
    model, buffer = model_of(run).model, BytesIO()
    its = medium(model.shape)
    its.sheet(drawn(run, asked), model.about, f"seed {asked.seed}").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def sound(run: Path, asked: Write, i: int) -> bytes:
    """What sample i sounds like, as a .wav. Errors: `FileNotFoundError` where there is no such sound."""
    its, items = medium(model_of(run).model.shape), drawn(run, asked)
    name = f"sample{its.ending}"
    heard = its.heard(items[i], name) if i < len(items) else None
    if heard is None or not heard.sound:
        raise FileNotFoundError(2, "there is no such sound", str(i))
    with tempfile.TemporaryDirectory() as folder:
        its.place(items[i], Path(folder) / name)
        return (Path(folder) / heard.sound).read_bytes()
