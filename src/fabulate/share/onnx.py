"""A part of a model as an ONNX file, held against the model before it is written.

The graph takes and gives plain numbers (pixels in [0, 1], classes as int64) for any number of images at once; what goes
in, and of which images, classes and version it is, stands in its metadata. onnxruntime runs it on real inputs, one, a
few and many at once, beside the model itself, and a graph that differs by more than `MOST` is not written.

https://onnx.ai, https://docs.pytorch.org/docs/stable/onnx_export.html
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fabulate.errors import ConfigError, RunError
from fabulate.files import place_file
from fabulate.models import GenerativeModel
from fabulate.share.graphs import Graph, Part, graph_of, usual_part

MOST = 1e-5  # difference between a graph and the model, of float32 numbers of about 1
COUNTS = (1, 5)  # images at once, of which a graph is tried beside all that there are
PACKAGES = "onnx", "onnxscript", "onnxruntime"


class Written(NamedTuple):
    """A graph that was written."""

    part: Part
    told: str
    difference: float
    """The largest from the model."""
    bytes: int


def write_onnx(model: GenerativeModel, file: Path, part: Part | None = None) -> Written:
    """Write a part of a model (default: `usual_part`) as an ONNX file.

    Errors: `CapabilityError` for a part the family does not have; `ConfigError` where the extra `onnx` is not
    installed; `RunError` for a graph that gives other numbers than the model.
    """
    check_packages()
    part = part or usual_part(model)
    graph = graph_of(model, part)
    proto = traced(graph)
    difference = measured(graph, proto.SerializeToString())
    if not difference <= MOST:
        raise RunError(
            f"the {part} of this {model.family} gives other numbers as a graph: they differ by {difference:.1e} where "
            f"{MOST:.0e} is allowed. Nothing was written; models whose weights grew very large do so"
        )
    set_properties(proto, described(model, part, graph, difference))
    data = proto.SerializeToString()
    place_file(file, lambda opened: opened.write(data))
    return Written(part, graph.told, difference, len(data))


def check_packages() -> None:
    """Errors: `ConfigError` naming what is missing and how to install it."""
    for name in PACKAGES:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"ONNX files need a package that is not here ({name}): pip install 'fabulate[onnx]'"
            ) from error


@torch.no_grad()
def traced(graph: Graph) -> Any:
    """The function as an ONNX model, its first dimension of any length."""
    many = torch.export.Dim("n")
    inputs = tuple(graph.inputs.values())
    with quiet():
        # By `export` first: given a function, onnx.export would silently fix the number of images where it must.
        program = torch.export.export(graph.function.eval(), inputs, dynamic_shapes=(tuple({0: many} for _ in inputs),))
        made = torch.onnx.export(
            program, dynamo=True, input_names=[*graph.inputs], output_names=[graph.output], verbose=False
        )
    assert made is not None
    return made.model_proto


def measured(graph: Graph, data: bytes) -> float:
    """The largest difference between a graph, as onnxruntime computes it, and the function, over its real inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (*COUNTS, len(next(iter(graph.inputs.values())))):
        inputs = {name: value[:count] for name, value in graph.inputs.items()}
        with torch.no_grad():
            expected = graph.function(*inputs.values())
        (given,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        apart = (torch.from_numpy(given) - expected).abs() / (1 if graph.scale is None else graph.scale[:count])
        worst = max(worst, float(apart.max()))
    return worst


def described(model: GenerativeModel, part: Part, graph: Graph, difference: float) -> dict[str, str]:
    """What the metadata say."""
    told = {"class": "class (N,) int64, the number of the name in classes"}
    return {
        "made_by": f"fabulate {version('fabulate')}",
        "family": model.family,
        "part": part,
        "call": "; ".join([graph.told, *(told[name] for name in graph.inputs if name in told)]),
        "shape": json.dumps(list(model.shape)),
        "classes": json.dumps(list(model.classes), ensure_ascii=False),
        "difference": f"{difference:.1e}",
    }


def set_properties(proto: Any, properties: dict[str, str]) -> None:
    """Write the metadata of an ONNX model."""
    import onnx

    onnx.helper.set_model_props(proto, properties)


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block torch's exporter says errors only, not which packages it could do more with."""
    exporter = logging.getLogger("torch.onnx")
    before = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(before)
