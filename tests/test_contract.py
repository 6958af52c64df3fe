"""What every family keeps, asked of the whole registry: families x networks x conditional or not.

A family added to `fabulate/models/families` is tested here without a line of new code; none is named.
"""

import ast
import inspect
import json
import pickle
import textwrap
from collections import Counter
from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch

from fabulate.config import DataSpec, Training, from_json, override, to_json
from fabulate.errors import CapabilityError, ConfigError, RunError
from fabulate.models import GenerativeModel, base
from fabulate.models.base import TILE, Conditional
from fabulate.models.capabilities import PATHS, Encodes, HasLatent, Reconstructs, Scores
from fabulate.models.families import families
from fabulate.nets import NETWORKS
from fabulate.training.loop import Learner, score_images
from fabulate.types import Batch, ImageShape, to_float, to_uint8
from tiny import CLASSES, SHAPES, SMALL, Case, Pixels, cases, make, pictures

CASES = cases()
WITH_CLASSES = [case for case in CASES if case.classes]
WITHOUT_CLASSES = [case for case in CASES if not case.classes]
PRESETS = [(name, preset) for name, cls in families().items() for preset in cls.presets]
ALONE = [case for case in CASES if len(make(case).players()) == 1]  # one player: its loss is a number that must fall
assert WITH_CLASSES
assert WITHOUT_CLASSES
assert ALONE

over = pytest.mark.parametrize


def each(chosen: list[Case]) -> pytest.MarkDecorator:
    return over("case", chosen, ids=str)


def some_batch(model: GenerativeModel, n: int = 6, seed: int = 0) -> Batch:
    return pictures(model.shape, n, model.classes, seed).batch(torch.arange(n))


# Players


@each(CASES)
def test_each_player_has_finite_scalar_terms_and_its_loss_reaches_all_its_parameters(case):
    model = make(case).train()
    for name, player in model.players().items():
        model.zero_grad(set_to_none=True)
        terms = player.loss(some_batch(model))
        assert "loss" in terms
        assert player.every >= 1
        assert all(value.ndim == 0 and value.isfinite() for value in terms.values()), f"{name}: {terms}"
        terms["loss"].backward()
        gradients = {of: p.grad for of, p in player.module.named_parameters()}
        assert not [of for of, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]
        assert any(gradient.any() for gradient in gradients.values())


@each(CASES)
def test_players_share_out_all_parameters_each_to_one(case):
    model = make(case)
    moved = Counter(id(p) for player in model.players().values() for p in player.module.parameters())
    assert moved == Counter(id(p) for p in model.parameters())


@each(CASES)
def test_one_seed_gives_one_set_of_initial_weights(case):
    first, again, other = make(case), make(case), make(case, seed=1)
    assert first.weights_hash() == again.weights_hash() != other.weights_hash()


@each(ALONE)
def test_thirty_steps_lower_the_loss(case):
    model, images = make(case), pictures(SMALL, 96, case.classes)
    training = Training(steps=30, batch_size=32, lr=1e-2, schedule="constant", warmup=10, ema=0)
    steps = Learner(model, training, images).steps()
    next(steps)  # a normalizing flow takes its scales from the first batch, and that is not learning
    before = score_images(model, images, seed=0)["loss"]
    assert len(list(steps)) == 29
    assert score_images(model, images, seed=0)["loss"] < before


# Samples


@over("shape", SHAPES, ids=str)
@each(CASES)
def test_samples_are_images_of_the_models_shape_within_the_pixel_range(case, shape):
    images = make(case, shape).sample(3)
    assert images.shape == (3, *shape)
    assert images.dtype == torch.float32
    assert not images.requires_grad
    assert images.isfinite().all()
    assert images.abs().max() <= 1


@over(("first", "second"), [(1, 1), (20, 30), (TILE, 1), (TILE - 1, 2), (40, 60)])
@each(CASES)
def test_samples_are_the_same_to_the_bit_however_they_are_split(case, first, second):
    model = make(case)
    both = model.sample(first + second, seed=3)
    assert torch.equal(model.sample(first, seed=3), both[:first])
    assert torch.equal(model.sample(second, seed=3, start=first), both[first:])


