"""Every import of private modules of Ray, Ray Serve and uvicorn, and every private name that this package uses.

Written for Ray 2.60.0, which pyproject.toml pins, and uvicorn 0.54. Each entry says why it is needed and which
public way was looked for. `tests/platform/runtime/test_private.py` checks each of them against the installed
packages, and `test_private_imports.py` beside it that no other module of this package reaches into them.

Some undocumented things stay where they are used; the same tests check them:

- `train/checkpoints.py`: the name and the keys of Ray Train's snapshot file, and the prefix of its checkpoints;
- `serve/app.py`: the method `__serve_build_asgi_app__`, which `serve.ingress` has Ray Serve call;
- `train/progress.py`: the attribute `actor` of `ray.util.queue.Queue`;
- `cluster/node.py`: private imports, as it runs without this package.

Imports are inside the functions: the driver, the HTTP proxies of Ray Serve and all gateways load this module.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

STDERR = 2
"""Descriptor of stderr."""

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray's job server sets for the process it starts as a job.

Why: a job joins the cluster that runs it. Public way: none. `ray.get_runtime_context()` answers only once the
process has joined a cluster, and RAY_ADDRESS, which the job server sets too, may also come from the user.
"""

PREEMPTION_WATCHER_VARIABLE = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Environment variable that turns Ray Train's watcher for preempted nodes on (1, the default) or off (0).

Why: on this machine alone it is an actor more to start, which finds nothing. Public way: none, `RunConfig` has no
such setting and the documentation does not list the variable.
"""

PROXY_CALLBACK_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Environment variable with the import path of a function that returns middlewares for Ray Serve's HTTP proxies.

Why: the proxy obeys headers of clients and refuses requests in plain text. Public way: none since
`HTTPOptions.middlewares` was removed; middlewares of an ingress deployment run behind the proxy.
"""

SERVE_HEADERS = (
    b"x_request_timeout_seconds",
    b"x_request_disconnect_disabled",
    b"serve_multiplexed_model_id",
    b"x_session_id",
)
"""Request headers that Ray Serve takes as instructions, with "_" for "-": it takes some in either spelling.

Why: a client could switch a request's time limit off, keep a restore running after it has gone, or choose a
replica. Public way: none turns them off.
"""

JOB_CLIENT_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray's job client that report each upload.

Why: they write into the output of the command that submits a job. Public way: `ray.init(logging_level=...)` sets
the level of all of them, but a process that submits a job does not call `ray.init`.
"""


def reload_authentication() -> None:
    """Have Ray read RAY_AUTH_MODE and RAY_AUTH_TOKEN of the environment again.

    Why: Ray reads both once for each process, and this process may have been in another Ray before. Public way:
    none; `ray.shutdown` keeps what was read.
    """
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def keep_signal_handlers() -> None:
    """Have Ray leave the handlers of SIGTERM and of crashes in this process alone.

    Why: while Ray starts, its own would end a command at SIGTERM with a trace, and without our end. Public way:
    the environment variable RAY_DISABLE_FAILURE_SIGNAL_HANDLER, which counts for all processes that Ray starts
    too, and only before Ray is imported.
    """
    from ray._private import ray_constants

    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True


@contextmanager
def ray_on_the_loopback() -> Iterator[None]:
    """Inside, a Ray that is started listens on 127.0.0.1 only, as it always does on a Mac.

    Why: nobody else can reach it, and a laptop may change its network meanwhile. Public way: `ray.init` has
    `_node_ip_address`, also private, and replaces 127.0.0.1 in it by the address of the network interface. The
    environment variable alone comes too late: Ray reads it when it is imported.
    """
    from ray._private import ray_constants

    name, original = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    before = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = original
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def ray_parameters(**parameters: Any) -> Iterator[None]:
    """Inside, a Ray that is started has these fields of `RayParams`, which `ray.init` does not offer.

    Why: the HTTP server of the agent listens on port 52365 by default, so of two Rays on one machine the second
    has no agent and can run no jobs; and a process reads all logs for a terminal even where none are shown. Public
    way: `ray start --dashboard-agent-listen-port`, which starts a cluster that outlives this process.
    """
    from ray._private import parameter

    original = parameter.RayParams
    parameter.RayParams = partial(original, **parameters)
    try:
        yield
    finally:
        parameter.RayParams = original


RAY_SOCKET = "session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store"
"""Longest path of a socket below the folder of Ray's sessions, but for the digits.

