"""The private parts of Ray, Ray Serve and uvicorn that `runtime/private.py` uses are what it takes them for.

Each test names the function or constant of that module to look at when a new version changes a part.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from diffuir_platform.runtime import private


def has_parameters(function: Any, *names: str) -> None:
    known = inspect.signature(function).parameters
    for name in names:
        assert name in known, f"{function.__qualname__} has no parameter {name!r} any more"


def test_the_module_was_written_for_the_installed_versions() -> None:
    import ray
    import uvicorn

    text = str(private.__doc__)
    assert f"Ray {ray.__version__}," in text, (
        f"Ray is {ray.__version__}: check every entry of private.py again"
    )
    version = uvicorn.__version__.rpartition(".")[0]
    assert f"uvicorn {version}." in text, f"uvicorn is {version}: check every entry of private.py again"


def test_the_module_is_light_to_import() -> None:
    code = "import sys, diffuir_platform.runtime.private; print({'ray', 'uvicorn'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.strip() == "set()", "importing private.py also imports a library that gateways pay for"


def test_job_variable() -> None:
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
    from ray.dashboard.modules.job import job_supervisor

    assert private.JOB_VARIABLE == RAY_JOB_CONFIG_JSON_ENV_VAR, "Ray renamed the variable that marks a job"
    source = inspect.getsource(job_supervisor)
    assert "RAY_JOB_CONFIG_JSON_ENV_VAR: json.dumps(" in source, (
        "Ray's job server no longer sets JOB_VARIABLE"
    )


def test_preemption_watcher_variable() -> None:
    from ray.train.v2._internal import constants
    from ray.train.v2._internal.execution.controller import controller

    assert constants.ENABLE_PREEMPTION_WATCHER_ENV_VAR == private.PREEMPTION_WATCHER_VARIABLE, (
        "Ray Train renamed the variable of its preemption watcher"
    )
    assert "ENABLE_PREEMPTION_WATCHER_ENV_VAR" in inspect.getsource(controller), (
        "Ray Train ignores the variable"
    )


def test_serve_headers() -> None:
    from ray.serve._private import constants

    names = {
        constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER,
        constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER,
        constants.SERVE_MULTIPLEXED_MODEL_ID,
        constants.SERVE_SESSION_ID,
    }
    assert {name.replace("-", "_").encode() for name in names} == set(private.SERVE_HEADERS), (
        "Ray Serve renamed a header that clients could steer it with"
    )
    others = {"SERVE_HTTP_REQUEST_ID_HEADER", "SERVE_INGRESS_ROUTER_HEADER_PREFIX"}
    known = {"SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER", "SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER", *others}
    found = {name for name in vars(constants) if name.startswith("SERVE_") and "_HEADER" in name}
    assert found == known, "Ray Serve has a header that is new: decide whether it belongs to SERVE_HEADERS"


def test_job_client_loggers() -> None:
    for name in private.JOB_CLIENT_LOGGERS:
        loggers = [v for v in vars(importlib.import_module(name)).values() if isinstance(v, logging.Logger)]
        assert name in {logger.name for logger in loggers}, f"Ray's job client no longer logs as {name}"


def test_errors_of_the_job_server_have_the_text_that_tells_them() -> None:
    from ray.dashboard.modules.job import job_head, job_manager

    texts = inspect.getsource(job_head) + inspect.getsource(job_manager)
    for text in (
        "No available agent to submit job, please try again later",
        "does not exist",
        "already exists",
    ):
        assert text in texts, (
            f"Ray's job server no longer says {text!r}, which serve/gateway/jobs.py or runtime/ wait for"
        )


IN_A_PROCESS = """
import json, os
for name in [name for name in os.environ if name.startswith("RAY_")]:
    del os.environ[name]
from diffuir_platform.runtime import private
found = {}

from ray._raylet import AuthenticationMode, get_authentication_mode
found["mode before"] = get_authentication_mode() == AuthenticationMode.DISABLED
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 32)
private.reload_authentication()
found["mode after"] = get_authentication_mode() == AuthenticationMode.TOKEN
from ray._raylet import AuthenticationTokenLoader
os.environ["RAY_AUTH_TOKEN"] = "b" * 32
private.reload_authentication()
found["token"] = AuthenticationTokenLoader.instance().get_token_for_http_header()["authorization"]

from ray._private import ray_constants, services
variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
services.node_ip_address_from_perspective = lambda address: "the network's"
with private.ray_on_the_loopback():
    found["address inside"] = services.get_node_ip_address()
    found["variable inside"] = os.environ[variable]
found["address outside"] = services.get_node_ip_address()
found["variable outside"] = os.environ.get(variable)

import ray._private.parameter
with private.ray_parameters(dashboard_agent_listen_port=0, include_log_monitor=False):
    made = ray._private.parameter.RayParams()
    found["parameters"] = [made.dashboard_agent_listen_port, made.include_log_monitor]
found["port outside"] = ray._private.parameter.RayParams().dashboard_agent_listen_port

