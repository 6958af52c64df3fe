"""What every family keeps: laws, asked of small models of it, each with its cure in words.

A law is a generator that gets a case (a family, a kind of network where it has a choice, classes or none) and yields a
sentence for each thing that is wrong: what was found, and what to do. `fabulate check FILE` asks them of a family of a
user's own, the tests of every family of the registry. Nothing here names a family.

Legend: B batch, N images, C H W image, Z latent.
"""

import ast
import inspect
import json
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fabulate.config import DataSpec, Training, from_json, to_json
from fabulate.errors import ConfigError, FabulateError
from fabulate.models.base import TILE, GenerativeModel
from fabulate.models.capabilities import Encodes, HasLatent, Reconstructs, Scores
from fabulate.models.families import family
from fabulate.models.small import CLASSES, SHAPES, SMALL, Case, cases, make, pictures, some_batch
from fabulate.seeds import generator, permutation, seeded
from fabulate.types import Batch, BatchSource, Tensors, to_float, to_uint8

USES = {"encode": Encodes, "reconstruct": Reconstructs, "score": Scores}  # what takes images
RAISED = (FabulateError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OSError)


def trained(model: GenerativeModel, images: BatchSource, steps: int, lr: float = 1e-2) -> Iterator[None]:
    """Train a model in the plainest way: Adam, a short warm-up, batches of 32; yields after each step."""
    model.train().init_from_data(images)
    players = model.players()
    optimizers = {name: torch.optim.Adam(player.module.parameters()) for name, player in players.items()}
    for step in range(steps):
        batch = images.batch(permutation(len(images), "contract", step)[:32])
        for name, player in players.items():
            optimizers[name].zero_grad()
            optimizers[name].param_groups[0]["lr"] = lr * min(1, (step + 1) / 10)
            with seeded("contract", step, name):
                player.loss(batch)["loss"].backward()  # type: ignore[no-untyped-call]
            optimizers[name].step()
        yield


@torch.no_grad()
def tested(model: GenerativeModel, images: BatchSource) -> float:
    """The loss of a model of one player on all images, at a noise that is always the same."""
    (player,) = model.eval().players().values()
    with seeded("contract", "test"):
        return float(player.loss(images.batch(torch.arange(len(images))))["loss"])


@contextmanager
def in_float64() -> Iterator[None]:
    """Within the block models are made in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Law(NamedTuple):
    """Something that every family keeps, where it has the capability."""

    says: str
    broken: Callable[[Case], Iterator[str]]
    needs: type = GenerativeModel
    conditional: bool = False
    """Whether it is about classes."""

    def applies(self, case: Case) -> bool:
        """Whether the law has something to ask of the case."""
        return issubclass(family(case.family), self.needs) and (bool(case.classes) or not self.conditional)

    def problems(self, case: Case) -> list[str]:
        """Sentences on what is wrong, errors of the family's code among them, with the line they came from."""
        found: list[str] = []
        try:
            for sentence in self.broken(case):
                found.append(sentence)  # those before an error are kept
        except RAISED as error:
            own = inspect.getsourcefile(family(case.family))
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
            where = f" in {Path(own).name}, line {lines[-1]}" if own and lines else ""
            found.append(f"it could not be asked{where}: {type(error).__name__}: {error}")
        return found


LAWS: dict[str, Law] = {}


def examine(name: str) -> Iterator[tuple[Law, list[str]]]:
    """Ask a family each law that applies to it; what is wrong in several cases is said once, with the first of them."""
    for law in LAWS.values():
        found: dict[str, Case] = {}
        asked = [case for case in cases(of=[name]) if law.applies(case)]
        for case in asked:
            for sentence in law.problems(case):
                found.setdefault(sentence, case)
        if asked:
            yield law, [sentence if len(asked) == 1 else f"{sentence} ({case})" for sentence, case in found.items()]


def law(
    needs: type = GenerativeModel, conditional: bool = False
) -> Callable[[Callable[[Case], Iterator[str]]], Callable[[Case], Iterator[str]]]:
    """Add a function to the laws; its docstring is what the law says."""

    def add(broken: Callable[[Case], Iterator[str]]) -> Callable[[Case], Iterator[str]]:
        LAWS[broken.__name__] = Law((broken.__doc__ or "").strip().rstrip("."), broken, needs, conditional)
        return broken

    return add


