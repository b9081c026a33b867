"""The page at / and its example photos; it loads nothing from other servers."""

from __future__ import annotations

from functools import lru_cache, partial
from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from diffuir_core.imaging import Image, encode

from ...gateway import Gateway
from ...problems import Problem

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
EXAMPLES = {"haze": "rocket", "rain": "coffee", "snow": "chelsea", "low_light": "astronaut"}
"""Task -> the photo of scikit-image that is degraded for it; see `diffuir demo`."""


def add_page(app: FastAPI, gateway: Gateway) -> None:
    """Add the routes of the page to `app`."""
    for path, (name, media_type) in FILES.items():
        app.add_api_route(path, partial(_file, name, media_type), include_in_schema=False, methods=["GET"])

    @app.get("/examples", include_in_schema=False)
    async def examples() -> JSONResponse:
        return JSONResponse(list(EXAMPLES))

    @app.get("/examples/{task}.jpg", include_in_schema=False)
    async def example(task: str) -> Response:
        if task not in EXAMPLES:
            raise Problem(404, "example", f"there is no example of that name: choose {', '.join(EXAMPLES)}")
        data = await gateway.in_thread(partial(_example, task))
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


async def _file(name: str, media_type: str) -> Response:
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Response(_read(name), media_type=media_type, headers=headers)


@lru_cache
def _read(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()


@lru_cache
def _example(task: str) -> bytes:
    from ....data.examples import bundled_photo, typical

    degraded = typical(task, bundled_photo(EXAMPLES[task]), seed=0)
    return encode(Image(pixels=degraded, format="JPEG"), quality=90)