@pytest.mark.usefixtures("float64")
@each(CASES)
def test_samples_computed_together_differ_in_rounding_alone(case, monkeypatch):
    model = make(case)
    images = {}
    for tiles in (1, 2, 4):
        monkeypatch.setattr(base, "TOGETHER_ON_CPU", (tiles, 2**20))
        assert model.rows == tiles * TILE
        images[tiles] = model.sample(100, seed=3, start=5)
    torch.testing.assert_close(images[2], images[1], rtol=0, atol=1e-9)
    torch.testing.assert_close(images[4], images[1], rtol=0, atol=1e-9)


def test_fewer_of_large_images_are_computed_together():
    model, rows = make(CASES[0]), []
    for side in (8, 32, 64, 256):
        model.shape = ImageShape(3, side, side)
        rows.append(model.rows)
    assert rows == [2 * TILE, 2 * TILE, TILE, TILE]


@each(CASES)
def test_samples_depend_on_their_seed_alone(case):
    model = make(case)
    images = model.sample(5, seed=1)
    torch.rand(7)  # moves the global generator
    assert torch.equal(model.sample(5, seed=1), images)
    assert not torch.equal(model.sample(5, seed=2), images)
    assert len({image.numpy().tobytes() for image in model.sample(2 * TILE)}) == 2 * TILE  # no tile repeats another


@over("training", [True, False])
@each(CASES)
def test_using_a_model_leaves_its_mode_and_the_global_generator_alone(case, training):
    model = make(case).train(training)
    x, y = some_batch(model)
    uses = [lambda: model.sample(3)]
    uses += [lambda: model.interpolate(model.code(0), model.code(1))] if isinstance(model, HasLatent) else []
    uses += [lambda: model.encode(x, y)] if isinstance(model, Encodes) else []
    uses += [lambda: model.reconstruct(x, y)] if isinstance(model, Reconstructs) else []
    uses += [lambda: model.score(x, y)] if isinstance(model, Scores) else []
    modes = set()
    for module in model.modules():
        module.register_forward_pre_hook(lambda module, _: modes.add(module.training))
    before = torch.get_rng_state()
    for use in uses:
        use()
        assert torch.equal(torch.get_rng_state(), before)
        assert {module.training for module in model.modules()} == {training}
    assert modes == {False}  # meanwhile every layer was in evaluation mode


@over(("n", "start"), [(0, 0), (3, -1)])
@each(CASES[:1])
def test_no_images_or_a_negative_start_are_refused(case, n, start):
    with pytest.raises(ConfigError, match=f"given n={n}, start={start}"):
        make(case).sample(n, start=start)


# Classes


@over(
    ("y", "numbers"),
    [
        ("dog", [1, 1, 1, 1]),
        (2, [2, 2, 2, 2]),
        (["dog", 0, "horse", 2], [1, 0, 2, 2]),
        (("cat", "cat", "dog", "dog"), [0, 0, 1, 1]),
        (torch.tensor([2, 1, 0, 2]), [2, 1, 0, 2]),
        (None, [0, 1, 2, 0]),
    ],
)
@each(WITH_CLASSES)
def test_classes_are_given_by_name_or_number_or_taken_in_turn(case, y, numbers):
    model = make(case)
    assert model.labels(y, 4).tolist() == numbers
    assert torch.equal(model.sample(4, y), model.sample(4, torch.tensor(numbers)))


@each(WITH_CLASSES)
def test_classes_are_taken_in_turn_across_calls(case):
    assert make(case).labels(None, 5, start=4).tolist() == [1, 2, 0, 1, 2]