@law()
def hyperparameters_are_declared(case: Case) -> Iterator[str]:
    """Hyperparameters have defaults, help and names of their own, and survive JSON."""
    cls = family(case.family)
    for name, preset in cls.presets.items():
        if not isinstance(preset.model, cls.Config):
            yield f"the preset {name!r} holds no {cls.Config.__name__}: give Preset({cls.Config.__name__}(...))"
        for value in preset:
            if from_json(type(value), json.loads(json.dumps(to_json(value)))) != value:
                yield f"the preset {name!r} changes as JSON: let fields be numbers, words, tuples and specs"
    own = {field.name for field in fields(cls.Config)}
    for other in (Training, DataSpec):
        if taken := own & {field.name for field in fields(other)}:
            yield f"{cls.Config.__name__} has {', '.join(sorted(taken))}, as {other.__name__} has: give other names"
    if missing := sorted(own - helped(cls.Config)):
        yield f"{cls.Config.__name__} says nothing of {', '.join(missing)}: write a docstring below each field"


def helped(spec: type) -> set[str]:
    """The fields of a spec, and of those that it builds on, that have a docstring."""
    classes = [ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0] for cls in spec.__mro__[:-1]]
    return {
        field.target.id
        for cls in classes
        if isinstance(cls, ast.ClassDef)
        for field, text in pairwise(cls.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


@law()
def players_share_out_the_parameters(case: Case) -> Iterator[str]:
    """Each parameter belongs to exactly one player."""
    model = make(case)
    counts = Counter(id(p) for player in model.players().values() for p in player.module.parameters())
    for name, parameter in model.named_parameters():
        if counts[id(parameter)] != 1:
            found = "no player" if not counts[id(parameter)] else f"{counts[id(parameter)]} players"
            yield f"the parameter {name} is moved by {found}: put it into the module of one player in `players`"


@law()
def losses_reach_all_parameters(case: Case) -> Iterator[str]:
    """Losses are finite scalars, and their gradients reach all parameters of their player."""
    model = make(case).train()
    for name, player in model.players().items():
        model.zero_grad(set_to_none=True)
        terms = player.loss(some_batch(model))
        if "loss" not in terms:
            yield f"the loss of the player {name!r} returns {', '.join(terms)}: return 'loss', what is minimised, too"
            continue
        for term, value in terms.items():
            if value.ndim:
                yield f"the term {term!r} of {name!r} has the shape {tuple(value.shape)}: take its mean over the batch"
            elif not value.isfinite():
                yield f"the term {term!r} of {name!r} is {float(value)} before any training"
        terms["loss"].mean().backward()  # type: ignore[no-untyped-call]
        gradients = {of: p.grad for of, p in player.module.named_parameters()}
        if bad := [of for of, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]:
            yield f"the loss of {name!r} gives no finite gradient to {', '.join(bad)}: use them in it, or remove them"


@law()
def a_seed_is_a_model(case: Case) -> Iterator[str]:
    """One seed gives one set of initial weights, and another seed another."""
    first, again, other = make(case), make(case), make(case, seed=1)
    if first.weights_hash() != again.weights_hash():
        yield "two models of one seed differ: draw initial weights by torch's functions, nothing of numpy's or time's"
    if first.weights_hash() == other.weights_hash():
        yield "models of two seeds are the same: initial weights must be drawn, or nothing tells one run from another"


@law()
def thirty_steps_lower_the_loss(case: Case) -> Iterator[str]:
    """Thirty steps of Adam lower the loss, where there is one player whose losses can be compared."""
    model, images = make(case), pictures(SMALL, 96, case.classes)
    if len(model.players()) != 1 or not model.validates:
        return
    steps = trained(model, images, 30)
    next(steps)  # a normalizing flow takes its scales from the first batch, and that is not learning
    before = tested(model, images)
    model.train()
    count = sum(1 for _ in steps)
    after = tested(model, images)
    if count != 29 or not after < before:
        yield f"the loss was {before:.4g} and after thirty steps {after:.4g}: is its sign right, is it differentiable?"


@law()
def samples_are_images(case: Case) -> Iterator[str]:
    """Samples are images of the model's shape in [-1, 1], for any shape."""
    for shape in SHAPES:
        yield from image_problems("sample", make(case, shape).sample(3), (3, *shape))


def image_problems(name: str, images: Tensor, shape: Sequence[int]) -> Iterator[str]:
    """What is wrong with what should be images."""
    if tuple(images.shape) != tuple(shape):
        yield f"`{name}` gives {tuple(images.shape)} where {tuple(shape)} is meant: see `decode`, or `draw`"
    elif not images.isfinite().all() or images.abs().max() > 1:
        yield f"`{name}` gives images outside [-1, 1]: end `decode` or `draw` with torch.tanh, or .clamp(-1, 1)"
    if images.requires_grad:
        yield f"`{name}` gives images that ask for a gradient: decorate it with @torch.no_grad()"


@law()
def samples_are_addressed(case: Case) -> Iterator[str]:
    """A sample depends on its seed and number alone, whatever is drawn with it."""
    model, n = make(case), 2 * TILE
    images = model.sample(n, seed=3)
    torch.rand(7)  # moves the global generator
    cure = "take all randomness from the generator that `prior` or `draw` is given"
    if not torch.equal(model.sample(n, seed=3), images):
        yield f"two calls with one seed differ: {cure}"
    if torch.equal(model.sample(5, seed=2), images[:5]):
        yield f"two seeds give the same samples: {cure}"
    if len({image.numpy().tobytes() for image in images}) < n:
        yield f"of {n} samples some are equal to the last bit: {cure}"
    for first in (1, TILE + 8):
        split = torch.cat([model.sample(first, seed=3), model.sample(n - first, seed=3, start=first)])
        if not torch.equal(split, images):
            yield f"samples differ when they are drawn in two calls, {first} and {n - first}: {cure}"


@law()
def samples_do_not_see_each_other(case: Case) -> Iterator[str]:
    """A sample is the same, but for rounding, alone and among others."""
    with in_float64(), torch.no_grad():
        model = make(case).eval()
        y = model.labels(None, 3 * TILE)
        tiles = [generator(3, "contract", i) for i in range(3)]
        together = model.draw(tiles, y)
        alone = model.draw([generator(3, "contract", 2)], None if y is None else y[2 * TILE :])
    if not torch.allclose(together[2 * TILE :], alone, rtol=0, atol=1e-9):
        yield "samples change with those drawn beside them: let nothing average over the batch in `decode` or `draw`"


@law()
def using_a_model_leaves_no_trace(case: Case) -> Iterator[str]:
    """Using a model leaves its mode and torch's generator as they were; meanwhile all layers are in evaluation mode."""
    model = make(case)
    x, y = some_batch(model)
    uses: dict[str, Callable[[], object]] = {"sample": lambda: model.sample(3)}
    if isinstance(model, HasLatent):
        uses["interpolate"] = lambda: model.interpolate(model.code(0), model.code(1))
    uses |= {name: lambda name=name: getattr(model, name)(x, y) for name in takes(model)}  # type: ignore[misc]
    modes: set[bool] = set()
    for module in model.modules():
        module.register_forward_pre_hook(lambda module, _: modes.add(module.training))
    for name, use in uses.items():
        for training in (True, False):
            model.train(training)
            before = torch.get_rng_state()
            use()
            if not torch.equal(torch.get_rng_state(), before):
                yield f"`{name}` draws from torch's global generator: give it a seed, and draw from `generator(seed)`"
            if {module.training for module in model.modules()} != {training}:
                yield f"`{name}` changes the model's mode: use `with evaluating(self):`"
        if True in modes:
            yield f"`{name}` calls layers in training mode: use `with evaluating(self):`"
        modes.clear()


def takes(model: GenerativeModel) -> list[str]:
    """The methods of a model that take images."""
    return [name for name, capability in USES.items() if isinstance(model, capability)]


@law(conditional=True)
def classes_matter(case: Case) -> Iterator[str]:
    """The class changes every loss and every sample."""
    model = make(case).eval()
    x, y = some_batch(model)
    assert y is not None
    if model.classes != case.classes:
        yield "the model has other classes than it was made with: call super().__init__(config, shape, classes)"
    for name, player in model.players().items():
        if player.span[1] < 1:  # what others build on, such as an autoencoder, may be blind to classes
            continue
        losses = []
        for given in (y, (y + 1) % len(CLASSES)):
            with seeded("contract"):
                losses.append(float(player.loss(Batch(x, given))["loss"].detach()))
        if losses[0] == losses[1]:
            yield f"the loss of {name!r} is the same with other classes: give batch.y to the networks"
    if not (model.sample(4, "cat") != model.sample(4, "dog")).flatten(1).any(1).all():
        yield "samples are the same with another class: use y in `prior` or `decode`"


@law(conditional=True)
def its_own_class_is_likelier(case: Case) -> Iterator[str]:
    """A trained model finds images likelier with their own class than with another, where there is one player."""
    model, images = make(case), pictures(SMALL, 96, case.classes)
    if len(model.players()) != 1:
        return
    for _ in trained(model, images, 50):
        pass
    assert images.y is not None
    own, other = tested(model, images), tested(model, Tensors(images.x, (images.y + 1) % len(case.classes)))
    if not own < other:
        yield f"after 50 steps the loss is {own:.4g} with the right classes and {other:.4g} with wrong ones"


@law(needs=HasLatent)
def samples_are_decoded_codes(case: Case) -> Iterator[str]:
    """Samples are decoded from codes (N, Z), which can be had by their seed and walked between."""
    model = make(case).eval()
    y = 1 if case.classes else None
    assert isinstance(model, HasLatent)
    start, end = model.code(5, y), model.code(6, y)
    if start.ndim != 2 or len(start) != 1:
        yield f"the code of a sample has the shape {tuple(start.shape)}: let `prior` give (N, Z)"
        return
    with torch.no_grad():
        ends = model.decode(torch.cat([start, end]), model.labels(y, 2))
    if not torch.allclose(ends[:1], model.sample(1, y, seed=5), rtol=1e-4, atol=model.code_error):
        yield "the code of a seed does not decode to its sample: let `draw` be `decode` of `prior`, or override both"
    for path in ("linear", "spherical"):
        images = model.interpolate(start, end, steps=7, y=y, path=path)
        if not torch.allclose(images[[0, -1]], ends, rtol=1e-4, atol=1e-5):
            yield f"the {path} walk between two codes does not end at their images: `decode` depends on the batch"
        if not images.diff(dim=0).flatten(1).any(1).all():
            yield f"the {path} walk between two codes stands still: `decode` does not use all of the code"


@law()
def images_are_taken_as_they_come(case: Case) -> Iterator[str]:
    """`encode`, `reconstruct` and `score` take uint8 and floats alike, and refuse other shapes and missing classes."""
    model = make(case)
    x, y = some_batch(model)
    pixels = to_uint8(x)
    for name in takes(model):
        use, cure = getattr(model, name), "call `self.given(x, y)` first, and use the batch it gives"
        floats = use(to_float(pixels), y)
        try:
            if not torch.equal(use(pixels, y), floats):
                yield f"`{name}` finds other things in uint8 pixels than in the same images as floats: {cure}"
        except RAISED as error:
            yield f"`{name}` got uint8 pixels and raised {type(error).__name__}: {cure}"
        wrong: list[tuple[str, Tensor, Any]] = [
            (f"images of the shape {shape}", torch.zeros(shape), [0] * shape[0] if case.classes else None)
            for shape in ((2, 1, 8, 9), (2, 3, 8, 8), (1, 8, 8))
        ]
        wrong += [("images without their classes", x, None)] if case.classes else []
        for what, images, labels in wrong:
            try:
                use(images, labels)
                yield f"`{name}` takes {what}: {cure}"
            except ConfigError:
                pass
        if floats.requires_grad:
            yield f"`{name}` gives numbers that ask for a gradient: decorate it with @torch.no_grad()"


@law(needs=Encodes)
def codes_are_those_that_samples_come_from(case: Case) -> Iterator[str]:
    """Images have codes of the size of the prior's."""
    model = make(case)
    x, y = some_batch(model)
    assert isinstance(model, Encodes)
    codes, wanted = model.encode(x, y), (len(x), model.code(0, 0 if case.classes else None).shape[1])
    if tuple(codes.shape) != wanted:
        yield f"`encode` gives codes of the shape {tuple(codes.shape)} where `prior` has {wanted}"


@law(needs=Reconstructs)
def reconstructions_are_images(case: Case) -> Iterator[str]:
    """Reconstructions are images of the same shape, in [-1, 1], for any shape."""
    for shape in SHAPES:
        model = make(case, shape)
        x, y = some_batch(model, n=2)
        assert isinstance(model, Reconstructs)
        yield from image_problems("reconstruct", model.reconstruct(x, y), x.shape)


@law(needs=Scores)
def scores_are_numbers(case: Case) -> Iterator[str]:
    """Each image has one finite score."""
    model = make(case)
    x, y = some_batch(model)
    assert isinstance(model, Scores)
    scores = model.score(x, y)
    if tuple(scores.shape) != (len(x),) or not scores.isfinite().all():
        yield f"`score` gives {tuple(scores.shape)} numbers for {len(x)} images, or some that are not finite"


@law()
def a_saved_model_comes_back(case: Case) -> Iterator[str]:
    """A model comes back from its folder as it was, to the last bit of its samples."""
    model = make(case).train()
    for player in model.players().values():
        player.loss(some_batch(model))  # moves buffers, where training does
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = GenerativeModel.from_pretrained(folder)
    cure = "let the constructor need nothing but (config, shape, classes), and keep what is learnt in buffers"
    if (loaded.config, loaded.shape, loaded.classes) != (model.config, model.shape, model.classes):
        yield f"a saved model comes back with other hyperparameters: {cure}"
    if loaded.weights_hash() != model.weights_hash():
        yield f"a saved model comes back with other weights: {cure}"
    elif not torch.equal(loaded.sample(3, seed=9), model.sample(3, seed=9)):
        yield f"a model that comes back draws other samples: {cure}"
