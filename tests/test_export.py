"""Models as ONNX graphs: what is written computes what the model does, and what cannot be written is told."""

import hashlib
import json
import lzma
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fabulate.config import override
from fabulate.errors import CapabilityError, ConfigError, RunError
from fabulate.models import GenerativeModel
from fabulate.models.base import TILE
from fabulate.models.capabilities import HasLatent
from fabulate.models.mixture import Mixture
from fabulate.models.priors import PRIORS
from fabulate.prob import chosen
from fabulate.seeds import generator, seeded
from fabulate.share import onnx as share_onnx
from fabulate.share import web as share_web
from fabulate.share.graphs import Function, graph_of, made_of_noise, usual_part
from fabulate.share.onnx import MOST, write_onnx
from fabulate.types import unit
from tiny import CLASSES, Case, cases, ends, make

ort = pytest.importorskip("onnxruntime", reason="the packages for ONNX are not here: pip install 'fabulate[onnx]'")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

WEB = Path(share_web.__file__).parent / "web"


def flow(classes=(), space=None):
    """A small flow of so many evaluations that its denoiser is what is written."""
    model = make(Case("flow", "unet", classes, space))
    model.sampling = override(model.sampling, {"evaluations": 5})
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[GenerativeModel, Path, share_onnx.Written]:
    """A small conditional VAE and its decoder: a graph takes seconds to trace, so all look at this one."""
    model = make(Case("vae", "mlp", CLASSES))
    file = tmp_path_factory.mktemp("onnx") / "decoder.onnx"
    return model, file, write_onnx(model, file)


def test_the_graph_computes_what_the_model_does_for_any_number_of_images(exported):
    model, file, written = exported
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    for n in (1, 2, 7):
        z, y = torch.randn(n, 5, generator=generator(n)), torch.arange(n) % 3
        (pixels,) = session.run(None, {"codes": z.numpy(), "class": y.numpy()})
        with torch.no_grad():
            expected = unit(model.eval().decode(z, y)).numpy()
        assert pixels.shape == (n, *model.shape) and pixels.dtype == np.float32
        assert pixels.min() >= 0 and pixels.max() <= 1 and np.abs(pixels - expected).max() <= MOST
    assert np.ptp(pixels) > 0.01, "all pixels are alike: nothing was compared"
    assert written.difference <= MOST and written.bytes == file.stat().st_size


def test_the_metadata_say_what_the_graph_is_of(exported):
    _, file, written = exported
    told = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(CLASSES) and json.loads(told["shape"]) == [1, 8, 8]
    assert (told["family"], told["part"]) == ("vae", "decoder") and told["made_by"].startswith("fabulate ")
    assert "codes (N, 5) -> pixels" in told["call"] and "class (N,) int64" in told["call"]
    assert float(told["difference"]) == pytest.approx(written.difference, rel=0.1, abs=1e-12)


def test_a_graph_that_differs_is_found_and_not_written(exported, tmp_path, monkeypatch):
    model, file, _ = exported
    graph = graph_of(model, "decoder")
    inner = graph.function
    other = graph._replace(function=Function(inner, lambda *inputs: inner(*inputs) + 2 * MOST))
    assert share_onnx.measured(graph, file.read_bytes()) <= MOST < share_onnx.measured(other, file.read_bytes())
    monkeypatch.setattr(share_onnx, "traced", lambda graph: __import__("onnx").load(file))
    monkeypatch.setattr(share_onnx, "graph_of", lambda model, part: other)
    with pytest.raises(
        RunError, match=r"the decoder of this vae gives other numbers as a graph: they differ by 2\.\de-05"
    ):
        write_onnx(model, tmp_path / "x.onnx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("case", "part", "words"),
    [
        (
            Case("gan", "mlp"),
            "encoder",
            "gan finds codes in many steps, or not at all; families that encode: ae, nf, v",
        ),
        (Case("flow", "unet"), "encoder", "flow finds codes in many steps"),
        (Case("vae", "mlp"), "denoiser", "vae takes no noise off images; families that can: consistency, flow"),
        (
            Case("vqvae", None),
            "prior",
            "how vqvae draws codes is not written as a function of noise; families where it",
        ),
        (Case("ar", None), "decoder", "ar draws symbol by symbol, which is no one graph; families that can: ae"),
    ],
    ids=str,
)
def test_what_a_family_cannot_give_is_told_with_those_that_can(case, part, words):
    with pytest.raises(CapabilityError, match=re.escape(words)):
        graph_of(make(case), part)


