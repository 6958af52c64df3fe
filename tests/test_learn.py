"""The studio's lessons: what is drawn is the model's own, numbers are the players', and lessons end."""

import asyncio
import json
import threading
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="the studio's packages are not here: pip install 'fabulate[studio]'")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from fabulate.models.base import evaluating
from fabulate.seeds import seeded
from fabulate.studio import requests as asked
from fabulate.studio.app import application
from fabulate.studio.jobs import FullError
from fabulate.studio.learn.code import SOURCE, code_of
from fabulate.studio.learn.exercises import EXERCISES, few_enough
from fabulate.studio.learn.lesson import NARROW, Lesson
from fabulate.studio.learn.sessions import MOST, Lessons
from fabulate.studio.learn.toys import CENTRES, COUNT, ENTROPY, NOISE, coverage, points_of
from fabulate.studio.learn.views import SIDE, VIEWS, lattice
from fabulate.studio.places import Roots
from fabulate.types import Batch

TOKEN, PORT = "abcdefghijklmnop", 8008
FAMILIES = [*VIEWS]
PRESETS = [(family, preset) for family in FAMILIES for preset in ("default", "tutorial")]


def lesson(family: str, preset: str = "default", **given: Any) -> Lesson:
    return Lesson(asked.Lesson(**{"family": family, "preset": preset, "data": "grid", **given}))


def read(packet: bytes) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray]:
    """What the page reads: JSON, points, arrows, field."""
    length, about = (int.from_bytes(packet[i : i + 4], "little") for i in (0, 4))
    assert length == len(packet) - 4 and about % 4 == 0
    told = json.loads(packet[8 : 8 + about])
    points, arrows, _ = told["counts"]
    numbers = np.frombuffer(packet, "<f4", 2 * points + 4 * arrows, 8 + about)
    field = np.frombuffer(packet, np.uint8, offset=8 + about + numbers.nbytes)
    assert len(field) == told["counts"][2]
    return told, numbers[: 2 * points].reshape(-1, 2), numbers[2 * points :].reshape(-1, 4), field


@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_the_number_shown_is_the_players_loss_in_its_own_noise(family, preset):
    one = lesson(family, preset)
    name, player = next(iter(one.learner.players.items()))
    (batch,) = one.learner.micro_batches()
    with seeded(0, "noise", 0, name, 0):
        own = player.loss(batch)
    one.steer(asked.Steer(lesson=one.name, turns=1))
    told, points, arrows, field = read(one.picture())
    prefix = f"{name}." if len(one.players) > 1 else ""
    assert told["terms"] == pytest.approx(
        {prefix + term: float(value.detach()) for term, value in own.items()}, abs=1e-6
    )
    assert len(points) == 400 and len(arrows) >= 60 and np.isfinite(points).all() and np.isfinite(arrows).all()
    assert len(field) == one.view.side**2
    assert told["next"] == [*one.players, *one.players][1]


def test_a_turn_moves_its_own_player_and_no_other():
    one = lesson("gan", "tutorial")
    critic, generator = ([p.clone() for p in part.parameters()] for part in (one.model.critic, one.model.generator))

    def moved() -> tuple[bool, bool]:
        pairs = ((critic, one.model.critic), (generator, one.model.generator))
        return tuple(any((a != b).any() for a, b in zip(old, now.parameters(), strict=True)) for old, now in pairs)

    one.turn()
    assert moved() == (True, False) and one.step == 0
    one.turn()
    assert moved() == (True, True) and one.step == 1


def test_lessons_of_a_seed_are_the_training_loops_own_steps():
    """Turn by turn or step by step, the same weights come out."""
    by_turns, by_steps = lesson("gan"), lesson("gan")
    for _ in range(6):
        by_turns.turn()
    for _, _ in zip(range(3), by_steps.learner.steps(), strict=False):
        pass
    for a, b in zip(by_turns.model.parameters(), by_steps.model.parameters(), strict=True):
        assert torch.equal(a, b)


# Arrows