Why: the path of a socket has a limit. Public way: none; Ray refuses a folder whose path is too long.
"""


@contextmanager
def ray_patience(seconds: int) -> Iterator[None]:
    """Inside, a Ray that is started may take `seconds` for its control service, and as long for its node.

    Why: on a busy machine it takes longer than Ray's own limits of 30 s. Public way: none for the node; the
    environment variable for the control service is not documented.
    """
    from ray._private import services

    name, original = "RAY_gcs_server_port_wait_time_s", services.get_node
    before = os.environ.get(name)

    def get_node(*arguments: Any, **more: Any) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return original(*arguments, **more)
            except RuntimeError:  # it is not there yet
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    os.environ[name], services.get_node = str(seconds), get_node
    try:
        yield
    finally:
        services.get_node = original
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def mute_data_console() -> None:
    """Keep Ray Data's plans and timings off the terminal; its log file keeps them.

    Why: they would come between the lines of a command. Public way: RAY_DATA_LOGGING_CONFIG names a file that has
    to be on every node, and `ray.init(logging_level=...)` does not reach this logger.
    """
    from ray._private.log import PlainRayHandler

    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, PlainRayHandler):
            handler.setLevel(logging.CRITICAL)


def execution_callback() -> type[Any]:
    """The class that callbacks in `DataContext.custom_execution_callback_classes` inherit from.

    Why: see `pacing`. Public way: none, no setting of Ray Data pauses its scheduling loop.
    """
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    return ExecutionCallback


@contextmanager
def native_messages_muted() -> Iterator[None]:
    """Inside, what native code writes to stderr goes nowhere, and what Python writes goes where it went.

    Why: Ray's writes an error for each pool of Ray Data, that lost arguments would keep its actors from a restart.
    Public way: none. RAY_BACKEND_LOG_LEVEL is announced by a line of its own, and counts for files of logs too.
    """
    original = sys.stderr
    try:
        is_native = original.fileno() == STDERR
    except (OSError, ValueError):  # it is captured
        is_native = False
    if not is_native:
        yield
        return
    original.flush()
    kept = os.dup(STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDERR)
    os.close(nowhere)
    sys.stderr = os.fdopen(kept, "w", buffering=1, encoding=original.encoding, errors=original.errors)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, STDERR)
        sys.stderr.close()
        sys.stderr = original


def stop_execution(data: Any, seconds: float = 5.0) -> None:
    """Stop the execution of a `ray.data.Dataset`, if it has one that has started, with what is under way.

    Waits at most about `seconds` for the thread that schedules it, which crashes the process where Ray ends first.
    Why: batches that wait for an actor on a node that is gone would keep it, and its actors, for ever. Public way:
    to close the iterator of the data set does so, but not from another thread while it waits for a block.
    """
    executor = data._current_executor
    if executor is not None:
        executor.shutdown(force=True)
        if executor.is_alive():
            executor.join(seconds)


def running_actors(data: Any) -> int:
    """Actors of the pools of a `ray.data.Dataset` that is being executed, without those that are being started.

    Why: a person wants to see how many models are at work. Public way: Ray Data's own progress bars, and its
    metric `ray_data_num_alive_actors`, where somebody collects metrics.
    """
    executor = data._current_executor
    if executor is None:
        return 0
    pools = [pool for operator in executor._topology for pool in operator.get_autoscaling_actor_pools()]
    return sum(pool.num_running_actors() for pool in pools)


def task_counts(executor: Any) -> list[tuple[int, int]]:
    """(tasks submitted, outputs taken) of each operator of a `StreamingExecutor`, which callbacks get.

    Why: recognises a round of the scheduling loop that found nothing to do. Public way: `Dataset.stats()` gives
    text, and only to the process that owns the data set.
    """
    return [
        (operator.metrics.num_tasks_submitted, operator.metrics.num_outputs_taken)
        for operator in executor._topology
    ]


def job_server_url(gcs_address: str) -> str:
    """The URL of the job server of the cluster whose control service is at `gcs_address`, host:port.

    Why: a gateway sends jobs to its own cluster. Public way: `JobSubmissionClient(gcs_address)` looks it up in the
    same manner, but RAY_ADDRESS and RAY_API_SERVER_ADDRESS of the node's environment override it. Raises
    ConnectionError where the cluster has no job server.
    """
    from ray.dashboard.utils import ray_address_to_api_server_url

    try:
        return str(ray_address_to_api_server_url(gcs_address))
    except ValueError as error:
        raise ConnectionError(str(error)) from error


def running_replicas(application: str) -> dict[str, int]:
    """Deployment -> number of its replicas that run.

    Why: a gateway asks each second. Public way: `serve.status()` reads the same and then builds and pickles its
    classes for 90 ms, a tenth of a gateway's time.
    """
    from ray.serve.context import _get_global_client

    details = _get_global_client().get_serve_details()
    return {
        name: sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
        for name, deployment in details["applications"][application]["deployments"].items()
    }


class ServeController:
    """The controller of the Ray Serve that runs on this cluster.

    Why: `serve.shutdown()` takes the HTTP proxies away first and with them the responses under way, and its call
    ends together with the controller, which Ray prints as a failed task. Public way: none shuts Serve down in
    order, and `serve.status()` leaves out what is being deleted.

    Raises ValueError where no controller runs; the methods raise `RayError` where it has ended.
    """

    def __init__(self) -> None:
        import ray
        from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

        self._actor = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)

    def begin_delete(self, application: str) -> None:
        """Begin to delete the application, whose replicas finish the requests they have."""
        from ray import serve

        serve.delete(application, _blocking=False)

    def has_deployment(self, application: str, deployment: str) -> bool:
        """Whether the deployment has replicas left, those that are shutting down included."""
        import ray

        return ray.get(self._actor.get_deployment_status.remote(deployment, application)) is not None

    def begin_shutdown(self) -> None:
        """Begin to shut Serve down."""
        self._actor.graceful_shutdown.remote(wait=False)


def set_http_protocol(import_path: str) -> None:
    """Have every uvicorn server of this process that asks for "auto" use the class at `import_path`, module:class.

    Why: Ray Serve's proxy makes its server itself. Public way: `uvicorn.Config(http=...)`, which Serve does not
    pass.
    """
    from uvicorn.config import HTTP_PROTOCOLS

    HTTP_PROTOCOLS["auto"] = import_path


def http_connection() -> type[Any]:
    """uvicorn's class for one HTTP/1.1 connection, with names for what a subclass may ask of it.

    A subclass may also override asyncio's `data_received`, the parser's callbacks `on_headers_complete`, `on_body`
    and `on_message_complete`, and `send_400_response`, which answers what the parser does not accept.

    Why: this parser of uvicorn's two has no limit on the size of a head. Public way:
    `uvicorn.Config(h11_max_incomplete_event_size=...)` limits the slower parser only.
    """
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

    class HttpConnection(HttpToolsProtocol):
        url = b""  # uvicorn sets it only where a request begins

        @property
        def target_bytes(self) -> int:
            """Length of the request's target so far."""
            return len(self.url)

        @property
        def is_responding(self) -> bool:
            """Whether a response is under way or, for a pipelined request, still to come."""
            cycle = self.cycle
            return bool(self.pipeline) or (
                cycle is not None and cycle.response_started and not cycle.response_complete
            )

        def write_response(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
            """Write a whole response that no application gave."""
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)

    return HttpConnection