def test_what_is_written_depends_on_how_often_the_network_is_evaluated():
    assert usual_part(flow()) == "denoiser" and usual_part(make(Case("consistency", "unet"))) == "decoder"
    assert [*graph_of(flow(), "decoder").inputs] == ["images"]
    assert [*graph_of(make(Case("consistency", "unet")), "decoder").inputs] == ["codes"]


def test_a_missing_package_is_told_with_the_cure(monkeypatch, tmp_path, exported):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(share_onnx, "import_module", missing)
    with pytest.raises(ConfigError, match=r"not here \(onnx\): pip install 'fabulate\[onnx\]'"):
        write_onnx(exported[0], tmp_path / "x.onnx")


def test_the_command_line_refuses_before_it_loads_anything(tmp_path, capsys):
    taken = tmp_path / "taken.onnx"
    taken.write_text("mine")
    for words, told in (
        (["--onnx", taken], f"{taken} exists; give --overwrite to replace it, or another --onnx"),
        (["--part", "decoder"], "--part decoder is of an ONNX file: give --onnx FILE as well"),
        (["--onnx", "a", "--web", "b"], "one thing is written at a time: give --onnx or --web"),
    ):
        assert ends("export", tmp_path / "run", *words) == 2
        assert told in capsys.readouterr().err
    assert taken.read_text() == "mine"


def test_a_page_replaces_nothing_but_a_page(tmp_path, exported):
    mine = tmp_path / "model.json"
    mine.write_text('{"mine": true}')
    for overwrite, words in ((False, "is not empty"), (True, "no model.json that says they are fabulate's")):
        with pytest.raises(RunError, match=words):
            share_web.write_web(exported[0], tmp_path, "cats", overwrite=overwrite)
    assert mine.read_text() == '{"mine": true}' and [*tmp_path.iterdir()] == [mine]


# Codes of noise


def test_weights_choose_as_often_as_they_say():
    weights = torch.tensor([0.5, 0.0, 0.2, 0.3, 0.0])
    n = 20_000
    found = chosen(weights.expand(n, -1), torch.rand(n, generator=generator(0))).bincount(minlength=5) / n
    error = (weights * (1 - weights) / n).sqrt()
    assert ((found - weights).abs() <= 5 * error).all() and found[1] == found[4] == 0
    ends = chosen(weights.expand(2, -1), torch.tensor([0.0, 1 - 2**-24]))
    assert ends.tolist() == [0, 3]


@pytest.mark.parametrize("kind", ["mixture", "gaussians", "normal"])
def test_codes_made_of_noise_are_distributed_as_those_drawn(kind):
    n, y = 20_000, torch.arange(20_000) % 2
    with seeded(0, "prior"):
        if kind == "mixture":
            made = Mixture(3, 4, 2)
            made.weights.copy_(torch.tensor([[0.1, 0.2, 0.7, 0.0], [0.4, 0.3, 0.2, 0.1]]))
            made.means.normal_(), made.roots.normal_()
        else:
            made = PRIORS[kind](3, 4, 2)
            for weights in made.parameters():
                torch.nn.init.normal_(weights, std=0.1)
    with torch.no_grad():
        drawn = made.draw(n, y, generator(1))
        noise, choice = torch.randn(n, 3, generator=generator(2)), torch.rand(n, generator=generator(3))
        here = made.from_noise(noise, choice, y)
    for row in (0, 1):
        a, b = drawn[y == row], here[y == row]
        for f in (lambda z: z, lambda z: z.square(), lambda z: z * z.roll(1, 1), lambda z: z.pow(3)):
            a_, b_ = f(a), f(b)
            error = ((a_.var(0) + b_.var(0)) / len(a)).sqrt()
            assert ((a_.mean(0) - b_.mean(0)).abs() <= 5 * error).all()