def test_arrows_of_the_textbooks_gan_are_what_its_formula_gives():
    """-d/dx of the mean of -log sigmoid(D(x)), for each point: sigmoid(-D(x)) dD/dx."""
    one = lesson("gan", "tutorial")
    for _ in range(4):
        one.turn()
    _, _, arrows, _ = read(one.picture())
    x = torch.tensor(arrows[:, :2]).view(-1, 1, 1, 2).requires_grad_()
    score = one.model.scores(x, None)
    (slope,) = torch.autograd.grad(score.sum(), x)
    expected = torch.sigmoid(-score)[:, None] * slope.view(-1, 2)
    assert np.allclose(arrows[:, 2:], expected.detach().numpy(), atol=1e-6) and np.abs(arrows[:, 2:]).max() > 1e-4


@pytest.mark.parametrize("family", ["ae", "vae"])
def test_arrows_lead_from_points_to_their_reconstructions(family):
    one = lesson(family)
    one.turn()
    _, _, arrows, _ = read(one.picture())
    x = torch.tensor(arrows[:, :2].copy()).view(-1, 1, 1, 2)
    with torch.no_grad():
        ends = one.model.decode(one.model.codes(Batch(x))).view(-1, 2)
    assert np.allclose(arrows[:, :2] + arrows[:, 2:], ends.numpy(), atol=1e-6)


def test_arrows_of_the_normalizing_flow_are_the_slope_of_its_log_density():
    one = lesson("nf")
    for _ in range(3):
        one.turn()
    _, _, arrows, field = read(one.picture())
    model, x, h = one.model.double().eval(), lattice(SIDE).double(), 1e-5
    for axis in (0, 1):
        step = torch.zeros(2, dtype=torch.float64)
        step[axis] = h
        with torch.no_grad():
            up, down = (model.code_and_log_prob((x + s * step).view(-1, 1, 1, 2), None)[1] for s in (1, -1))
        assert np.allclose(arrows[:, 2 + axis], ((up - down) / (2 * h)).numpy(), rtol=1e-3, atol=1e-3)
    assert field.max() == 255  # where p(x) is highest


def test_arrows_of_the_flow_are_its_networks_velocity():
    """Trained to predict the velocity itself, the network's output is minus the arrow."""
    one = lesson("flow", time=0.3)
    object.__setattr__(one.model.config, "target", "velocity")
    _, _, arrows, _ = read(one.picture())
    x = lattice(SIDE)
    with torch.no_grad():
        velocity = one.model.network(x.view(-1, 1, 1, 2), torch.full((len(x),), 0.3), None).view(-1, 2)
    assert np.allclose(arrows[:, 2:], -velocity.numpy(), atol=1e-4)


# Points


def test_what_is_known_of_the_grid_is_so():
    points = points_of("grid", 3).double()
    distances, nearest = torch.cdist(points, CENTRES.double()).min(1)
    # -log p(x) of nine equal Gaussians that do not overlap, at their own points
    surprise = distances.square() / (2 * NOISE**2) + np.log(2 * np.pi * NOISE**2) + np.log(len(CENTRES))
    assert abs(float(surprise.mean()) - ENTROPY) < 5 * float(surprise.std()) / COUNT**0.5
    assert coverage(points_of("grid", 3)).modes == 9 and coverage(points_of("ring", 3)).near < 0.5
    assert coverage(points[nearest == 4].float()).modes == 1


def test_a_lesson_learns_what_somebody_drew():
    drawn = [(0.5, -0.5), (0.4, -0.4)] * 15
    one = lesson("ae", data="drawing", points=drawn, latent_dim=2)
    _, points, _, _ = read(one.facts())
    assert np.allclose(points, drawn)
    with pytest.raises(ValueError, match="points: draw 20 or more to learn from, given 3"):
        lesson("ae", data="drawing", points=drawn[:3])


# What may be moved