@over(
    ("y", "words"),
    [
        ("hors", "there is no class 'hors'; did you mean 'horse'\\? \\(classes: cat, dog, horse\\)"),
        (3, "there is no class 3"),
        (-1, "there is no class -1"),
        (["cat", "cow", "dog", "cat"], "there is no class 'cow'"),
        (["cat", "dog"], "4 images need 4 classes, and 2 were given"),
    ],
)
@each(WITH_CLASSES)
def test_classes_that_do_not_fit_are_refused_in_words(case, y, words):
    with pytest.raises(ConfigError, match=words):
        make(case).sample(4, y)


@each(WITHOUT_CLASSES)
def test_a_class_asked_of_an_unconditional_model_is_refused(case):
    with pytest.raises(ConfigError, match="learnt no classes; train it with conditional=True"):
        make(case).sample(4, 0)


@over("cls", families().values(), ids=families())
def test_only_conditional_families_take_classes(cls):
    if not issubclass(cls, Conditional):
        with pytest.raises(CapabilityError, match="families that can: "):
            cls(cls.presets["default"].model, SMALL, CLASSES)
    else:
        assert cls(cls.presets["default"].model, SMALL, CLASSES).classes == CLASSES


@each(WITH_CLASSES)
def test_classes_change_every_loss_and_every_sample(case):
    model = make(case).eval()
    x, y = some_batch(model)
    for player in model.players().values():
        torch.manual_seed(0)
        loss = player.loss(Batch(x, y))["loss"]
        torch.manual_seed(0)
        assert player.loss(Batch(x, (y + 1) % len(CLASSES)))["loss"] != loss
    changed = (model.sample(4, "cat") != model.sample(4, "dog")).flatten(1).any(1)
    assert changed.all()


@each([case for case in ALONE if case.classes])
def test_a_trained_model_finds_images_likelier_with_their_own_class_than_with_another(case):
    model, images = make(case), pictures(SMALL, 96, case.classes)
    steps = list(Learner(model, Training(steps=100, batch_size=32, lr=1e-2, ema=0), images).steps())
    assert len(steps) == 100
    wrong = Pixels(images.x, (images.y + 1) % len(case.classes))
    own, other = (score_images(model, source, seed=0)["loss"] for source in (images, wrong))
    assert own < other


# Capabilities


@each(cases(HasLatent))
def test_samples_are_decoded_from_codes(case):
    model = make(case)
    y = model.labels(None, TILE)
    codes = model.prior(TILE, y, torch.Generator().manual_seed(0))
    assert codes.ndim == 2
    assert len(codes) == TILE
    with torch.no_grad():
        assert model.decode(codes, y).shape == (TILE, *SMALL)


@each(cases(HasLatent))
def test_the_code_of_a_seed_decodes_to_its_first_sample(case):
    model = make(case).eval()
    y = 1 if case.classes else None
    code = model.code(5, y)
    with torch.no_grad():
        image = model.decode(code, model.labels(y, 1))
    torch.testing.assert_close(image, model.sample(1, y, seed=5), rtol=1e-4, atol=1e-5)  # one row is rounded otherwise


@over("path", PATHS)
@each(cases(HasLatent))
def test_interpolation_ends_at_both_images_and_moves_in_between(case, path):
    model = make(case).eval()
    y = 1 if case.classes else None
    start, end = model.code(0, y), model.code(1, y)
    images = model.interpolate(start, end, steps=7, y=y, path=path)
    with torch.no_grad():
        ends = model.decode(torch.cat([start, end]), model.labels(y, 2))
    assert images.shape == (7, *SMALL)
    torch.testing.assert_close(images[[0, -1]], ends, rtol=1e-4, atol=1e-5)
    assert images.diff(dim=0).flatten(1).any(1).all()


@over("path", PATHS)
@each(cases(HasLatent)[:1])
def test_paths_do_not_turn_around_and_parallel_codes_are_joined_straight(case, path):
    a, t = torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    torch.testing.assert_close(PATHS[path](a, 3 * a, t), a * (1 + 2 * t))
    torch.testing.assert_close(PATHS[path](a, -a, t), a * (1 - 2 * t))
    b = torch.tensor([[-4.0, 3.0]], dtype=torch.float64)  # as long as a, at a right angle
    lengths = PATHS[path](a, b, t).norm(dim=1)
    if path == "spherical":
        torch.testing.assert_close(lengths, torch.full_like(lengths, 5.0))
    with pytest.raises(ConfigError, match="at least 2 steps, given 1"):
        make(case).interpolate(a.float(), b.float(), steps=1)


