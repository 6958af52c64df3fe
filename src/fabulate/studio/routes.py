"""Each URL of the studio: a short function that finds what is asked for and lets a file of this room answer.

What needs torch is imported where it is used: the first page is there before torch is. These functions are not `async`,
so that each runs in a thread, and a long one holds nobody up.
"""

import shlex
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from fabulate.errors import FabulateError
from fabulate.studio import requests as asked
from fabulate.studio import runs
from fabulate.studio.jobs import Jobs, told
from fabulate.studio.learn.sessions import Lessons
from fabulate.studio.places import Roots

Json = dict[str, Any]
Path_ = Annotated[str, Query(max_length=4096)]
SHOWN = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
# A report is a file that anybody may have written: it brings its style and its pictures, and runs nothing.
REPORT = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src 'self'; frame-ancestors 'self'; sandbox"
)


def png(data: bytes, **headers: object) -> Response:
    """A PNG."""
    return Response(data, media_type="image/png", headers={name: str(value) for name, value in headers.items()})


def routes(roots: Roots, jobs: Jobs) -> APIRouter:
    """All URLs below /api."""
    router = APIRouter(prefix="/api")
    lessons = Lessons()

    @router.get("/home")
    def home() -> Json:
        found = [runs.card(place, roots, jobs.snapshot) for place in roots.places()]
        return {
            "roots": [folder.name or str(folder) for folder in roots.folders],
            "places": [card for card in found if card is not None],
            "jobs": [told(job) for job in jobs.snapshot],
        }

    # Files

    @router.get("/file")
    def file(path: Path_) -> FileResponse:
        found = roots.existing(path)
        if found.suffix.lower() not in SHOWN or not found.is_file():
            raise FabulateError(f"path: {path} is no picture that the page shows")
        return FileResponse(found, media_type=SHOWN[found.suffix.lower()], headers={"Cache-Control": "no-cache"})

    @router.get("/page/{path:path}")
    def page(path: str) -> Response:
        found = roots.existing(path)
        if found.suffix != ".html" or not found.is_file():
            raise FabulateError(f"path: {path} is no page")
        return FileResponse(found, media_type="text/html", headers={"Content-Security-Policy": REPORT})

    @router.get("/thumbnail")
    def thumbnail(path: Path_, side: Annotated[int, Query(ge=8, le=512)] = 160) -> Response:
        from fabulate.studio.intake import thumbnail as made

        return png(made(roots.existing(path), side))

    @router.get("/cover")
    def cover(path: Path_) -> Response:
        from fabulate.studio.intake import cover as made

        return png(made(roots.existing(path)))

    # Jobs

    @router.get("/jobs")
    def queue() -> list[Json]:
        return [told(job) for job in jobs.all()]

    @router.post("/command/{verb}")
    def command(verb: asked.Verb, body: Json) -> Json:
        found = asked.COMMANDS[verb].model_validate(body).command(roots)
        return {"command": f"fabulate {shlex.join(found.words)}", "path": found.path}

    @router.post("/jobs/{verb}")
    def submit(verb: asked.Verb, body: Json) -> Json:
        found = asked.COMMANDS[verb].model_validate(body).command(roots)
        return told(jobs.submit(found.words, found.about, found.path))

    @router.post("/stop/{name}")
    def stop(name: str) -> Json:
        return told(jobs.stop(name))

    # Data

    @router.post("/data")
    def data(body: asked.Intake) -> StreamingResponse:
        from fabulate.studio.intake import looked, spec_of

        return StreamingResponse(looked(spec_of(body.source, body.reading, roots)), media_type="application/x-ndjson")

    @router.post("/data/sheet")
    def sheet(
        body: asked.Intake,
        label: Annotated[str | None, Query(max_length=1000)] = None,
        start: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        count: Annotated[int, Query(ge=1, le=400)] = 60,
    ) -> Response:
        from fabulate.studio.intake import sheet as made
        from fabulate.studio.intake import spec_of

        image, total, shape = made(spec_of(body.source, body.reading, roots), label, start, count)
        return png(image, total=total, height=shape[1], width=shape[2])

    # Training

    @router.get("/families")
    def families() -> list[Json]:
        from fabulate.studio.forms import cards

        return cards()

    @router.get("/form")
    def form(family: Annotated[str, Query(max_length=64)]) -> Json:
        from fabulate.studio.forms import form as made

        return made(family)

    @router.get("/run")
    def run(path: Path_) -> Json:
        place = roots.allowed(path)
        mine = [job for job in jobs.snapshot if job.path == roots.shown(place)]
        if mine and not (place / "config.json").exists():  # a training that waits, or has not got so far
            return {"job": told(mine[-1])}
        return runs.detail(roots.existing(path), roots, jobs.snapshot)

    @router.get("/run/events")
    async def events(path: Path_, request: Request) -> StreamingResponse:
        told = runs.events(roots.existing(path), roots, jobs, request.app.state.closing)
        return StreamingResponse(told, media_type="text/event-stream")

    # Explore

    @router.get("/explore")
    def facts(run: Path_) -> Json:
        from fabulate.studio.explore import facts as found

        return found(roots.existing(run))

    @router.post("/explore/draw")
    def draw(body: asked.Draw) -> Response:
        from fabulate.studio.explore import draw as drawn

        return png(drawn(roots.existing(body.run), body.n, body.seed, body.label, body.sampling))

    @router.post("/explore/write")
    def write(body: asked.Write) -> list[Json]:
        from fabulate.studio.written import samples

        return samples(roots.existing(body.run), body)

    @router.post("/explore/sheet")
    def written_sheet(body: asked.Write) -> Response:
        from fabulate.studio.written import picture

        return png(picture(roots.existing(body.run), body))

    @router.get("/explore/sound")
    def sound(asks: Annotated[str, Query(max_length=8192)], i: Annotated[int, Query(ge=0, lt=24)]) -> Response:
        from fabulate.studio.written import sound as made

        body = asked.Write.model_validate_json(asks)
        return Response(made(roots.existing(body.run), body, i), media_type="audio/wav")

    @router.post("/explore/map")
    def mapped(body: asked.Codes) -> Json:
        from fabulate.studio.explore import mapped as made

        return made(roots.existing(body.run), body.n, body.label)

    @router.post("/explore/images")
    def images(body: asked.Codes, which: Annotated[str, Query(max_length=16)] = "real") -> Response:
        from fabulate.studio.explore import images_of

        return png(images_of(roots.existing(body.run), body.n, body.label, which))

    @router.post("/explore/decode")
    def decode(body: asked.Decode) -> Response:
        from fabulate.studio.atlas import atlas
        from fabulate.studio.explore import decoded

        return png(atlas(decoded(roots.existing(body.run), body.n, body.label, body.places)))

    @router.post("/explore/walk")
    def walk(body: asked.Decode) -> Response:
        from fabulate.studio.explore import walk as made

        return Response(made(roots.existing(body.run), body.n, body.label, body.places), media_type="image/gif")

    @router.post("/explore/image")
    async def judged(
        request: Request,
        run: Path_,
        n: Annotated[int, Query(ge=10, le=2000)] = 400,
        label: Annotated[str | None, Query(max_length=1000)] = None,
    ) -> Json:
        from starlette.concurrency import run_in_threadpool

        from fabulate.studio.explore import judged as found

        data = await request.body()

        def look() -> Json:
            with tempfile.TemporaryDirectory() as folder:
                given = Path(folder) / "image"
                given.write_bytes(data)
                return found(roots.existing(run), n, label, given)

        return await run_in_threadpool(look)

    # Outliers

    @router.get("/outliers")
    def ranking(path: Path_) -> Json:
        from fabulate.studio.outliers import told as found

        return found(roots.existing(path))

    @router.post("/outliers/images")
    def strange(body: asked.Rows) -> Response:
        from fabulate.studio.outliers import shown

        return png(shown(roots.existing(body.ranking), body.start, body.count))

    @router.post("/outliers/decide")
    def decide(body: asked.Decide) -> Json:
        from fabulate.studio.outliers import decide as written

        return written(roots.existing(body.ranking), body)

    # Compare

    @router.get("/comparison")
    def comparison(path: Path_) -> Json:
        return runs.compared(roots.existing(path))

    @router.get("/proof")
    def proof(path: Path_) -> Json:
        return runs.proved(roots.existing(path))

    # Learn

    @router.get("/learn")
    def learn() -> Json:
        from fabulate.studio.learn.exercises import told as exercises

        return {"exercises": exercises()}

    @router.get("/learn/source")
    def source(file: Annotated[str, Query(max_length=200)]) -> Response:
        from fabulate.studio.learn.code import whole

        return Response(whole(file), media_type="text/plain; charset=utf-8")

    @router.post("/learn/lesson")
    def lesson(body: asked.Lesson, request: Request) -> StreamingResponse:
        pictures = lessons.watch(lessons.begin(body), request.app.state.closing)
        return StreamingResponse(pictures, media_type="application/octet-stream")

    @router.post("/learn/steer")
    def steer(body: asked.Steer) -> Json:
        lessons.steer(body)
        return {}

    @router.post("/learn/answer")
    def answer(body: asked.Answer) -> Json:
        return {"solved": lessons.answer(body)}

    return router
