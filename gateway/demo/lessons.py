"""A folder of lessons to publish: a small course in HTML, written by a seeded generator, and its next edition.

Real content compresses, so the pages are sentences that repeat across lessons, with some arithmetic in them, and not
random bytes; a picture (SVG) stands between. The next edition changes one lesson in eight and adds one.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path

_SUBJECTS = ("Arithmetic", "Geometry", "Electricity", "Water and health", "Using a computer", "Soil and crops")
_VOCABULARY = (
    "the a we you they learner teacher group truck classroom panel battery cable lamp water well field seed maize soil"
    " rain sun shade morning evening week number line angle circle square half third quarter sum product measure count"
    " draw write read compare explain answer ask show find open save close type click print search share safe clean"
    " strong weak long short first second next last every some many few more less equal larger smaller because when if"
    " then before after with without between under over from into"
)
_WORDS = _VOCABULARY.split()
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><link rel="stylesheet" href="../style.css"></head>
<body>
<h1>{title}</h1>
<p class="edition">Edition {edition}</p>
{body}
<p><a href="../index.html">All lessons</a></p>
</body>
</html>
"""
_STYLE = "body{font:1.1rem/1.5 sans-serif;max-width:40rem;margin:auto;padding:1rem}svg{width:100%;height:auto}\n"
_ADDED = "An extra lesson"
_PARAGRAPHS = 72
# A course repeats itself; fewer sentences also make the pack in seconds on a machine that runs the trucks as well.
_SENTENCES = 400


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson: its place in the course, its title and the edition that it was last written for."""

    subject: int
    number: int
    title: str
    edition: int


def write_lessons(folder: Path, *, edition: int, bytes_min: int, seed: int = 1) -> None:
    """Write edition 1 or 2 of a course of at least `bytes_min` bytes; the same arguments give the same bytes."""
    folder.mkdir(parents=True)
    (folder / "style.css").write_text(_STYLE)
    course = _course(edition, lessons=max(len(_SUBJECTS), -(-bytes_min // _lesson_bytes(seed))))
    for lesson in course:
        place = folder / _slug(lesson.subject)
        place.mkdir(exist_ok=True)
        (place / f"lesson-{lesson.number:03}.html").write_text(_page(lesson, seed))
    (folder / "index.html").write_text(_index(course, edition))


def _course(edition: int, *, lessons: int) -> list[Lesson]:
    course = []
    for number in range(lessons):
        subject = number % len(_SUBJECTS)
        newest = edition if number % 8 == 3 else 1
        course.append(Lesson(subject, number, f"{_SUBJECTS[subject]} {number // len(_SUBJECTS) + 1}", newest))
    if edition > 1:
        course.append(Lesson(0, lessons, _ADDED, edition))
    return course


def _page(lesson: Lesson, seed: int) -> str:
    # A lesson of edition 2 is that of edition 1 with some paragraphs written anew, as an editor would.
    first = random.Random(f"{seed}/{lesson.number}/1")  # noqa: S311 - text to read, nothing secret
    parts = [_paragraph(first) for _ in range(_PARAGRAPHS)]
    parts.insert(3, _picture(first))
    parts += [_exercise(first) for _ in range(30)]
    if lesson.edition > 1:
        again = random.Random(f"{seed}/{lesson.number}/{lesson.edition}")  # noqa: S311
        for at in again.sample(range(4, _PARAGRAPHS), 12):
            parts[at] = _paragraph(again)
    return _PAGE.format(title=lesson.title, edition=lesson.edition, body="\n".join(parts))


@functools.cache
def _sentences() -> tuple[str, ...]:
    source = random.Random(_SENTENCES)  # noqa: S311
    return tuple(
        " ".join(source.choices(_WORDS, k=source.randint(6, 14))).capitalize() + "." for _ in range(_SENTENCES)
    )


def _paragraph(source: random.Random) -> str:
    return f"<p>{' '.join(source.choices(_sentences(), k=source.randint(4, 8)))}</p>"


def _exercise(source: random.Random) -> str:
    left, right = source.randint(12, 999), source.randint(3, 99)
    return f"<p class='exercise'>{left} + {right} = <input size='6' data-answer='{left + right}'></p>"


def _picture(source: random.Random) -> str:
    points = " ".join(f"{x},{source.randint(10, 190)}" for x in range(0, 400, 20))
    return f"<svg viewBox='0 0 400 200'><polyline fill='none' stroke='#246' stroke-width='3' points='{points}'/></svg>"


def _index(course: list[Lesson], edition: int) -> str:
    lines = [
        f"<li><a href='{_slug(each.subject)}/lesson-{each.number:03}.html'>{each.title}</a></li>" for each in course
    ]
    page = _PAGE.format(title="Lessons", edition=edition, body="<ul>\n" + "\n".join(lines) + "\n</ul>")
    return page.replace("../", "")


def _slug(subject: int) -> str:
    return _SUBJECTS[subject].lower().replace(" ", "-")


def _lesson_bytes(seed: int) -> int:
    return len(_page(Lesson(0, 0, _SUBJECTS[0], 1), seed)) * 95 // 100
