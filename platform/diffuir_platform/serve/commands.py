"""What `diffuir serve` does."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
import yaml

from diffuir_core import UserError

from ..runtime import cluster_address, ray_session
from .gateway import keys_of_environment
from .settings import ServeSettings

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than a load balancer keeps its own."""

SECONDS_TO_BE_READY = 30
"""That a gateway has for seeing a model, once there is one."""

SECONDS_TO_END = 60
"""That Serve has for finishing what was begun."""

SECONDS_TO_LEAVE = 10
"""That gateways have for sending the last answers once the models are gone, and Serve then for ending itself."""

FOR_SERVE = {
    # How soon scaling sees what there is to do: 10 s by default.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # How gateways call models: half of what a hop takes, and a tenth less with one event loop for both.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # Before Serve's own HTTP server.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "diffuir_platform.serve.transport.proxy_middleware.middlewares",
}
"""In the environment of every process of Ray Serve, which reads it when it is imported: here, and on each node."""


def run_serve(settings: ServeSettings) -> int:
    """Serve until SIGINT or SIGTERM, then finish what was begun, and return the exit code."""
    with serving(settings) as url:
        print(f"{url} is ready: a page to try it, POST {url}/v1/restore, {url}/openapi.json", flush=True)
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()
        print(f"stopping: what was begun is finished, within {SECONDS_TO_END} s", flush=True)
    return 0


@contextmanager
def serving(settings: ServeSettings, make: Any = None) -> Iterator[str]:
    """The endpoint, ready, and its URL; ended with the block.

    make: as `application` has it. Raises `UserError` where it cannot be started.
    """
    for name, value in FOR_SERVE.items():
        os.environ.setdefault(name, value)
    _check_port(settings)
    if cluster_address(settings.address) is None:  # a cluster's gateways have what their own nodes have
        keys_of_environment(settings.require_key)
    with ray_session(
        settings.address,
        settings.device,
        least_cpus=settings.max_replicas + 1,
        dashboard=bool(settings.jobs_under),
    ) as resources:
        from ray import serve

        from .app import LOGGING, NAME, application

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        app = application(settings, resources, make)
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options=http_options(settings),
                logging_config=LOGGING,
            )
            serve.run(app, name=NAME, route_prefix="/")
            url = f"http://{_shown_host(settings.host)}:{settings.port}"
            _wait_until_ready(url)
            yield url
        except RuntimeError as error:
            raise UserError(f"the endpoint did not start: {_last_line(error)}") from error
        finally:
            _shut_down()


def _shut_down() -> None:
    """End the application, whose processes finish what they have, and then Serve.

    Not with `serve.shutdown()` alone: it takes the proxies away first, and what was begun with them; and its call
    ends with the controller, which Ray prints as a failed task.
    """
    import ray
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    from .app import GATEWAY, NAME
    from .model import MODEL

    with suppress(ValueError, RayError):  # of a controller that is not there, or no more
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        serve.delete(NAME, _blocking=False)
        deadline = time.monotonic() + SECONDS_TO_END
        _wait_while_there(controller, MODEL, deadline)
        # What comes in now, as a body that was still arriving, waits for a model in vain.
        _wait_while_there(controller, GATEWAY, min(deadline, time.monotonic() + SECONDS_TO_LEAVE))
        controller.graceful_shutdown.remote(wait=False)
        deadline = time.monotonic() + SECONDS_TO_LEAVE
        while time.monotonic() < deadline:
            ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
            time.sleep(0.1)
    serve.shutdown()


def _wait_while_there(controller: Any, deployment: str, deadline: float) -> None:
    """Not `serve.status()`, which does not tell of what is being deleted."""
    import ray

    from .app import NAME

    there = controller.get_deployment_status
    while time.monotonic() < deadline and ray.get(there.remote(deployment, NAME)) is not None:
        time.sleep(0.1)


def http_options(settings: ServeSettings) -> dict[str, Any]:
    """Of Ray Serve's proxy."""
    return {"host": settings.host, "port": settings.port, "keep_alive_timeout_s": KEEP_ALIVE}


def deployable(settings: ServeSettings) -> str:
    """The YAML that `serve deploy` takes, of these settings."""
    from .app import IMPORT_PATH, LOGGING, NAME

    arguments = settings.model_dump(mode="json", exclude={"port", "address"}, exclude_defaults=True)
    return yaml.safe_dump(
        {
            "proxy_location": "EveryNode",
            "http_options": http_options(settings),
            "logging_config": LOGGING.model_dump(mode="json", exclude_unset=True),
            "applications": [
                {"name": NAME, "route_prefix": "/", "import_path": IMPORT_PATH, "args": arguments}
            ],
        },
        sort_keys=False,
    )


def _wait_until_ready(url: str) -> None:
    """Until a gateway has seen a model, which it looks for each second; raise RuntimeError where it does not."""
    deadline = time.monotonic() + SECONDS_TO_BE_READY
    session = requests.Session()
    session.trust_env = False  # a proxy of the environment does not lead to this machine
    while True:
        with suppress(requests.ConnectionError, requests.Timeout):
            if session.get(f"{url}/readyz", timeout=SECONDS_TO_BE_READY).ok:
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url}/readyz does not say that it is ready")
        time.sleep(0.1)


def _check_port(settings: ServeSettings) -> None:
    """Raise `UserError` where somebody listens there already, which Serve would only say in a log."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((settings.host, settings.port))
        except OSError as error:
            raise UserError(
                f"can't listen on {settings.host}:{settings.port} ({error.strerror}): choose another --port or "
                "--host"
            ) from error


def _shown_host(host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"[{shown}]" if ":" in shown and not shown.startswith("[") else shown


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