os.environ[private.PROXY_CALLBACK_VARIABLE] = "diffuir_platform.serve.transport.proxy_middleware.middlewares"
from ray.serve._private.http_util import configure_http_middlewares
from ray.serve.config import HTTPOptions
found["middlewares"] = [one.cls.__name__ for one in configure_http_middlewares(HTTPOptions()).middlewares]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Functions that change a whole process, tried in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, f"a private part of Ray is gone: {done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def test_reload_authentication(found: dict[str, Any]) -> None:
    assert found["mode before"], "Ray requires a token by default: set none in session.py"
    assert found["mode after"], "Ray keeps the mode that it read first: Config.initialize is no help"
    assert found["token"] == f"Bearer {'b' * 32}", (
        "Ray keeps the token that it read first: reset_cache is no help"
    )


def test_stop_execution_and_running_actors() -> None:
    from ray.data import Dataset
    from ray.data._internal.actor_autoscaler.autoscaling_actor_pool import AutoscalingActorPool as Pool
    from ray.data._internal.execution.interfaces.physical_operator import PhysicalOperator
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

    sources = inspect.getsource(Dataset) + inspect.getsource(StreamingExecutor)
    assert all(name in sources for name in ("self._current_executor = executor", "self._topology"))
    has_parameters(StreamingExecutor.shutdown, "force")
    assert all(map(callable, (PhysicalOperator.get_autoscaling_actor_pools, Pool.num_running_actors)))