@pytest.mark.parametrize("case", [c for c in cases(HasLatent) if c.classes], ids=str)
def test_every_family_makes_codes_of_noise_or_says_that_it_does_not(case):
    model = make(case)
    y = torch.arange(TILE) % 3
    codes = model.prior(TILE, y, generator(0))
    noise, choice = torch.randn(codes.shape, generator=generator(1)), torch.rand(TILE, generator=generator(2))
    if made_of_noise(type(model)):
        made = model.from_noise(noise, choice, y)
        assert made.shape == codes.shape and made.isfinite().all()
        return
    with pytest.raises(CapabilityError, match="is not written as a function of noise"):
        model.from_noise(noise, choice, y)


def test_uniform_noise_of_a_gan_is_uniform():
    model = make(Case("gan", "mlp"))
    model.config = override(model.config, {"noise": "uniform"})
    codes = model.from_noise(torch.randn(4000, 5, generator=generator(0)), torch.zeros(4000), None)
    shares = torch.histc(codes, 10, -1, 1) / codes.numel()
    assert (shares - 0.1).abs().max() <= 5 * (0.1 * 0.9 / codes.numel()) ** 0.5


# The page's files


def test_the_bundle_is_of_these_sources():
    files = [
        *sorted(WEB.glob("*.ts")),
        WEB.parents[1] / "studio" / "web" / "dom.ts",
        *(WEB / name for name in ("page.css", "index.html", "icon.svg", "package.json")),
    ]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert digest == (share_web.STATIC / "sources.sha256").read_text().strip(), "the page's sources changed: make web"


def test_the_runtime_is_the_one_it_says_and_small():
    packed = (share_web.STATIC / share_web.RUNTIME).read_bytes()
    digest, name, number = (share_web.STATIC / share_web.HASH).read_text().split()
    assert hashlib.sha256(lzma.decompress(packed)).hexdigest() == digest and len(packed) < 4 * 2**20
    assert json.loads((WEB / "package.json").read_text())["devDependencies"][name] == number
    assert "MIT" in (share_web.STATIC / "onnxruntime-LICENSE.txt").read_text()


def test_a_damaged_runtime_is_not_shared(tmp_path, monkeypatch):
    (tmp_path / share_web.RUNTIME).write_bytes(lzma.compress(b"something else"))
    (tmp_path / share_web.HASH).write_text((share_web.STATIC / share_web.HASH).read_text())
    monkeypatch.setattr(share_web, "STATIC", tmp_path)
    with pytest.raises(RunError, match="is damaged; install fabulate again"):
        share_web.runtime()


def test_the_page_asks_nobody_and_puts_no_words_into_markup():
    for file in WEB.glob("*.ts"):
        text = file.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), file.name
        assert "://" not in re.sub(r"^\s*//.*$", "", text, flags=re.M), file.name
    page = (WEB / "index.html").read_text()
    assert "default-src 'none'" in page and "unsafe-inline" not in page and "//" not in page


# All families, which takes minutes

GRAPHS = [
    (Case("ae", "mlp", CLASSES), "decoder"),
    (Case("vae", "conv", CLASSES), "prior"),
    (Case("vae", "mlp"), "encoder"),
    (Case("gan", "conv"), "decoder"),
    (Case("gan", "dcgan", CLASSES), "decoder"),
    (Case("nf", None, CLASSES), "decoder"),
    (Case("vqvae", None, CLASSES), "decoder"),
    (Case("consistency", "unet", CLASSES), "decoder"),
]
FLOWS = [((), None, "denoiser"), (CLASSES, "vae", "denoiser"), ((), "vae", "decoder"), ((), "pca", "decoder")]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "part"), GRAPHS, ids=str)
def test_parts_of_every_family_are_written(case, part, tmp_path):
    assert write_onnx(make(case), tmp_path / "x.onnx", part).difference <= MOST


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "space", "part"), FLOWS)
def test_parts_of_a_flow_are_written(classes, space, part, tmp_path):
    assert write_onnx(flow(classes, space), tmp_path / "x.onnx", part).difference <= MOST
