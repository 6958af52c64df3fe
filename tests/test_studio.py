"""The studio's server: who may ask, what may be asked, jobs that outlive it, and what it tells of folders."""

import asyncio
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="the studio's packages are not here: pip install 'fabulate[studio]'")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from fabulate.config import Reading
from fabulate.data import load_data
from fabulate.studio import requests as asked
from fabulate.studio.app import application
from fabulate.studio.forms import cards, form
from fabulate.studio.guard import LARGEST_UPLOAD
from fabulate.studio.jobs import WAITING, FullError, Jobs
from fabulate.studio.places import OutsideError, Roots
from fabulate.studio.runs import Follower, events
from fabulate.training import load
from fabulate.types import to_uint8
from test_docs import understand
from tiny import ends

TOKEN, PORT = "abcdefghijklmnop", 8008
WEB = Path(asked.__file__).parent / "web"
TINY = ["--network", "mlp", "--network.hidden", "16", "--latent-dim", "4", "--steps", "20", "--batch-size", "16"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a folder of images with broken ones, and a link that leads out of it."""
    home = tmp_path_factory.mktemp("home")
    assert ends("train", "vae", *TINY, "--out", home / "runs" / "vae") == 0
    images = load_data("digits").train.x
    for i in range(24):
        place = home / "photos" / ("one" if i % 2 else "two")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i, 0]).save(place / f"{i}.png")
    (home / "photos" / "one" / "<img src=x onerror=alert(1)>.png").write_text("no image")
    (home / "photos" / "one" / "again.png").write_bytes((home / "photos" / "one" / "1.png").read_bytes())
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    Image.new("L", (8, 8)).save(secret)
    (home / "link").symlink_to(secret.parent)
    (home / "runs" / "secret.png").symlink_to(secret)
    return home


@pytest.fixture
def stranger(home: Path) -> TestClient:
    """A browser that has not opened the address with the token."""
    app = application(Roots([home], here=home), TOKEN, PORT, ("127.0.0.1", "localhost"))
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=True)


@pytest.fixture
def page(stranger: TestClient) -> TestClient:
    """A browser that has."""
    assert stranger.get(f"/?token={TOKEN}").status_code == 200
    return stranger


# Who may ask


def test_only_the_address_with_the_token_opens_the_page(stranger):
    for path in (
        "/",
        "/?token=",
        "/?token=abcdefghijklmnoq",
        "/static/app.js",
        "/api/home",
        f"/api/home?token={TOKEN}",
    ):
        assert stranger.get(path).status_code == 401, path
    opened = stranger.get(f"/?token={TOKEN}")
    cookie = opened.headers["set-cookie"]
    assert opened.status_code == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert stranger.get("/api/home").status_code == 200
    stranger.cookies.set(f"fabulate_{PORT}", "abcdefghijklmnoq")
    stranger.cookies.clear()
    assert stranger.get("/api/home", headers={"Cookie": f"fabulate_{PORT}=abcdefghijklmnoq"}).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8008", "127.0.0.1:80", "127.0.0.1", "192.168.0.7:8008", "[", ""]
)
def test_a_name_that_leads_here_is_not_ours(page, host):
    assert page.get("/api/home", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:8008", "http://127.0.0.1:1234"])
def test_a_page_of_another_origin_may_not_ask(page, origin):
    assert page.post("/api/jobs/train", json={}, headers={"Origin": origin}).status_code == 403
    assert page.get("/api/home", headers={"Origin": origin}).status_code == 403
    assert page.get("/api/home", headers={"Origin": f"http://127.0.0.1:{PORT}"}).status_code == 200


def test_numbers_are_hosts_only_where_others_are_let_in(home):
    app = application(Roots([home], here=home), TOKEN, PORT, ("127.0.0.1",), anywhere=True)
    client = TestClient(app, base_url=f"http://192.168.0.7:{PORT}")
    assert client.get(f"/?token={TOKEN}").status_code == 200
    assert client.get(f"/?token={TOKEN}", headers={"Host": f"evil.example:{PORT}"}).status_code == 421


def test_every_answer_loads_from_here_alone(stranger):
    for answer in (
        stranger.get("/"),
        stranger.get(f"/?token={TOKEN}"),
        stranger.get("/api/home"),
        stranger.get("/api/none"),
    ):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; object-src 'none'")
        assert (
            answer.headers["x-content-type-options"] == "nosniff" and answer.headers["referrer-policy"] == "no-referrer"
        )


def test_a_report_runs_no_script(page, home):
    (home / "runs" / "vae" / "report").mkdir(exist_ok=True)
    report = home / "runs" / "vae" / "report" / "index.html"
    report.write_text("<script>alert(1)</script>")
    policy = page.get("/api/page/runs/vae/report/index.html").headers["content-security-policy"]
    report.unlink()
    assert "sandbox" in policy and "default-src 'none'" in policy and "script" not in policy and "allow" not in policy


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(folder.rglob("*"))}


def test_no_get_changes_anything(page, home):
    before = everything(home)
    paths = {route.path for route in page.app.routes if "GET" in getattr(route, "methods", ())}
    paths |= {
        each.path
        for route in page.app.routes
        for each in getattr(getattr(route, "original_router", None), "routes", ())
        if "GET" in each.methods
    }
    paths = {path for path in paths if "events" not in path}
    assert len(paths) > 8, paths
    for path in sorted(paths):
        place = re.sub(r"\{[^}]*\}", "runs/vae", path)
        page.get(place, params={"path": "runs/vae", "run": "runs/vae", "family": "vae"})
    assert everything(home) == before


# Where it may look


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../elsewhere",
        "/etc/passwd",
        "runs/../../x",
        "link/secret.png",
        "runs/secret.png",
        "~root",
        "a\0b",
        "x" * 5000,
    ],
)
def test_paths_lie_under_the_roots_with_links_resolved(page, home, path):
    with pytest.raises(OutsideError):
        Roots([home], here=home).allowed(path)
    for answer in (
        page.get("/api/file", params={"path": path}),
        page.get("/api/thumbnail", params={"path": path}),
        page.get("/api/run", params={"path": path}),
        page.post("/api/explore/draw", json={"run": path}),
        page.post("/api/command/train", json={"family": "vae", "source": "digits", "out": path}),
        page.post("/api/command/train", json={"family": "vae", "source": path, "out": "runs/new"}),
        page.post("/api/data", json={"source": path}),
    ):
        assert answer.status_code in (403, 422), (answer.url, answer.text)
        assert "path" in answer.text or "source" in answer.text or "4096" in answer.text


def test_files_that_are_no_pictures_are_not_shown(page):
    assert page.get("/api/file", params={"path": "runs/vae/samples.png"}).headers["content-type"] == "image/png"
    for path in ("runs/vae/config.json", "runs/vae", "runs/vae/log.jsonl"):
        assert page.get("/api/file", params={"path": path}).status_code == 422
    assert page.get("/api/file", params={"path": "runs/none.png"}).status_code == 404
    for name in ("../app.py", "..%2fapp.py", "index.html"):
        assert page.get(f"/static/{name}").status_code == 404


# What may be asked

DRAW, MAP = {"run": "runs/vae"}, {"run": "runs/vae", "places": [[0.0, 0.0]]}
TRAIN = {"family": "vae", "source": "digits", "out": "runs/new"}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/explore/draw", {**DRAW, "n": 10**9}, "n"),
        ("/api/explore/draw", {**DRAW, "seed": 2**70}, "seed"),
        ("/api/explore/draw", {**DRAW, "seed": -1}, "seed"),
        ("/api/explore/draw", {**DRAW, "sampling": {"temperature": 1}}, "temperature"),
        ("/api/explore/draw", {**DRAW, "n": "NaN"}, "n"),
        ("/api/explore/decode", {**MAP, "places": [[float("nan")]]}, "places"),
        ("/api/explore/decode", {**MAP, "places": [[1e9]]}, "places"),
        ("/api/explore/decode", {**MAP, "places": [[0.0]] * 1000}, "places"),
        ("/api/explore/decode", {**MAP, "places": [[0.0], [0.0, 1.0]]}, "places"),
        ("/api/explore/decode", {**MAP, "n": 10**7}, "n"),
        ("/api/command/sample", {**DRAW, "n": 10**9}, "n"),
        ("/api/command/sample", {**DRAW, "strange": 1}, "strange"),
        ("/api/command/train", {**TRAIN, "reading": {"size": 10**5}}, "size"),
        ("/api/command/train", {**TRAIN, "reading": {"source": "/etc"}}, "source"),
        ("/api/command/train", {**TRAIN, "training": {"seed": 2**70}}, "seed"),
        ("/api/command/train", {**TRAIN, "training": {"steps": -1}}, "steps"),
        ("/api/command/train", {**TRAIN, "training": {"minutes": float("inf")}}, "minutes"),
        ("/api/command/train", {**TRAIN, "training": {"out": "/etc"}}, "out"),
        ("/api/command/train", {**TRAIN, "model": {"latent_dim": 10**9}}, "latent_dim"),
        ("/api/command/train", {**TRAIN, "model": {"network": {"kind": "mlp", "hidden": [10**9]}}}, "hidden"),
        ("/api/command/train", {**TRAIN, "model": {"network": {"kind": "mlp", "hiden": [8]}}}, "hiden"),
        ("/api/command/train", {**TRAIN, "model": {"network": {"kind": "none"}}}, "none"),
        ("/api/command/train", {**TRAIN, "model": {"--out": "/etc"}}, "--out"),
        ("/api/command/train", {**TRAIN, "family": "vea"}, "vea"),
        ("/api/command/compare", {"runs": ["runs/vae"] * 5}, "runs"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused_with_its_name(page, path, body, field):
    answer = page.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert field in answer.json()["error"]


def test_bodies_have_a_bound(page):
    assert page.post("/api/explore/draw", content=b" " * (2 << 20)).status_code == 413
    answer = page.post("/api/explore/image?run=runs/vae", content=b"x" * (LARGEST_UPLOAD + 1))
    assert answer.status_code == 413
    answer = page.post("/api/explore/image?run=runs/vae", content=b"no image at all")
    assert answer.status_code == 422 and "image" in answer.json()["error"]


def test_a_picture_of_too_many_pixels_is_not_decoded(page):
    header = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + (60_000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    answer = page.post("/api/explore/image?run=runs/vae", content=header + b"\0" * 400)
    assert answer.status_code == 422


def test_two_hundred_mutated_requests_are_answered_in_order(page):
    """Whatever a body is, the answer is words: never a traceback."""
    chance = random.Random(0)
    good = [
        ("/api/command/train", TRAIN), ("/api/command/sample", DRAW), ("/api/explore/draw", {**DRAW, "n": 2}),
        ("/api/explore/decode", {**MAP, "n": 10}), ("/api/command/compare", {"runs": ["runs/vae", "runs/vae"]}),
        ("/api/explore/map", {**DRAW, "n": 10}), ("/api/command/outliers-fit", {"source": "photos", "out": "runs/o"}),
        ("/api/data/sheet", {"source": "photos"}), ("/api/outliers/decide", {"ranking": "runs/vae"}),
        ("/api/explore/walk", {**MAP, "n": 10}), ("/api/outliers/images", {"ranking": "photos"}),
    ]  # fmt: skip
    strange: list[Any] = [
        None,
        -1,
        0,
        1e300,
        "",
        "x" * 300,
        [],
        {},
        [[]],
        True,
        "../..",
        "photos",
        {"kind": 1},
        2**64,
        "\ud800",
    ]
    seen = set()
    for _ in range(200):
        path, body = chance.choice(good)
        mutated = {**body, chance.choice([*body, "label", "n", "reading", "model"]): chance.choice(strange)}
        seen.add(page.post(path, content=json.dumps(mutated), headers={"Content-Type": "application/json"}).status_code)
    assert seen <= {200, 403, 404, 409, 422} and {200, 422} <= seen


# Jobs

SLEEPER = ("sh", "-c")


def until(true, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def group_of(jobs: Jobs, name: str) -> list[int]:
    """The processes of a job that are alive."""
    pid = int((jobs.folder / name / "pid").read_text())
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path, tmp_path, SLEEPER)
    yield jobs
    for job in jobs.all():
        if job.state == "running":
            os.killpg(int((jobs.folder / job.name / "pid").read_text()), signal.SIGKILL)


def test_jobs_run_one_after_the_other_and_tell_how_they_ended(jobs, tmp_path):
    first = jobs.submit(["echo one; sleep 0.2"], "first", "a")
    second = jobs.submit(["exit 3"], "second", "b")
    assert (first.state, second.state) == ("running", "waiting")
    until(lambda: jobs.advance() or jobs.get(second.name).code is not None)
    assert [(job.about, job.state, job.code) for job in jobs.all()] == [("first", "done", 0), ("second", "failed", 3)]
    assert jobs.get(first.name).output == "one\n"


def test_a_full_queue_says_so(jobs):
    for _ in range(WAITING + 1):
        jobs.submit(["sleep 20"], "", "")
    with pytest.raises(FullError):
        jobs.submit(["sleep 20"], "", "")


def test_the_page_hears_of_a_full_queue(page, home):
    queue = page.app.state.jobs
    before, queue.program = queue.program, SLEEPER
    queue.submit(["sleep 30"], "", "")
    try:
        answers = [page.post("/api/jobs/sample", json=DRAW).status_code for _ in range(WAITING + 1)]
        assert answers == [200] * WAITING + [429]
    finally:
        for job in reversed(queue.all()):
            queue.stop(job.name)
        until(lambda: queue.advance() or all(job.state == "stopped" for job in queue.all()))
        queue.program = before


def test_a_disk_that_is_full_is_told_and_leaves_nothing(page, home, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(home))

    monkeypatch.setattr("fabulate.studio.jobs.write_json", full)
    before = page.app.state.jobs.names()
    answer = page.post("/api/jobs/sample", json=DRAW)
    assert answer.status_code == 507 and "No space left" in answer.json()["error"]
    assert sorted(path.name for path in page.app.state.jobs.folder.iterdir()) == before


def test_stopping_ends_all_processes_of_a_job(jobs):
    job = jobs.submit(["(trap '' TERM; sleep 30) & sleep 31 & wait"], "", "")
    until(lambda: len(group_of(jobs, job.name)) >= 3)
    jobs.stop(job.name)
    until(lambda: jobs.advance() or not group_of(jobs, job.name))  # one of them ignores the signal
    assert jobs.get(job.name).state == "stopped"


def test_a_studio_in_the_background_of_a_script_stops_its_jobs(jobs):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # so a script begins what it does not wait for
    try:
        job = jobs.submit(["sleep 30"], "", "")
        until(lambda: len(group_of(jobs, job.name)) >= 2)
        jobs.stop(job.name)
        until(lambda: jobs.get(job.name).state == "stopped")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_job_that_waits_is_stopped_before_it_begins(jobs):
    running, waiting = jobs.submit(["sleep 30"], "", ""), jobs.submit(["touch begun"], "", "")
    assert jobs.stop(waiting.name).state == "stopped"
    jobs.stop(running.name)
    until(lambda: jobs.advance() or jobs.get(running.name).state == "stopped")
    assert not (jobs.here / "begun").exists()


SERVER = """
import sys, time
from pathlib import Path
from fabulate.studio.jobs import Jobs
here = Path(sys.argv[1])
print(Jobs(here, here, ("sh", "-c")).submit(["echo begun; sleep 1; echo over"], "", "").name, flush=True)
time.sleep(60)
"""


def test_a_job_outlives_a_server_that_is_killed(tmp_path):
    server = subprocess.Popen([sys.executable, "-c", SERVER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    name = server.stdout.readline().strip()
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stdout.close()
    jobs = Jobs(tmp_path, tmp_path, SLEEPER)
    assert jobs.get(name).state == "running"
    later = jobs.submit(["true"], "", "")
    assert later.state == "waiting"
    until(lambda: jobs.advance() or jobs.get(later.name).state == "done")
    assert (jobs.get(name).state, jobs.get(name).output) == ("done", "begun\nover\n")


def test_a_job_that_is_killed_is_lost_and_another_process_is_never_taken_for_it(jobs):
    job = jobs.submit(["sleep 30"], "", "")
    os.killpg(int((jobs.folder / job.name / "pid").read_text()), signal.SIGKILL)
    until(lambda: jobs.get(job.name).state == "lost")
    (jobs.folder / job.name / "pid").write_text(str(os.getpgid(0)))  # the number belongs to someone else now
    assert jobs.stop(job.name).state == "lost"


def test_a_job_whose_number_cannot_be_kept_is_not_left_running(jobs, monkeypatch):
    def full(file: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    with monkeypatch.context() as patch:
        patch.setattr("fabulate.studio.jobs.write_file", full)
        with pytest.raises(OSError, match="No space left"):
            jobs.submit(["echo begun; exec sleep 31.4159"], "", "")
    (name,) = jobs.names()
    until(lambda: jobs.get(name).state == "waiting")  # it does not run, and is begun when there is room
    assert not [line for line in Path("/proc").glob("[0-9]*/cmdline") if b"31.4159" in read(line)]
    jobs.advance()
    assert jobs.get(name).state == "running" and group_of(jobs, name)


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # a process that has gone
        return b""


def test_a_job_runs_where_it_was_asked_for_whichever_studio_begins_it(jobs, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = Jobs(tmp_path, elsewhere, SLEEPER)
    first = jobs.submit(["sleep 0.2"], "", "runs/a")
    second = other.submit(["pwd; touch made"], "", "runs/b")
    until(lambda: jobs.advance() or jobs.get(second.name).state == "done")
    assert (elsewhere / "made").exists() and not (tmp_path / "made").exists()
    assert (jobs.get(first.name).path, jobs.get(second.name).path) == ("runs/a", str(elsewhere / "runs" / "b"))
    assert other.get(second.name).path == "runs/b"


def test_a_job_that_cannot_be_begun_fails_in_words_and_holds_up_no_other(jobs, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    running = jobs.submit(["sleep 0.3"], "", "")
    lost = Jobs(tmp_path, elsewhere, SLEEPER).submit(["true"], "", "")
    after = jobs.submit(["true"], "", "")
    elsewhere.rmdir()
    until(lambda: jobs.advance() or jobs.get(after.name).state == "done")
    assert [jobs.get(job.name).state for job in (running, lost)] == ["done", "failed"]
    assert "elsewhere" in jobs.get(lost.name).output


def test_two_studios_on_one_folder_share_the_queue(jobs):
    other = Jobs(jobs.here, jobs.here, SLEEPER)
    for i in range(4):
        (jobs if i % 2 else other).submit([f"echo {i} >>order; sleep 0.05"], "", "")
    until(lambda: jobs.advance() or other.advance() or all(job.state == "done" for job in jobs.all()))
    assert (jobs.here / "order").read_text().split() == ["0", "1", "2", "3"]


# Forms and commands


def changed(schema: dict[str, Any], value: Any) -> Any:
    """Another value than the default, within the bounds."""
    schema = next((each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"), schema)
    if schema.get("type") == "boolean":
        return not value
    if "enum" in schema:
        return next((each for each in schema["enum"] if each != value), value)
    if schema.get("type") == "array":
        return value
    if schema.get("type") in ("integer", "number"):
        most = schema.get("maximum", schema.get("exclusiveMaximum", 10**6))
        return value + 1 if isinstance(value, int | float) and value + 1 < most else value / 2 if value else value
    return value


FAMILIES = [card["name"] for card in cards() if card["images"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_form_has_every_hyperparameter_with_its_help(family):
    found = form(family)
    for part in ("model", "training", "reading"):
        fields = found[part]["properties"]
        assert all(about.get("description") for name, about in fields.items() if name != "sampling"), (family, part)
    assert {*found["presets"]["default"]["model"]} == {*found["model"]["properties"]}


@pytest.mark.parametrize(
    "family", ["vae", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "vae")]
)
def test_what_a_form_gives_is_a_command_that_is_understood(family, home, monkeypatch):
    found = form(family)
    schema, own = found["training"]["properties"], found["presets"]["default"]
    other = {
        name: changed(schema[name], v)
        for name, v in own["training"].items()
        if name not in ("accumulate", "batch_size")
    }
    differing = {name: value for name, value in other.items() if value is not None and value != own["training"][name]}
    assert len(differing) > 5
    parts = [
        {part: {k: v for k, v in filled.items() if v is not None}}
        for part, kinds in own["kinds"].items()
        for filled in kinds.values()
    ]
    for part in parts or [{}]:
        body = {"family": family, "source": "digits", "out": "runs/new", "training": differing, "model": part}
        understand(asked.Train.model_validate(body).command(Roots([home], here=home)).words, monkeypatch, {})


def test_every_command_is_understood(home, monkeypatch):
    run, photos, ranking = str(home / "runs" / "vae"), str(home / "photos"), home / "normal" / "photos"
    ranking.mkdir(parents=True)
    about = {"data": {**vars(Reading()), "source": photos, "size": 8}, "parameters": {"false_alarm": 0.02}}
    (home / "normal" / "config.json").write_text(json.dumps(about))
    bodies: dict[str, dict[str, Any]] = {
        "train": {**TRAIN, "reading": {"size": 16, "fit": "pad"}},
        "continue": {"run": run},
        "sample": {"run": run, "label": "one", "sampling": {"codes": "prior"}},
        "interpolate": {"run": run, "seeds": [3, 4]},
        "evaluate": {"run": run},
        "compare": {"runs": [run, run]},
        "outliers-fit": {"source": photos, "reading": {"size": 8}, "out": str(home / "runs" / "normal")},
        "outliers-score": {"detector": run, "source": photos},
        "outliers-refit": {"ranking": str(ranking)},
    }
    assert bodies.keys() == asked.COMMANDS.keys()
    for verb, body in bodies.items():  # from elsewhere all paths are absolute, as `understand` needs them
        words = asked.COMMANDS[verb].model_validate(body).command(Roots([home], here=Path(photos))).words
        understand(words, monkeypatch, {run: "vae"})
    assert words == ["outliers", "fit", ".", "--size", "8", "--false-alarm", "0.02", "--without",
                     str(ranking / "reject.txt"), "--out", str(home / "normal-again"), "--overwrite"]  # fmt: skip
    shutil.rmtree(home / "normal")


# What it tells of folders


def test_the_first_page_has_what_lies_there(page):
    found = page.get("/api/home").json()
    by_kind = {each["kind"]: each for each in found["places"]}
    assert by_kind["run"]["name"] == "vae" and by_kind["run"]["state"] == "finished" and by_kind["run"]["test"]["loss"]
    assert by_kind["images"]["path"] == "photos" and by_kind["images"]["images"] == 26
    assert len(found["places"]) == 2  # and nothing behind the link
    cover = page.get("/api/cover", params={"path": "photos"})
    assert cover.headers["content-type"] == "image/png"


def test_intake_tells_how_far_it_is_and_which_files_are_broken(page, home):
    lines = [json.loads(line) for line in page.post("/api/data", json={"source": "photos"}).text.splitlines()]
    assert all(line["done"] <= line["total"] == 26 for line in lines[:-1]) and lines[-1]["report"]["train"] == 23
    (aside,) = lines[-1]["report"]["set_aside"]
    assert aside[0] == "one/<img src=x onerror=alert(1)>.png" and "not an image" in aside[1]
    assert lines[-1]["report"]["duplicates"] == 1
    sheet = page.post("/api/data/sheet?label=two&count=4", json={"source": "photos"})
    assert sheet.status_code == 200 and sheet.headers["height"] == "8"
    (home / "empty").mkdir()
    (told,) = [json.loads(line) for line in page.post("/api/data", json={"source": "empty"}).text.splitlines()]
    assert "empty" in told["error"]


def test_samples_are_those_of_the_model(page, home):
    answer = page.post("/api/explore/draw", json={**DRAW, "n": 5, "seed": 7, "sampling": {"codes": "prior"}})
    (home / "drawn.png").write_bytes(answer.content)
    with Image.open(home / "drawn.png") as image:
        drawn = np.asarray(image.convert("L"))
    (home / "drawn.png").unlink()
    own = to_uint8(load(home / "runs" / "vae").sample(5, seed=7, codes="prior")).numpy()[:, 0]
    assert np.array_equal(drawn[:8], np.concatenate([*own[:3]], axis=1))
    assert np.array_equal(drawn[8:, :16], np.concatenate([*own[3:]], axis=1)) and not drawn[8:, 16:].any()


def test_a_map_leads_to_the_codes_it_is_of(home):
    from fabulate.studio.explore import decoded, map_of

    found = map_of(home / "runs" / "vae", 40, None)
    places = found.places(found.real)
    assert torch.allclose(found.codes(places), found.real, atol=1e-4)  # all four directions of four numbers
    assert torch.allclose(places[:, 0].var(correction=0), torch.tensor(1.0), atol=1e-4)
    images = decoded(home / "runs" / "vae", 40, None, places[:3].tolist())
    assert np.abs(images.astype(int) - to_uint8(load(home / "runs" / "vae").decode(found.real[:3])).numpy()).max() <= 1


def row(step: int, **more: Any) -> str:
    return json.dumps({"step": step, "epoch": 0.1, "seconds": 1.0, "train": {"loss": 1.0}, **more}) + "\n"


def test_a_follower_hears_each_line_once_and_of_a_training_that_goes_back(tmp_path):
    roots = Roots([tmp_path], here=tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    follower = Follower(run, roots)
    assert "rows" not in (follower.look([]) or {})
    (run / "log.jsonl").write_text(row(1) + row(2)[:10])  # a line that is being written
    assert [each["step"] for each in (follower.look([]) or {})["rows"]] == [1]
    (run / "log.jsonl").write_text(row(1) + row(2))
    assert [each["step"] for each in (follower.look([]) or {})["rows"]] == [2]
    assert follower.look([]) is None
    (run / "new").write_text(row(1))  # as a training that continues cuts its log back: another file in its place
    (run / "new").replace(run / "log.jsonl")
    news = follower.look([])
    assert news is not None and news["reset"] and [each["step"] for each in news["rows"]] == [1]
    (run / "log.jsonl").write_text(row(1) + row(3, finished=True))
    assert (follower.look([]) or {})["state"] == "finished"


def damaged(home: Path) -> Path:
    """A folder of runs and results that somebody made to do harm."""
    config = {"family": "--import=evil.py", "model": {}, "training": {}, "data": {"source": "--import=evil.py"}}
    files = {
        "run/config.json": {**config, "shape": [1, 8, 8], "classes": []},
        "run/checkpoints/none": {},
        "half/metrics.json": {"overall": "half"},
        "half/index.html": {},
        "proof/proof.json": {"helped": "yes", "sentences": [], "baselines": {}, "differences": []},
        "proof/proof.html": {},
        "normal/config.json": {"data": config["data"], "parameters": {"false_alarm": 0.05}},
        "normal/detector.safetensors": {},
        "normal/rank/outliers.json": {"kind": "run", "path": "../..", "images": 3, "outliers": 1},
        "normal/rank/outliers.csv": {},
        "--import=evil.py/1.png": {},
    }
    for name, what in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(json.dumps(what))
    return home


@pytest.fixture
def harmful(tmp_path: Path) -> TestClient:
    app = application(Roots([damaged(tmp_path)], here=tmp_path), TOKEN, PORT, ("127.0.0.1",))
    page = TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=True)
    assert page.get(f"/?token={TOKEN}").status_code == 200
    return page


def test_what_lies_in_a_folder_never_becomes_an_option(harmful):
    words = harmful.post("/api/command/continue", json={"run": "run"}).json()["command"].split()
    assert words == ["fabulate", "train", "--config", "run/config.json", "--out", "run"]
    asked = {"source": "--import=evil.py", "out": "n"}
    fit = harmful.post("/api/command/outliers-fit", json=asked).json()["command"].split()
    assert fit[3] == "./--import=evil.py"
    refused = harmful.post("/api/command/outliers-refit", json={"ranking": "normal/rank"})
    assert refused.status_code in (404, 200) and " --import" not in refused.text


def test_damaged_results_are_left_out_and_told_of(harmful):
    places = harmful.get("/api/home").json()["places"]
    assert {(place["kind"], place["path"]) for place in places} == {
        ("run", "run"),
        ("detector", "normal"),
        ("ranking", "normal/rank"),
    }
    for address in ("/api/comparison", "/api/proof"):
        for path in ("half", "proof", "run"):
            assert harmful.get(address, params={"path": path}).status_code in (404, 409), (address, path)


def test_a_list_has_a_bound_to_its_end(page):
    body = TRAIN | {"model": {"network": {"kind": "mlp", "hidden": [8] * 64 + [10**9]}}}
    answer = page.post("/api/command/train", json=body)
    assert answer.status_code == 422 and "hidden" in answer.json()["error"]


def test_events_are_json_whatever_the_numbers_are(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "train": {"a": NaN, "b": -Infinity, "c": 2.5}}\n')

    async def first() -> str:
        return await anext(events(tmp_path, Roots([tmp_path], here=tmp_path), type("Jobs", (), {"snapshot": []}), bool))

    told = json.loads(asyncio.run(first()).removeprefix("data: "), parse_constant=lambda word: pytest.fail(word))
    assert told["rows"][0]["train"] == {"a": None, "b": None, "c": 2.5}


def test_a_proof_is_told_with_the_numbers_of_its_file(page, home):
    from fabulate.uses.augment.page import to_json
    from fabulate.uses.augment.proof import NAMES, Proof

    y = torch.arange(60) % 2
    right = {
        name: torch.rand(2, 60, generator=torch.Generator().manual_seed(k)) < 0.5 + k / 20
        for k, name in enumerate(NAMES)
    }
    made = to_json(Proof(("a", "b"), right, y, dict.fromkeys(NAMES, 60), 100))
    (home / "more" / "proof").mkdir(parents=True)
    (home / "more" / "proof" / "proof.json").write_text(json.dumps(made))
    (home / "more" / "proof" / "proof.html").write_text("<p>proof</p>")
    told = page.get("/api/proof", params={"path": "more/proof"}).json()
    card = next(place for place in page.get("/api/home").json()["places"] if place["kind"] == "proof")
    shutil.rmtree(home / "more")
    assert (card["name"], card["answer"]) == ("more", made["sentences"][0]) and told["sentences"] == made["sentences"]
    assert [(way["name"], way["value"]) for way in told["ways"]] == [
        (name, way["balanced_accuracy"]["value"]) for name, way in made["baselines"].items()
    ]
    assert {way["name"] for way in told["ways"] if way["synthetic"]} == {"synthetic", "both"}


# The page and the command


def test_the_bundle_is_of_these_sources():
    import hashlib

    files = [
        *sorted(WEB.glob("*.ts")),
        *(WEB / name for name in ("studio.css", "index.html", "icon.svg", "package.json")),
    ]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    static = WEB.parent / "static"
    assert digest == (static / "sources.sha256").read_text().strip(), "the page's sources changed: make web"
    assert sum(file.stat().st_size for file in static.iterdir()) < 1_500_000


def test_the_page_puts_no_words_into_markup():
    for file in WEB.glob("*.ts"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", file.read_text()), (
            file.name
        )
    assert "//" not in re.sub(r'xmlns="[^"]*"', "", (WEB / "index.html").read_text().replace("<!DOCTYPE html>", ""))


def test_help_needs_neither_torch_nor_the_server():
    code = (
        "import sys; from fabulate.cli import main\ntry: main(['studio', '--help'])\n"
        "finally: print({'torch', 'fastapi', 'uvicorn'} & {*sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--token" in shown and shown.endswith("set()\n")


@pytest.mark.slow
def test_a_model_is_loaded_without_what_takes_seconds_to_import(home):
    code = "import sys, fabulate; fabulate.load(sys.argv[1]).sample(1); print('sympy' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code, home / "runs" / "vae"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "False\n"


@pytest.mark.parametrize("words", [["--host", "0.0.0.0"], ["--host", "0.0.0.0", "--token", "short"], ["nowhere"]])
def test_what_cannot_be_served_is_refused(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ends("studio", "--port", "0", *words) == 2
    assert "--token" in (said := capsys.readouterr().err) or "nowhere" in said


def test_runs_beside_pictures_are_seen_and_class_folders_are_one_place(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("L", (8, 8)).save(tmp_path / f"picture-{i}.png")
        for name in ("one", "two"):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "runs" / "vae" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "vae" / "config.json").write_text("{}")
    found = {(place.kind, str(place.path.relative_to(tmp_path))) for place in Roots([tmp_path]).places()}
    assert found == {("images", "."), ("images", "photos"), ("run", "runs/vae")}