def test_keep_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import ray_constants  # test_stopping.py shows that Ray obeys it

    monkeypatch.setattr(ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", False)
    private.keep_signal_handlers()
    assert ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER is True


def test_ray_on_the_loopback(found: dict[str, Any]) -> None:
    assert found["address inside"] == "127.0.0.1", "ENABLE_RAY_CLUSTER no longer decides Ray's address"
    assert found["variable inside"] == "0", "processes that Ray starts would not learn of the loopback"
    assert (found["address outside"], found["variable outside"]) == ("the network's", None)


def test_ray_parameters(found: dict[str, Any]) -> None:
    from ray._private import worker

    assert found["parameters"] == [0, False], "RayParams no longer has the two fields"
    assert found["port outside"] != 0, "the original RayParams is not put back"
    source = inspect.getsource(worker)
    assert "ray._private.parameter.RayParams(" in source, (
        "ray.init no longer looks RayParams up in its module"
    )


def test_ray_socket() -> None:
    from ray._private import node

    source = inspect.getsource(node)
    assert 'f"session_{date_str}_{os.getpid()}"' in source, "Ray names its sessions in another way"
    assert '"%Y-%m-%d_%H-%M-%S_%f"' in source, "Ray names its sessions in another way"
    assert "plasma_store" in source, "Ray names its sockets in another way"


PORT_PATIENCE = "RAY_gcs_server_port_wait_time_s"


def test_ray_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import node, services

    source = inspect.getsource(node)
    assert "ray._private.services.get_node(" in source, "Ray waits for its node in another way"
    assert PORT_PATIENCE in source, "Ray waits for its control service in another way"
    answers = iter((RuntimeError("not yet"), RuntimeError("not yet"), {"node": 1}))

    def get_node(*arguments: object) -> object:
        answer = next(answers)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    monkeypatch.setattr(services, "get_node", get_node)
    with private.ray_patience(20):
        assert services.get_node("address", "id") == {"node": 1}
        assert os.environ[PORT_PATIENCE] == "20"
    assert services.get_node is get_node
    assert PORT_PATIENCE not in os.environ


def test_proxy_callback_variable(found: dict[str, Any]) -> None:
    assert found["middlewares"] == ["ProxyMiddleware"], (
        "Ray Serve's proxy no longer calls the function in the variable"
    )


def test_mute_data_console() -> None:
    import ray.data  # noqa: F401 - it configures the logger
    from ray._private.log import PlainRayHandler

    handlers = [h for h in logging.getLogger("ray.data").handlers if isinstance(h, PlainRayHandler)]
    assert len(handlers) == 1, "Ray Data logs to the terminal with another class of handler"
    private.mute_data_console()
    assert handlers[0].level == logging.CRITICAL


def test_execution_callback_and_task_counts(ray: object) -> None:
    import ray.data as data

    callback: Any = private.execution_callback()
    seen: list[list[tuple[int, int]]] = []

    class Recorder(callback):
        def on_execution_step(self, executor: Any) -> None:
            seen.append(private.task_counts(executor))

    context = data.DataContext.get_current()
    context.custom_execution_callback_classes.append(Recorder)
    try:
        assert len(data.range(6, override_num_blocks=3).map(lambda row: row).take_all()) == 6
    finally:
        context.custom_execution_callback_classes.remove(Recorder)
    assert seen, "Ray Data no longer calls on_execution_step in each round of its loop"
    assert max(submitted for counts in seen for submitted, _ in counts) >= 3, "tasks are not counted"
    assert max(taken for counts in seen for _, taken in counts) >= 3, "outputs are not counted"


def test_job_server_url() -> None:
    from ray.dashboard.utils import ray_address_to_api_server_url

    has_parameters(ray_address_to_api_server_url, "address")
    assert "raise ValueError" in inspect.getsource(ray_address_to_api_server_url), (
        "it tells a cluster without a job server in another way: translate that error"
    )


def test_running_replicas() -> None:
    from ray.serve._private.client import ServeControllerClient
    from ray.serve._private.common import ReplicaState
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ApplicationDetails, DeploymentDetails, ReplicaDetails, ServeInstanceDetails

    has_parameters(ServeControllerClient.get_serve_details, "self")
    assert callable(_get_global_client)
    for model, field in (
        (ServeInstanceDetails, "applications"),
        (ApplicationDetails, "deployments"),
        (DeploymentDetails, "replicas"),
        (ReplicaDetails, "state"),
    ):
        assert field in model.model_fields, f"{model.__name__} has no field {field!r} any more"
    assert ReplicaState.RUNNING.value == "RUNNING"


def test_serve_controller() -> None:
    from ray import serve
    from ray.serve._private import constants
    from ray.serve._private.controller import ServeController

    has_parameters(ServeController.get_deployment_status, "name", "app_name")
    has_parameters(ServeController.graceful_shutdown, "wait")
    has_parameters(serve.delete, "name", "_blocking")
    assert isinstance(constants.SERVE_CONTROLLER_NAME, str)
    assert isinstance(constants.SERVE_NAMESPACE, str)


def test_the_application_is_built_late() -> None:
    """`serve.ingress` documents the method that `serve/app.py` defines."""
    from ray import serve
    from ray.serve._private.replica import SERVE_BUILD_ASGI_APP_METHOD

    assert SERVE_BUILD_ASGI_APP_METHOD == "__serve_build_asgi_app__", "Ray Serve renamed the method of app.py"
    assert SERVE_BUILD_ASGI_APP_METHOD in str(serve.ingress.__doc__)


def test_the_snapshot_of_ray_train() -> None:
    """The file that `train/resuming.py` reads and writes: its name, its keys, the names of the folders in it."""
    from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
    from ray.train.v2._internal.execution.checkpoint import checkpoint_manager
    from ray.train.v2._internal.execution.storage import StorageContext

    from diffuir_platform.train.checkpoints import OF_RAY_TRAIN, SNAPSHOT_FILE

    assert CHECKPOINT_MANAGER_SNAPSHOT_FILENAME == SNAPSHOT_FILE, "Ray Train renamed its snapshot"
    assert "checkpoint_results" in checkpoint_manager._CheckpointManagerState.model_fields
    assert "checkpoint_dir_name" in checkpoint_manager._TrainingResultState.model_fields
    name = StorageContext.make_default_checkpoint_dir_name()
    assert OF_RAY_TRAIN.fullmatch(name), f"Ray Train calls the folder of a checkpoint {name}"


def test_the_actor_of_a_queue() -> None:
    """`train/progress.py` calls the actor itself, with a timeout that `Queue.put_nowait` lacks."""
    from ray.util import queue

    assert "self.actor =" in inspect.getsource(queue.Queue.__init__), "a queue's actor has another name"
    has_parameters(queue._QueueActor.put_nowait, "item")


def test_set_http_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve._private import http_util
    from uvicorn import Config
    from uvicorn.config import HTTP_PROTOCOLS

    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    private.set_http_protocol("uvicorn.protocols.http.h11_impl:H11Protocol")
    config = Config(lambda: None, log_config=None)
    config.load()
    assert config.http_protocol_class.__name__ == "H11Protocol", "uvicorn no longer looks up HTTP_PROTOCOLS"
    calls = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(http_util)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "uvicorn.Config"
    ]
    assert calls, "Ray Serve makes its server in another way"
    passed = {keyword.arg for call in calls for keyword in call.keywords}
    assert "http" not in passed, 'Ray Serve names a protocol itself, so that "auto" does not count'


def test_http_connection() -> None:
    from uvicorn.protocols.http import httptools_impl

    parent = httptools_impl.HttpToolsProtocol
    for name in (
        "data_received",
        "send_400_response",
        "on_headers_complete",
        "on_body",
        "on_message_complete",
    ):
        assert callable(getattr(parent, name, None)), f"uvicorn's connection has no method {name} any more"
    assert issubclass(private.http_connection(), parent)
    assert httptools_impl.STATUS_LINE[431].startswith(b"HTTP/1.1 431 "), "STATUS_LINE has other values"
    cycle = httptools_impl.RequestResponseCycle.__init__.__code__.co_names
    assert {"response_started", "response_complete"} <= set(cycle), "responses are tracked by other names"
    source = inspect.getsource(parent)
    for name in ("self.url = b", "self.cycle:", "self.pipeline:"):
        assert name in source, f"uvicorn's connection no longer sets {name.rstrip(' =:b')}"


def test_what_a_node_of_the_local_cluster_replaces() -> None:
    """`cluster/node.py`, which runs without this package."""
    from ray._private import ray_constants, services
    from ray.scripts.scripts import main

    has_parameters(services.get_node_ip_address, "address")
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)
    assert callable(main)
