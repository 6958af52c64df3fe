"""Images drawn by compiled networks, and when that pays; the one private name of torch that we use."""

from pathlib import Path

import pytest
import torch

import fabulate
from fabulate.compiling import trace_gradients
from fabulate.errors import ConfigError
from fabulate.models import GenerativeModel, family
from fabulate.nets import DiT
from fabulate.samples import ENOUGH_CALLS, Order, faster
from fabulate.seeds import seeded
from tiny import SMALL

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:DeprecationWarning"
)  # torch's compiler uses its own old ways


@pytest.fixture
def model() -> GenerativeModel:
    with seeded(0):
        return family("flow")(family("flow").Config(network=DiT(width=32, depth=1)), SMALL)


def images(model: GenerativeModel, n: int, batch_size: int) -> torch.Tensor:
    order = Order(model, n, batch_size=batch_size, sampling={"evaluations": 3})
    return torch.cat([torch.from_numpy(batch) for _, batch in order.batches()])


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_a_compiled_network_draws_the_same_images_however_they_are_asked_for(model):
    from torch._dynamo.utils import counters

    counters.clear()
    plain, sentences = images(model, 70, 64), []
    with faster(model, 70, "on", sentences.append):
        compiled = images(model, 70, 64)
        assert torch.equal(images(model, 70, 16), compiled)
        assert torch.equal(images(model, 5, 64), compiled[:5])
    assert counters["stats"]["unique_graphs"] == 1  # the last, smaller batch is not compiled anew
    assert [sentence.split(":")[0] for sentence in sentences] == ["Compiling the network"]
    # Sums round otherwise: where a number stands between two levels of uint8, a pixel changes by one.
    difference = (compiled.int() - plain.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3
    assert torch.equal(images(model, 70, 64), plain)  # and afterwards as before


def test_networks_are_compiled_where_it_is_wanted_or_pays(model):
    sentences: list[str] = []

    def compiled(*words: object, **sampling: int) -> bool:
        with faster(model, *words, sentences.append, sampling):
            return "forward" in vars(model.network)

    enough = ENOUGH_CALLS // model.sampling.evaluations * model.rows
    assert compiled(enough, "auto")
    assert not compiled(enough - model.rows, "auto")
    assert compiled(enough // 2, "auto", evaluations=2 * model.sampling.evaluations)
    assert compiled(1, "on")
    assert len(sentences) == 3
    assert not compiled(enough, "off")
    assert len(sentences) == 3
    assert "forward" not in vars(model.network)


def test_a_family_without_anything_to_compile_says_so():
    vae = family("vae")(family("vae").Config(), SMALL)
    with pytest.raises(ConfigError, match=r"^drawing from vae has nothing worth compiling; leave out --compile on$"):
        faster(vae, 10**9, "on", print)
    with faster(vae, 10**9, "auto", pytest.fail):
        pass


def test_the_one_private_name_of_torch_is_there():
    private = "torch" + "._"
    files = [path.name for path in Path(fabulate.__file__).parent.rglob("*.py") if private in path.read_text()]
    assert files == ["compiling.py"], f"private names of torch stand in {files}; use public ones, or give the reason"
    import torch._dynamo.config as dynamo

    assert hasattr(dynamo, "trace_autograd_ops"), (
        f"torch {torch.__version__} has no torch._dynamo.config.trace_autograd_ops any more. Look in its release notes "
        "for what lets torch.compile trace torch.autograd.grad (a public option?) and mend compiling.trace_gradients; "
        "until then, --compile auto must not compile a step in training/loop.py"
    )
    trace_gradients()
    assert dynamo.trace_autograd_ops is True