@each(cases(Encodes))
def test_images_have_codes_of_the_priors_size(case):
    model = make(case)
    x, y = some_batch(model)
    assert model.encode(x, y).shape == (len(x), model.code(0, 0 if case.classes else None).shape[1])


@over("shape", SHAPES, ids=str)
@each(cases(Reconstructs))
def test_reconstructions_are_images_of_the_same_shape_and_range(case, shape):
    model = make(case, shape)
    x, y = some_batch(model, n=2)
    copies = model.reconstruct(x, y)
    assert copies.shape == x.shape
    assert copies.isfinite().all()
    assert copies.abs().max() <= 1


@each(cases(Scores))
def test_each_image_has_one_finite_score(case):
    model = make(case)
    x, y = some_batch(model)
    scores = model.score(x, y)
    assert scores.shape == (len(x),)
    assert scores.isfinite().all()
    assert not scores.requires_grad


def uses_of_images(model: GenerativeModel) -> list[str]:
    table = {"encode": Encodes, "reconstruct": Reconstructs, "score": Scores}
    return [name for name, capability in table.items() if isinstance(model, capability)]


TAKES_IMAGES = [case for case in CASES if uses_of_images(make(case))]
assert TAKES_IMAGES


@each(TAKES_IMAGES)
def test_uint8_pixels_and_floats_are_the_same_images(case):
    model = make(case)
    x, y = some_batch(model)
    pixels = to_uint8(x)
    for name in uses_of_images(model):
        use = getattr(model, name)
        assert torch.equal(use(pixels, y), use(to_float(pixels), y))


@over("shape", [(2, 1, 8, 9), (2, 3, 8, 8), (1, 8, 8)])
@each(TAKES_IMAGES)
def test_images_of_another_shape_are_refused(case, shape):
    model = make(case)
    for name in uses_of_images(model):
        with pytest.raises(ConfigError, match=r"the model takes images \(N, 1, 8, 8\), given \("):
            getattr(model, name)(torch.zeros(shape), [0] * shape[0] if case.classes else None)


@each([case for case in TAKES_IMAGES if case.classes])
def test_images_need_their_classes(case):
    model = make(case)
    for name in uses_of_images(model):
        with pytest.raises(ConfigError, match="needs the images' classes: give y"):
            getattr(model, name)(some_batch(model).x)


# On disk


@pytest.fixture
def saved(case, tmp_path):
    """A model with buffers that training has moved, and its folder."""
    model = make(case).train()
    for player in model.players().values():
        player.loss(some_batch(model))
    model.record = {"data": "waves", "steps": 1, "test": {"loss": 0.5}}
    model.save_pretrained(tmp_path)
    return model, tmp_path


@each(CASES)
def test_a_saved_model_comes_back_as_it_was(case, saved):
    model, folder = saved
    loaded = GenerativeModel.from_pretrained(str(folder))
    assert type(loaded) is families()[case.family]
    assert not loaded.training
    assert (loaded.config, loaded.shape, loaded.classes) == (model.config, model.shape, model.classes)
    assert loaded.record == model.record
    assert loaded.weights_hash() == model.weights_hash()
    assert torch.equal(loaded.sample(40, seed=9), model.sample(40, seed=9))


@each(CASES)
def test_a_model_folder_holds_a_card_a_picture_json_and_no_pickle(case, saved):
    _, folder = saved
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md", "samples.png"}
    assert json.loads((folder / "config.json").read_text())["family"] == case.family
    assert case.family in (folder / "README.md").read_text()
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    # A pickle begins with \x80, torch.save's archive with PK; safetensors with the length of a JSON header.
    weights = (folder / "model.safetensors").read_bytes()
    assert json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")]).keys() >= make(case).state_dict().keys()


