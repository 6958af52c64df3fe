"""The application: the page, its URLs, and what errors become."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from errno import EDQUOT, ENOSPC
from importlib import import_module
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from fabulate.config import explain
from fabulate.errors import FabulateError, RunError
from fabulate.studio.guard import Guard
from fabulate.studio.jobs import FullError, Jobs
from fabulate.studio.places import OutsideError, Roots
from fabulate.studio.routes import routes

STATIC = Path(__file__).parent / "static"
STYLE = Path(__file__).parents[1] / "report" / "templates" / "style.css"  # the reports' own; their room imports torch
PAGE = {"app.js": "text/javascript", "studio.css": "text/css", "icon.svg": "image/svg+xml"}
TICK = 0.4  # seconds between looks at the queue


def application(roots: Roots, token: str, port: int, hosts: tuple[str, ...], anywhere: bool = False) -> FastAPI:
    """The studio of some folders."""
    jobs = Jobs(roots.home, roots.here)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=warm, daemon=True).start()
        ticking = asyncio.create_task(tick(jobs))
        yield
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking

    app = FastAPI(title="fabulate studio", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(routes(roots, jobs))
    app.state.jobs = jobs
    app.state.closing = lambda: False  # whether the server is about to end: who serves this says it

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/report.css")
    def styles() -> FileResponse:
        return FileResponse(STYLE, media_type="text/css")

    @app.get("/static/{name}")
    def static(name: str) -> FileResponse:
        if name not in PAGE:
            raise FileNotFoundError(2, "there is no such file", name)
        return FileResponse(STATIC / name, media_type=PAGE[name])

    answering(app)
    app.add_middleware(Guard, token=token, hosts=hosts, port=port, anywhere=anywhere)
    return app


def answering(app: FastAPI) -> None:
    """What errors become: words, and a status; a field that is out of bounds is named."""

    def said(status: int, words: str) -> JSONResponse:
        return JSONResponse({"error": words}, status)

    @app.exception_handler(HTTPException)
    def short(_: Request, error: HTTPException) -> JSONResponse:
        return said(error.status_code, error.detail)

    @app.exception_handler(RequestValidationError)
    def refused(_: Request, error: RequestValidationError) -> JSONResponse:
        told = [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()[:8]]
        return said(422, "; ".join(told))

    @app.exception_handler(ValidationError)
    def invalid(_: Request, error: ValidationError) -> JSONResponse:
        return said(422, explain(error, most=8))

    @app.exception_handler(FabulateError)
    def wrong(_: Request, error: FabulateError) -> JSONResponse:
        status = {OutsideError: 403, FullError: 429, RunError: 409}.get(type(error), 422)
        return said(status, str(error))

    @app.exception_handler(OSError)
    def lost(_: Request, error: OSError) -> JSONResponse:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        status = 404 if gone else 507 if error.errno in (ENOSPC, EDQUOT) else 409
        return said(status, f"{error.filename or 'the disk'}: {error.strerror or error}")


async def tick(jobs: Jobs) -> None:
    """Look after the queue as long as the server is there."""
    while True:
        with suppress(OSError, RunError):  # a disk that is full has room again one day
            await asyncio.to_thread(jobs.advance)
        await asyncio.sleep(TICK)


def warm() -> None:
    """Import what the page will need, so that the first sample does not wait for it."""
    for room in ("forms", "explore", "intake", "outliers", "learn.lesson"):
        import_module(f"fabulate.studio.{room}")
