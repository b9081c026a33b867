"""The routes: HTTP in, one call, HTTP out.

FastAPI reads the annotations of routes, and could not find what is local to a function in postponed ones.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ValidationError

from ..gateway import Answer, Gateway, check_origin, read_body
from ..problems import Problem
from ..schemas import Health, JobRequest, JobShown, ModelShown, ModelsShown, Readiness, RestoreQuery
from .error_handlers import add_handlers, sentence
from .head_requests import HeadAsGet
from .openapi import JOB_WANTED, MEDIA_TYPES, PHOTO_WANTED, RESTORED, answers, complete
from .page import add_page

logger = logging.getLogger("ray.serve")

BEARER = HTTPBearer(auto_error=False, description="An API key, where the server has any.")
"""For the description: `Access` reads the header itself."""
LONGEST_JOB = 2**22
"""Bytes of the body of a job: ten thousand URIs of some length."""


def api(gateway: Gateway) -> FastAPI:
    """The application in front of `gateway`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(gateway.watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    # Their pages come from other servers, and this one needs none.
    app = FastAPI(
        title="DiffUIR",
        version=version("diffuir"),
        summary="Removes rain, snow, haze, darkness and blur from photos.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    add_handlers(app)

    # Not a plain function, for which FastAPI would take a thread.
    async def allowed(
        request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
    ) -> str:
        check_origin(request.headers, gateway.is_local)
        return gateway.access.check(request.headers.get("authorization"))

    @app.post(
        "/v1/restore",
        dependencies=[Depends(allowed)],
        response_class=Response,
        responses={
            **answers(200, 400, 401, 403, 408, 413, 415, 422, 429, 504),
            200: RESTORED,
        },
        openapi_extra=PHOTO_WANTED,
    )
    async def restore(request: Request, parameters: Annotated[RestoreQuery, Query()]) -> Response:
        """Restore one photo: the body, or the one file of a form."""
        began = time.perf_counter()
        check_once(request)
        with gateway.admission.request() as holding:
            answer = await gateway.restore(request, parameters, holding)
        whole = time.perf_counter() - began
        gateway.metrics.restored({**answer.seconds, "whole": whole}, answer.pixels)
        return Response(answer.data, 200, headers_of(answer, whole), MEDIA_TYPES[answer.format])

    @app.get("/v1/models", dependencies=[Depends(allowed)], responses=answers(200, 401, 403, 429))
    async def models() -> ModelsShown:
        """The models that a request may name."""
        settings = gateway.settings
        return ModelsShown(
            models=[
                ModelShown(
                    name=name,
                    variant=entry.variant,
                    parameters=entry.parameters,
                    gflop_256=entry.cost,
                    sha256=entry.sha256,
                    default=name == settings.default_model,
                )
                for name, entry in gateway.catalogue.items()
            ],
            steps=settings.steps,
            most_steps=settings.most_steps,
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
        )

    @app.post(
        "/v1/jobs",
        status_code=202,
        responses=answers(202, 401, 403, 408, 413, 422, 429),
        openapi_extra=JOB_WANTED,
    )
    async def submit(request: Request, key: Annotated[str, Depends(allowed)]) -> JobShown:
        """Begin a restore of many or large photos, by their URIs."""
        with gateway.admission.request() as holding:
            body = await read_body(request, LONGEST_JOB, gateway.settings.upload_timeout, holding)
            try:
                job = JobRequest.model_validate_json(body)
            except ValidationError as error:
                raise Problem(422, "parameter", sentence(error.errors()[0])) from error
            return await gateway.jobs.submit(job, key)

    @app.get("/v1/jobs/{job_id}", responses=answers(200, 401, 403, 404, 429))
    async def job(job_id: str, key: Annotated[str, Depends(allowed)]) -> JobShown:
        """How a job stands."""
        with gateway.admission.request():
            return await gateway.jobs.show(job_id, key)

    @app.delete("/v1/jobs/{job_id}", responses=answers(200, 401, 403, 404, 429))
    async def cancel(job_id: str, key: Annotated[str, Depends(allowed)]) -> JobShown:
        """Stop a job; the same one again goes on where it was."""
        with gateway.admission.request():
            return await gateway.jobs.cancel(job_id, key)

    @app.get("/healthz", responses=answers(200))
    async def healthz() -> Health:
        """Whether a tiny image comes back restored."""
        return Health(seconds=round(await gateway.probe(), 4))

    @app.get("/readyz", responses=answers(200))
    async def readyz() -> Readiness:
        """Whether a model has been loaded and has restored something."""
        if not gateway.is_ready:
            raise Problem(503, "starting", "no model is ready yet", 2)
        return Readiness(models=gateway.admission.replicas)

    add_page(app, gateway)
    app.add_middleware(HeadAsGet)
    complete(app, gateway.settings.most_steps)
    return app


def check_once(request: Request) -> None:
    """Raises `Problem` 422 for a parameter that is given twice, of which one would not count."""
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1:
            raise Problem(422, "parameter", f"{name[:64]}: give it once")


def headers_of(answer: Answer, whole: float) -> dict[str, str]:
    """What an answer says of itself."""
    options = answer.options
    timing = {**answer.seconds, "whole": whole}
    headers = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Diffuir-Model": options.model,
        "Diffuir-Weights": answer.sha256,
        "Diffuir-Steps": str(options.steps),
        "Diffuir-Seed": str(options.seed),
        "Diffuir-Precision": answer.precision,
        "Diffuir-Tiles": answer.tiles,
        "Server-Timing": ", ".join(f"{stage};dur={took * 1000:.2f}" for stage, took in timing.items()),
    }
    if answer.notes:
        headers["Diffuir-Notes"] = "; ".join(answer.notes).encode("ascii", "replace").decode()
    return headers