def cut(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def scramble(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)


def empty_config(folder):
    (folder / "config.json").write_text("{}")


def half_config(folder):
    (folder / "config.json").write_text('{"format": 1, "fam')


def lose_weights(folder):
    (folder / "model.safetensors").unlink()


def lose_config(folder):
    (folder / "config.json").unlink()


@over(
    ("damage", "words"),
    [
        (cut, "model.safetensors is damaged"),
        (scramble, "model.safetensors is damaged"),
        (empty_config, "config.json is damaged or of another form: format: Field required"),
        (half_config, "config.json is damaged"),
        (lose_weights, "model.safetensors is missing"),
        (lose_config, "no model could be read at"),
    ],
)
@each(CASES[:1])  # the reader is the same for all
def test_a_damaged_model_folder_is_refused_in_words(case, saved, damage, words):
    _, folder = saved
    damage(folder)
    with pytest.raises(RunError, match=words):
        GenerativeModel.from_pretrained(str(folder))


@over("there", ["missing", "missing/deeper"])
def test_a_missing_model_folder_is_refused_in_words(tmp_path, there):
    with pytest.raises(RunError, match="no model could be read at"):
        GenerativeModel.from_pretrained(str(tmp_path / there))


@each(CASES)
def test_weights_of_another_size_are_refused(case, saved, tmp_path_factory):
    _, folder = saved
    other = tmp_path_factory.mktemp("other")
    make(case, SHAPES[1]).save_pretrained(other)
    (other / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(RunError, match="of another model"):
        GenerativeModel.from_pretrained(str(folder))


@each(WITHOUT_CLASSES)
def test_a_family_does_not_load_anothers_model(case, saved):
    _, folder = saved
    others = [cls for name, cls in families().items() if name != case.family]
    assert others
    for other in others:
        with pytest.raises(RunError, match=f"holds a model of the family '{case.family}', not '{other.family}'"):
            other.from_pretrained(str(folder))


# Hyperparameters


@over(("name", "preset"), PRESETS)
def test_presets_survive_json(name, preset):
    model, training = families()[name].presets[preset]
    for value in (model, training):
        assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


@over(("name", "preset"), PRESETS)
def test_unknown_hyperparameters_are_refused_by_name(name, preset):
    for value in families()[name].presets[preset]:
        with pytest.raises(ConfigError, match="no_such_thing"):
            from_json(type(value), {**to_json(value), "no_such_thing": 1})
        with pytest.raises(ConfigError, match="unknown hyperparameter 'no_such_thing'"):
            override(value, {"no_such_thing": 1})


@over("cls", families().values(), ids=families())
def test_families_have_the_default_and_the_tutorial_preset(cls):
    assert {"default", "tutorial"} <= cls.presets.keys()
    assert all(isinstance(preset.model, cls.Config) for preset in cls.presets.values())


@over("cls", families().values(), ids=families())
def test_a_familys_hyperparameters_are_told_apart_from_those_of_training_and_data(cls):
    own = {field.name for field in fields(cls.Config)}
    assert own
    for other in (Training, DataSpec):
        assert not own & {field.name for field in fields(other)}


SPECS = [*(cls.Config for cls in families().values()), *NETWORKS.values(), Training, DataSpec]


@over("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_hyperparameter_has_a_line_of_help(spec):
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(spec))).body
    helped = {
        field.target.id
        for field, text in pairwise(body.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value.value, str)
    }
    assert {field.name for field in fields(spec)} - {"kind"} == helped - {"kind"} != set()


@over("spec", SPECS, ids=lambda spec: spec.__name__)
def test_specs_have_defaults_and_cannot_be_changed(spec):
    value = spec()
    assert replace(value) == value
    for field in fields(spec):
        with pytest.raises(AttributeError):
            setattr(value, field.name, None)


@each(CASES)
def test_a_model_survives_pickling_and_draws_the_same_images(case):
    model = make(case)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.sample(3, seed=5), model.sample(3, seed=5))