def test_knobs_count_from_the_next_picture_on():
    one = lesson("flow")
    before = read(one.picture())
    one.steer(asked.Steer(lesson=one.name, evaluations=1, rate=0.5))
    after = read(one.picture())
    assert not np.allclose(before[1], after[1]) and one.learner.rate("model") <= 0.5 == one.learner.lr
    vae = lesson("vae")
    vae.steer(asked.Steer(lesson=vae.name, beta=0.0, turns=1))
    terms = read(vae.picture())[0]["terms"]
    assert terms["loss"] == pytest.approx(terms["reconstruction"], abs=1e-6) and terms["kl"] > 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"family": "ae", "beta": 1.0}, "beta: there is none in this lesson"),
        ({"family": "gan", "preset": "tutorial", "penalty": 1.0}, "penalty: there is none"),
        ({"family": "gan", "latent_dim": 1}, "latent_dim: gan has none in a lesson"),
    ],
)
def test_what_a_family_does_not_have_is_refused_in_words(given, words):
    with pytest.raises(ValueError, match=words):
        lesson(**given)


def test_a_lesson_that_diverges_says_so_and_stops():
    one = lesson("ae", "tutorial", rate=1.0)
    with torch.no_grad():
        one.model.decoder.layers[0].weight.fill_(float("nan"))
    one.playing = True
    one.play()
    assert not one.playing and one.over and "diverged" in one.trouble


# Code


@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_the_code_shown_stands_in_its_file_with_the_loss_marked(family, preset):
    model = lesson(family, preset).model
    code = code_of(model)
    assert [*code] == [*model.players()]
    for excerpts in code.values():
        assert any(each["marks"] for each in excerpts)
        for each in excerpts:
            lines = (SOURCE / each["file"]).read_text().splitlines()
            shown = each["text"].splitlines()
            assert lines[each["line"] - 1].strip() == shown[0].strip()
            assert all(line.strip() in {known.strip() for known in lines} for line in shown)


# Exercises


def test_exercises_are_solved_by_numbers_and_not_before():
    entropy = next(each for each in EXERCISES if each.name == "entropy").answer
    assert entropy is not None
    assert entropy(lesson("nf"), -0.957) and not entropy(lesson("nf"), 0) and not entropy(lesson("ae"), -0.957)
    beta = next(each for each in EXERCISES if each.name == "beta")
    one = lesson("vae", data="moons")
    assert beta.solved is not None and not beta.solved(one)
    one.taken = 1000
    one.recent["kl"] = one.recent.get("kl") or type(one.modes)([0.05] * 50, maxlen=50)
    assert beta.solved(one)
    modes = next(each for each in EXERCISES if each.name == "modes").solved
    gan = lesson("gan")
    gan.modes.extend([9] * 19)
    assert modes is not None and not modes(gan)
    gan.modes.append(9)
    assert modes(gan)


def test_the_fewest_evaluations_are_counted_by_drawing():
    one = lesson("flow")
    one.taken, shares = 1000, {1: 0.1, 2: 0.5, 3: 0.75, 4: 0.85}

    class Drawn:
        def points(self) -> torch.Tensor:
            near = round(100 * shares[min(one.model.sampling.evaluations, 4)])
            return torch.cat([CENTRES[:1].expand(near, 2), torch.full((100 - near, 2), 0.35)])

    one.view = Drawn()  # type: ignore[assignment]
    assert [few_enough(one, count) for count in (1, 2, 3, 4, 3.5, 0)] == [False, False, True, False, False, False]


# How many, and until when


def watched(lessons: Lessons, one: Lesson, pictures: int) -> list[bytes]:
    """So many packets, and then the page goes away."""

    async def look() -> list[bytes]:
        stream = lessons.watch(one, lambda: False)
        found = [await anext(stream) for _ in range(pictures)]
        await stream.aclose()  # type: ignore[attr-defined]
        return found

    return asyncio.run(look())


