"""The routes of the API; each makes one call of the gateway.

Annotations are not postponed here: FastAPI evaluates those of the routes, which name variables of a function.
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

from ..gateway import Gateway, RestoreResult, check_origin, read_body
from ..problems import Problem
from ..schemas import Health, JobInfo, JobRequest, ModelInfo, ModelList, Readiness, RestoreQuery
from .error_handlers import add_handlers, validation_message
from .head_requests import HeadAsGet
from .openapi import JOB_BODY, MEDIA_TYPES, PHOTO_BODY, RESTORED_RESPONSE, complete, responses
from .page import add_page

logger = logging.getLogger("ray.serve")

BEARER = HTTPBearer(auto_error=False, description="An API key, if the server requires one.")
"""Only describes the header in OpenAPI: `Access` reads it."""
MAX_JOB_BODY = 2**22
"""Largest body of a job, bytes: ten thousand URIs of 400 characters."""


def build_api(gateway: Gateway) -> FastAPI:
    """The FastAPI application that serves `gateway`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(gateway.watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    # No pages of the documentation, which would load scripts from other servers.
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

    # Asynchronous, because FastAPI would run a plain function in a thread.
    async def authorised(
        request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
    ) -> str:
        check_origin(request.headers, gateway.is_local)
        return gateway.access.check(request.headers.get("authorization"))

    @app.post(
        "/v1/restore",
        dependencies=[Depends(authorised)],
        response_class=Response,
        responses={
            **responses(200, 400, 401, 403, 408, 413, 415, 422, 429, 504),
            200: RESTORED_RESPONSE,
        },
        openapi_extra=PHOTO_BODY,
    )
    async def restore(request: Request, parameters: Annotated[RestoreQuery, Query()]) -> Response:
        """Restore one photo: the request's body, or the one file of a form."""
        began = time.perf_counter()
        check_repeated(request)
        with gateway.admission.request() as memory:
            result = await gateway.restore(request, parameters, memory)
        whole = time.perf_counter() - began
        gateway.metrics.count_restore({**result.seconds, "whole": whole}, result.pixels)
        return Response(result.data, 200, result_headers(result, whole), MEDIA_TYPES[result.format])

    @app.get("/v1/models", dependencies=[Depends(authorised)], responses=responses(200, 401, 403, 429))
    async def models() -> ModelList:
        """The models that a request may name."""
        settings = gateway.settings
        return ModelList(
            models=[
                ModelInfo(
                    name=name,
                    variant=entry.variant,
                    parameters=entry.parameters,
                    gflop_256=entry.gflop_256,
                    sha256=entry.sha256,
                    default=name == settings.default_model,
                )
                for name, entry in gateway.catalogue.items()
            ],
            restorer=gateway.restorer,
            steps=settings.steps,
            most_steps=settings.most_steps,
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
        )

    @app.post(
        "/v1/jobs",
        status_code=202,
        responses=responses(202, 401, 403, 408, 413, 422, 429),
        openapi_extra=JOB_BODY,
    )
    async def submit(request: Request, key: Annotated[str, Depends(authorised)]) -> JobInfo:
        """Start a restore of many or large photos, given by their URIs."""
        with gateway.admission.request() as memory:
            body = await read_body(request, MAX_JOB_BODY, gateway.settings.upload_timeout, memory)
            try:
                job = JobRequest.model_validate_json(body)
            except ValidationError as error:
                raise Problem(422, "parameter", validation_message(error.errors()[0])) from error
            return await gateway.jobs.submit(job, key)

    @app.get("/v1/jobs/{job_id}", responses=responses(200, 401, 403, 404, 429))
    async def job(job_id: str, key: Annotated[str, Depends(authorised)]) -> JobInfo:
        """The state of a job."""
        with gateway.admission.request():
            return await gateway.jobs.get(job_id, key)

    @app.delete("/v1/jobs/{job_id}", responses=responses(200, 401, 403, 404, 429))
    async def cancel(job_id: str, key: Annotated[str, Depends(authorised)]) -> JobInfo:
        """Stop a job; the same request sent again goes on where it stopped."""
        with gateway.admission.request():
            return await gateway.jobs.cancel(job_id, key)

    @app.get("/healthz", responses=responses(200))
    async def healthz() -> Health:
        """Restore a tiny image, to check that a model works."""
        return Health(seconds=round(await gateway.probe(), 4))

    @app.get("/readyz", responses=responses(200))
    async def readyz() -> Readiness:
        """Check that a model is loaded and has restored an image."""
        if not gateway.is_ready:
            raise Problem(503, "starting", "no model is ready yet: send it again", 2)
        return Readiness(models=gateway.admission.replicas)

    add_page(app, gateway)
    app.add_middleware(HeadAsGet)
    complete(app, gateway.settings.most_steps)
    return app


def check_repeated(request: Request) -> None:
    """Raise `Problem` 422 for a query parameter that is given twice, of which one would be ignored."""
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1:
            raise Problem(422, "parameter", f"{name[:64]}: give it once")


def result_headers(result: RestoreResult, whole: float) -> dict[str, str]:
    """The response headers that describe how a photo was restored; whole: seconds of the request."""
    options = result.options
    timing = {**result.seconds, "whole": whole}
    of_restorer = {"Diffuir-Steps": str(options.steps), "Diffuir-Seed": str(options.seed)}
    if result.restorer is not None:
        of_restorer = {"Diffuir-Restorer": result.restorer}
    headers = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Diffuir-Model": options.model,
        "Diffuir-Weights": result.sha256,
        **of_restorer,
        "Diffuir-Precision": result.precision,
        "Diffuir-Tiles": result.tiles,
        "Server-Timing": ", ".join(f"{stage};dur={took * 1000:.2f}" for stage, took in timing.items()),
    }
    if result.notes:
        headers["Diffuir-Notes"] = "; ".join(result.notes).encode("ascii", "replace").decode()
    return headers
