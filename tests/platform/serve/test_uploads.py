"""A photo is read from a body or a form, within limits that apply while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect

from diffuir_platform.serve.gateway.admission import Admission, LimitError
from diffuir_platform.serve.gateway.uploads import read_photo
from diffuir_platform.serve.problems import Problem

LIMIT, HELD = 1000, 50_000


class Coming:
    """A body that arrives in parts; counts those that were read. stalls: the last part never comes."""

    def __init__(self, parts: Sequence[bytes], stalls: bool = False, goes: bool = False) -> None:
        self.parts = list(parts)
        self.taken = 0
        self.stalls = stalls
        self.goes = goes

    async def __call__(self) -> dict[str, Any]:
        if self.taken == len(self.parts):
            if self.goes:
                return {"type": "http.disconnect"}
            await asyncio.sleep(60)
        self.taken += 1
        more = self.stalls or self.goes or self.taken < len(self.parts)
        return {"type": "http.request", "body": self.parts[self.taken - 1], "more_body": more}


def take(coming: Coming, held: int = HELD, seconds: float = 5, **headers: str) -> bytes:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, coming)
    with Admission(1, held, 1.0).request() as memory:
        return asyncio.run(read_photo(request, LIMIT, seconds, memory))


def refused(coming: Coming, **more: Any) -> tuple[int, str]:
    with pytest.raises(Problem) as problem:
        take(coming, **more)
    assert len(problem.value.detail.splitlines()) == 1
    return problem.value.status, problem.value.kind


def form(body: bytes, options: str = "; boundary=edge") -> dict[str, Any]:
    return {"coming": Coming([body[:50], body[50:]]), "content_type": "multipart/form-data" + options}


def file(name: bytes = b"photo", data: bytes = b"pixels") -> bytes:
    return (
        b'--edge\r\nContent-Disposition: form-data; name="'
        + name
        + b'"; filename="a.jpg"\r\n\r\n'
        + data
        + b"\r\n"
    )


END = b"--edge--\r\n"


def test_a_body_is_the_photo() -> None:
    assert take(Coming([b"pix", b"", b"els"])) == b"pixels"


def test_a_form_holds_the_photo_whatever_its_field_is_called() -> None:
    assert take(**form(file(b"anything") + END)) == b"pixels"


def test_what_says_that_it_is_too_large_is_refused_before_any_of_it_is_taken() -> None:
    coming = Coming([b"x"])
    assert refused(coming, content_length=str(LIMIT + 1)) == (413, "too-large")
    assert refused(coming, content_length="9" * 4000) == (413, "too-large")
    assert coming.taken == 0


def test_what_does_not_say_its_size_is_refused_as_soon_as_it_is_too_large() -> None:
    coming = Coming([b"x" * 300] * 1000)
    assert refused(coming) == (413, "too-large")
    assert coming.taken == 4


def test_the_photo_of_a_form_has_the_same_limit() -> None:
    assert refused(**form(file(data=b"x" * 40_000) + END)) == (413, "too-large")


def test_what_does_not_fit_the_memory_that_is_left_is_refused() -> None:
    with pytest.raises(LimitError):
        take(Coming([b"x" * 300] * 3), held=700)


def test_what_does_not_come_in_time_is_408() -> None:
    assert refused(Coming([b"x"], stalls=True), seconds=0.05) == (408, "upload")


def test_a_client_that_goes_is_told_nothing() -> None:
    with pytest.raises(ClientDisconnect):
        take(Coming([b"x"], goes=True))


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (file() + END, ""),
        (file() + END, "; boundary="),
        (file() + END, "; boundary=other"),
        (END, "; boundary=edge"),
        (b"", "; boundary=edge"),
        (file() + file() + END, "; boundary=edge"),
        (file()[:60], "; boundary=edge"),
        (b"--edge\r\n\r\npixels\r\n" + END, "; boundary=edge"),
        (b'--edge\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n' + END, "; boundary=edge"),
        (b"--edge\r\nX: " + b"y" * 9000 + b"\r\n\r\n", "; boundary=edge"),
    ],
)
def test_a_form_without_just_one_file_is_400(body: bytes, options: str) -> None:
    assert refused(**form(body, options)) == (400, "form")


def test_options_in_a_form_are_shown_the_query() -> None:
    field = b'--edge\r\nContent-Disposition: form-data; name="steps"\r\n\r\n3\r\n'
    for body in (field + file() + END, file() + field + END, field + END):
        with pytest.raises(Problem, match=r"'steps': options go in the query") as problem:
            take(**form(body))
        assert (problem.value.status, problem.value.kind) == (400, "form")
    with pytest.raises(Problem) as problem:
        take(**form(field * 150 + file() + END))
    assert (problem.value.status, problem.value.kind) == (400, "form")


@pytest.mark.parametrize("charset", ["undefined", "punycode"])
def test_a_form_of_a_charset_that_decodes_nothing_is_400(charset: str) -> None:
    name = b"\xff" * 70 + b".." + b"a" * 70
    assert refused(**form(file(name) + END, f"; boundary=edge; charset={charset}")) == (400, "form")