def test_lessons_are_few_and_end_when_nobody_looks():
    lessons, before = Lessons(), threading.active_count()
    some = [lessons.begin(asked.Lesson(family="ae", preset="tutorial")) for _ in range(MOST)]
    with pytest.raises(FullError, match="4 lessons are open already"):
        lessons.begin(asked.Lesson(family="ae"))
    some[0].playing = True
    packets = watched(lessons, some[0], 4)
    assert read(packets[0])[0]["name"] == some[0].name and some[0].step > 0
    step = some[0].step
    assert some[0].name not in lessons.all and len(lessons.all) == MOST - 1
    with pytest.raises(FileNotFoundError):
        lessons.steer(asked.Steer(lesson=some[0].name, turns=1))
    assert some[0].step == step and threading.active_count() == before
    lessons.begin(asked.Lesson(family="ae", preset="tutorial"))
    some[1].touched -= 60  # nobody ever came for its first picture
    assert lessons.begin(asked.Lesson(family="ae", preset="tutorial")).name in lessons.all
    assert some[1].name not in lessons.all and some[2].name in lessons.all


def test_a_lesson_that_nobody_touches_ends():
    lessons = Lessons()
    one = lessons.begin(asked.Lesson(family="ae", preset="tutorial"))
    one.touched -= 10_000

    async def all_of_it() -> int:
        return len([packet async for packet in lessons.watch(one, lambda: False)])

    assert asyncio.run(all_of_it()) == 1 and not lessons.all


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    home = tmp_path_factory.mktemp("home")
    app = application(Roots([home], here=home), TOKEN, PORT, ("127.0.0.1",))
    app.state.closing = lambda: True  # so that an answer ends
    client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
    assert client.get(f"/?token={TOKEN}").status_code == 200
    return client


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("lesson", {"family": "ar"}, "family"),
        ("lesson", {"family": "ae", "rate": 1e9}, "rate"),
        ("lesson", {"family": "ae", "rate": float("nan")}, "rate"),
        ("lesson", {"family": "ae", "seed": 2**70}, "seed"),
        ("lesson", {"family": "ae", "latent_dim": 10**6}, "latent_dim"),
        ("lesson", {"family": "nf", "latent_dim": 2}, "latent_dim"),
        ("lesson", {"family": "ae", "data": "drawing"}, "points"),
        ("lesson", {"family": "ae", "data": "drawing", "points": [[2.0, 0.0]] * 30}, "points"),
        ("lesson", {"family": "ae", "data": "drawing", "points": [[0.0, 0.0]] * 3000}, "points"),
        ("lesson", {"family": "vae", "beta": -1}, "beta"),
        ("lesson", {"family": "flow", "evaluations": 10**9}, "evaluations"),
        ("steer", {"lesson": "x", "turns": 10**9}, "turns"),
        ("steer", {"lesson": "x", "strange": 1}, "strange"),
        ("answer", {"lesson": "x", "exercise": "entropy", "value": float("inf")}, "value"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_its_name(page, path, body, field):
    answer = page.post(f"/api/learn/{path}", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and field in answer.json()["error"]


def test_lessons_are_asked_for_by_post_and_leave_nothing(page):
    assert page.get("/api/learn/lesson").status_code == 405
    answer = page.post("/api/learn/lesson", json={"family": "ae", "preset": "tutorial"})
    told, points, _, _ = read(answer.content)
    assert told["family"] == "ae" and len(points) == COUNT
    assert page.post("/api/learn/steer", json={"lesson": told["name"], "turns": 1}).status_code == 404
    assert [each["name"] for each in page.get("/api/learn").json()["exercises"]] == [each.name for each in EXERCISES]


def test_only_sources_of_losses_are_shown(page):
    assert "class VAE" in page.get("/api/learn/source", params={"file": "models/families/vae.py"}).text
    for file in ("../../pyproject.toml", "studio/guard.py", "/etc/passwd", "models/families/../../errors.py"):
        assert page.get("/api/learn/source", params={"file": file}).status_code == 404


@pytest.mark.slow
def test_the_textbooks_gan_collapses_and_the_default_holds():
    modes = {}
    for preset in ("tutorial", "default"):
        one = lesson("gan", preset)
        for _ in range(2 * 3000):
            one.turn()
        with evaluating(one.model):
            modes[preset] = coverage(one.view.points()).modes
    assert modes["tutorial"] <= 4 and modes["default"] == 9 and ("gan", "tutorial") not in NARROW
