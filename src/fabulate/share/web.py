"""A model as a folder for any file server: a page that draws from it in the browser.

The folder holds the page (TypeScript from `web/`, bundled into `static/` by `make web`), the model's graphs, and
onnxruntime's WebAssembly, which runs them by one thread: more would need headers that plain file servers do not send.
In the package that runtime lies compressed by xz, in the folder by gzip, which browsers unpack themselves.

https://onnxruntime.ai/docs/tutorials/web
"""

import gzip
import lzma
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.errors import RunError
from fabulate.files import place_file, replaceable_folder, write_json
from fabulate.models import GenerativeModel
from fabulate.models.capabilities import HasLatent
from fabulate.models.denoising import Denoising
from fabulate.models.directions import LARGEST_CODE, of_samples
from fabulate.samplers import HIGHEST, LOWEST, SOLVERS
from fabulate.share.graphs import Part, graph_of, stepwise
from fabulate.share.onnx import Written, check_packages, write_onnx
from fabulate.types import Stages, silent

STATIC = Path(__file__).parent / "static"
STYLE = Path(__file__).parents[1] / "report" / "templates" / "style.css"  # the reports' own
PAGE = ("index.html", "page.js", "page.css", "icon.svg", "onnxruntime-LICENSE.txt")
RUNTIME, HASH = "runtime.wasm.xz", "runtime.sha256"
RECORD = "model.json"
SIDE = 8  # of the grid of images; half of it where an image takes many evaluations
SLIDERS = 8
MOST_STEPS = 40
LARGEST = 20 * 10**6  # bytes of a folder that opens soon enough
SOLVER = "ipndm"  # what `web/solver.ts` is


class Levels(TypedDict):
    """The noise levels that a solver walks down."""

    lowest: float
    highest: float
    rho: float


class Steps(TypedDict):
    """How a model draws that evaluates its network many times."""

    usual: int
    most: int
    levels: Levels
    space: list[int]
    """The shape of the images that it takes noise off."""


class Walks(TypedDict):
    """Directions among codes, as in `models/directions.py`."""

    vectors: list[list[float]]
    spreads: list[float]
    shares: list[float]


@with_config(ConfigDict(extra="forbid"))
class Facts(TypedDict):
    """What the page is told of a model; `web/model.ts` has the same."""

    title: str
    about: str
    family: str
    version: str
    shape: list[int]
    classes: list[str]
    codes: int
    """Numbers in a code."""
    images: int
    """Of the grid."""
    prior: bool
    """Whether codes are more than noise."""
    directions: Walks | None
    steps: Steps | None


def write_web(
    model: GenerativeModel, folder: Path, title: str, *, overwrite: bool = False, stages: Stages = silent
) -> list[Written]:
    """Write a folder with a page that draws from a model.

    Errors: `CapabilityError` for a model whose codes are not made of noise; those of `write_onnx`; `RunError` for a
    folder that holds something, unless it is such a page and may be overwritten.
    """
    check_packages()
    replaceable_folder(folder, overwrite, RECORD, Facts)
    noise = graph_of(model, "prior")  # refuses what a page cannot draw
    assert isinstance(model, HasLatent)
    with torch.no_grad():
        more = not torch.equal(noise.function(*noise.inputs.values()), noise.inputs["noise"])
    parts: list[Part] = ["decoder"]
    parts += ["prior"] if more else []
    parts += ["denoiser"] if stepwise(model) else []
    facts = described(model, title, noise.inputs["noise"].shape[1], more)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, facts)  # first: what a killed export leaves may then be overwritten
    written = []
    for number, part in enumerate(parts):
        stages("graphs", number, len(parts))
        written.append(write_onnx(model, folder / f"{part}.onnx", part))
    stages("page", 0, 1)
    files = {name: (STATIC / name).read_bytes() for name in PAGE}
    files |= {"report.css": STYLE.read_bytes(), "runtime.bin": gzip.compress(runtime(), mtime=0)}
    for name, data in files.items():
        put(data, folder / name)
    return written


def put(data: bytes, path: Path) -> None:
    """Write a file of the folder."""
    place_file(path, lambda opened: opened.write(data))


def described(model: HasLatent, title: str, codes: int, prior: bool) -> Facts:
    """What the page is told; finding the directions decodes some thousand images."""
    return Facts(
        title=title,
        about=f"{(type(model).__doc__ or model.family).splitlines()[0].split(' (')[0]} of {model.shape} images",
        family=model.family,
        version=version("fabulate"),
        shape=list(model.shape),
        classes=list(model.classes),
        codes=codes,
        images=(SIDE // 2) ** 2 if stepwise(model) else SIDE**2,
        prior=prior,
        directions=None if stepwise(model) or codes > LARGEST_CODE else walks(model),
        steps=steps(model),
    )


def walks(model: HasLatent) -> Walks:
    """The directions that change images most, those of the first class where there are classes."""
    _, directions = of_samples(model, y=model.classes[0] if model.classes else None)
    first = directions.first(SLIDERS)
    return Walks(vectors=first.vectors.tolist(), spreads=first.spreads.tolist(), shares=first.shares.tolist())


def steps(model: HasLatent) -> Steps | None:
    """How the page draws from a model of many evaluations."""
    if not (isinstance(model, Denoising) and stepwise(model)):
        return None
    levels = Levels(lowest=LOWEST, highest=HIGHEST, rho=SOLVERS[SOLVER].rho)
    usual = min(sum(model.repeated().values()), MOST_STEPS)
    return Steps(usual=usual, most=MOST_STEPS, levels=levels, space=list(model.space.shape))


def runtime() -> bytes:
    """onnxruntime's WebAssembly. Errors: `RunError` where the file is not the one that the package was made with."""
    data = lzma.decompress((STATIC / RUNTIME).read_bytes())
    if sha256(data).hexdigest() != (STATIC / HASH).read_text().split()[0]:
        raise RunError(f"{STATIC / RUNTIME} is damaged; install fabulate again")
    return data
