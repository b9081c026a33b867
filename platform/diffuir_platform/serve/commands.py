"""The command `diffuir serve`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import requests
import yaml

from diffuir_core import UserError

from ..command_line import SettingsCommand, Shortcut
from ..runtime import cluster_address, ray_session
from ..runtime.private import PROXY_CALLBACK_VARIABLE, ServeController
from .settings import ServeSettings

if TYPE_CHECKING:
    from .model.replica import MakeRestorer

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than a load balancer keeps its own."""

SECONDS_TO_BE_READY = 30
"""Longest wait for a gateway to see a model once there is one, seconds."""

SECONDS_TO_FINISH = 60
"""Longest wait for models to finish the requests under way, seconds."""

SECONDS_TO_SHUT_DOWN = 10
"""Longest wait for gateways to send the last responses, and then for Serve to shut down, seconds."""

SERVE_ENVIRONMENT = {
    # How soon scaling sees the work there is: 10 s by default.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # gRPC halves the time of a call to a replica; one event loop saves another tenth.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # In front of Serve's own HTTP server.
    PROXY_CALLBACK_VARIABLE: "diffuir_platform.serve.transport.proxy_middleware.middlewares",
}
"""Environment of every process of Ray Serve, which reads it when it is imported: here, and on each node."""


def run_serve(settings: ServeSettings) -> int:
    """Serve the API and a page to try it, until Ctrl-C.

    SIGTERM ends it too: requests under way are finished first.
    """
    with serving(settings) as url:
        print(f"{url} is ready: a page to try it, POST {url}/v1/restore, {url}/openapi.json", flush=True)
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()
        print(f"stopping: requests under way are finished, within {SECONDS_TO_FINISH} s", flush=True)
    return 0


def deployable(settings: ServeSettings) -> str:
    """The config file of `serve deploy` for these settings, YAML."""
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


serve_command = SettingsCommand(
    run_serve,
    ServeSettings,
    shortcuts={
        "weights": Shortcut(
            key="models",
            help="Weights of the only model: a file, a URI, or models:/NAME@ALIAS of MLflow's registry.",
            value=lambda weights: {"default": weights},
        )
    },
    printed=deployable,
    printed_name="the settings as what `serve deploy` takes, which is no file for --config",
)


@contextmanager
def serving(settings: ServeSettings, make: MakeRestorer | None = None) -> Iterator[str]:
    """A running endpoint, shut down at the end of the block; gives its URL once it is ready.

    make: as of `application`. Raises `UserError` where it cannot start.
    """
    from .gateway import api_keys

    for name, value in SERVE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _check_port(settings)
    if cluster_address(settings.address) is None:  # gateways on a cluster read their own node's environment
        api_keys(settings.require_key)
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
            url = f"http://{_url_host(settings.host)}:{settings.port}"
            _wait_until_ready(url)
            yield url
        except RuntimeError as error:
            raise UserError(f"the endpoint did not start: {_last_line(error)}") from error
        finally:
            _shut_down()


def _shut_down() -> None:
    """End the application, whose processes finish what they have, and then Serve."""
    from ray import serve
    from ray.exceptions import RayError

    from .app import GATEWAY, NAME
    from .model import MODEL

    with suppress(ValueError, RayError):  # there is no controller, or it has ended
        controller = ServeController()
        controller.begin_delete(NAME)
        deadline = time.monotonic() + SECONDS_TO_FINISH
        _wait_until_gone(controller, MODEL, deadline)
        # A request whose body was still arriving waits for a model in vain.
        _wait_until_gone(controller, GATEWAY, min(deadline, time.monotonic() + SECONDS_TO_SHUT_DOWN))
        controller.begin_shutdown()
        deadline = time.monotonic() + SECONDS_TO_SHUT_DOWN
        while time.monotonic() < deadline:
            ServeController()
            time.sleep(0.1)
    serve.shutdown()


def _wait_until_gone(controller: ServeController, deployment: str, deadline: float) -> None:
    from .app import NAME

    while time.monotonic() < deadline and controller.has_deployment(NAME, deployment):
        time.sleep(0.1)


def http_options(settings: ServeSettings) -> dict[str, Any]:
    """The options of Ray Serve's HTTP proxy."""
    return {"host": settings.host, "port": settings.port, "keep_alive_timeout_s": KEEP_ALIVE}


def _wait_until_ready(url: str) -> None:
    """Wait until a gateway has seen a model, for which it looks each second; raise RuntimeError after a while."""
    deadline = time.monotonic() + SECONDS_TO_BE_READY
    session = requests.Session()
    session.trust_env = False  # an HTTP proxy of the environment does not lead to this machine
    while True:
        with suppress(requests.ConnectionError, requests.Timeout):
            if session.get(f"{url}/readyz", timeout=SECONDS_TO_BE_READY).ok:
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url}/readyz was not ready within {SECONDS_TO_BE_READY} s")
        time.sleep(0.1)


def _check_port(settings: ServeSettings) -> None:
    """Raise `UserError` where the port is taken, which Serve would report in a log only."""
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


def _url_host(host: str) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
