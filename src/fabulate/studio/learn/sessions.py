"""How many lessons there are, and until when: a lesson lives as long as the page that reads its pictures.

The reading is the training: between two pictures the model is trained, and when nobody reads any more, nothing works.
So no thread is left behind. A lesson that stands still and is not touched for ten minutes ends too.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from fabulate.studio import requests as asked
from fabulate.studio.jobs import FullError

if TYPE_CHECKING:
    from fabulate.studio.learn.lesson import Lesson  # which imports torch, as the first page must not

MOST = 4  # lessons at a time
LOOK = 0.03  # seconds between looks at a lesson that stands still
QUIET = 1.0  # seconds after which it is found out whether anybody reads
LATE = 30.0  # seconds after which nobody comes for the first picture any more
FASTEST = 1 / 40  # seconds between two pictures


class Lessons:
    """The lessons of a studio."""

    def __init__(self) -> None:
        self.all: dict[str, Lesson] = {}
        self.lock = threading.Lock()  # of all: torch has one global generator, which a player's turn seeds

    def begin(self, given: asked.Lesson) -> "Lesson":
        """A new lesson. Errors: `FullError`; those of `Lesson`."""
        from fabulate.studio.learn.lesson import Lesson

        with self.lock:
            late = time.monotonic() - LATE
            for name in [name for name, each in self.all.items() if not each.watched and each.touched < late]:
                del self.all[name]  # whoever asked for it went away before the first picture
            if len(self.all) >= MOST:
                raise FullError(f"{MOST} lessons are open already, as many as there may be; close the page of another")
            lesson = Lesson(given)
            self.all[lesson.name] = lesson
            return lesson

    def get(self, name: str) -> "Lesson":
        """Errors: `FileNotFoundError` for one that has ended."""
        try:
            return self.all[name]
        except KeyError:
            raise FileNotFoundError(2, "this lesson has ended; begin it anew", name) from None

    def steer(self, given: asked.Steer) -> None:
        """Change a lesson, between two of its turns."""
        lesson = self.get(given.lesson)
        with self.lock:
            lesson.steer(given)

    def answer(self, given: asked.Answer) -> bool:
        """Whether a number solves an exercise."""
        from fabulate.studio.learn.exercises import EXERCISES

        lesson = self.get(given.lesson)
        found = {each.name: each for each in EXERCISES}.get(given.exercise)
        if found is None or found.answer is None:
            raise FileNotFoundError(2, "no exercise asks for a number by this name", given.exercise)
        with self.lock:
            lesson.touched = time.monotonic()
            return found.answer(lesson, given.value)

    async def watch(self, lesson: "Lesson", closing: Callable[[], bool]) -> AsyncIterator[bytes]:
        """A lesson's facts and then its pictures, as it is trained, until nobody reads them."""
        lesson.watched = True
        seen: tuple[object, ...] = ()
        sent = 0.0
        try:
            yield lesson.facts()
            while not closing() and not lesson.idle:
                began = time.monotonic()
                state = (lesson.taken, lesson.touched, lesson.playing)
                if lesson.playing or state != seen:
                    seen, sent = state, began
                    yield await asyncio.to_thread(self.drawn, lesson)
                    await asyncio.sleep(max(0.0, FASTEST - (time.monotonic() - began)))
                    continue
                if began - sent > QUIET:
                    sent = began
                    yield bytes(4)
                await asyncio.sleep(LOOK)
        finally:
            self.all.pop(lesson.name, None)

    def drawn(self, lesson: "Lesson") -> bytes:
        """The next picture, after as much training as fits before it."""
        with self.lock:
            lesson.play()
            return lesson.picture()
