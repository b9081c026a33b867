"""A Ray to run on: one of our own on this machine, or a cluster that is already there."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from diffuir_core.errors import UserError

OBJECT_STORE_BYTES = 4 * 2**30
"""Most that a local Ray takes for photos on their way, or 30% of the memory where that is less."""

SECONDS_TO_ANSWER = 10
"""That a cluster which is to be joined has for taking a connection."""

WORKER_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""In the environment of processes that hold a model. Ray's have many threads before ours begins, each with a heap
of its own, which diffuir_core/allocator.py cannot undo: training ran at three quarters of its speed."""

_OF_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this for the process that it starts as a job."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a pipeline may ask Ray for."""

    models: int
    """Processes that hold a model each."""
    model_cpus: float
    model_gpus: float
    model_threads: int | None
    """Threads for the arithmetic of one model; None leaves it to Ray (as many as `model_cpus`)."""


def cluster_address(asked: str | None = None) -> str | None:
    """The cluster to run on; None for a Ray of our own.

    A job joins the cluster that runs it, whatever was asked for. Where nothing was, RAY_ADDRESS counts, as for
    every other Ray program; an http:// in it is meant for Ray's own job command.
    """
    if _OF_A_JOB in os.environ:
        return "auto"
    if asked:
        return asked
    named = os.environ.get("RAY_ADDRESS") or None
    return None if named is None or takes_jobs(named) else named


def takes_jobs(address: str) -> bool:
    """Whether it is the address of a job server, to which a job is submitted; no process can join that."""
    return address.startswith(("http://", "https://"))


@contextmanager
def ray_session(
    address: str | None = None,
    device: str = "auto",
    least_cpus: int = 1,
    data: bool = False,
    dashboard: bool = False,
) -> Iterator[Resources]:
    """A running Ray and what it offers: a quiet local one, shut down at the end, or the cluster at `address`.

    `cluster_address` says which: a job never starts a Ray of its own. A Ray that this process has already started
    is used as it is and left running. device: "cpu" leaves the GPUs alone. least_cpus: logical CPUs that a local
    Ray must have. data: whether Ray Data will be used. dashboard: whether a local Ray has one, on the loopback,
    which takes jobs. Raises UserError where `address` does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    address = cluster_address(address)
    owned = not ray.is_initialized()
    if owned and address is None:
        # Logical CPUs, two more than there are: what reads and writes mostly waits, and models take none.
        _start_local(max(_cores() + 2, least_cpus), dashboard)
    elif owned:
        _join(str(address))
    try:
        if data:
            _set_up_data()
        yield _local_resources(device) if address is None else cluster_resources(device)
    finally:
        if owned:
            ray.shutdown()


def _start_local(cpus: int, dashboard: bool) -> None:
    """Start Ray here; once more where it missed its own fixed 30 s, as on a machine busy with something else."""
    import ray

    _let_nobody_else_in()
    # This machine is not taken away by a cloud: no process need look for that.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for attempt in (1, 2):
        try:
            with _further_parameters(), _on_the_loopback():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    object_store_memory=min(OBJECT_STORE_BYTES, int(memory * 0.3)),
                    include_dashboard=dashboard,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            return
        except Exception as error:
            ray.shutdown()
            if "timed out" not in str(error):
                raise
            if attempt == 2:
                message = "Ray did not start on this machine within a minute: try again when it is less busy"
                raise UserError(message) from error


def _let_nobody_else_in() -> None:
    """Give the Ray that is started from here a token, unless RAY_AUTH_MODE says how it lets others in.

    Its ports run whatever is sent to them, and those of Ray Serve's replicas are open on every address. Ray's own
    token would lie in the home folder, where a later `ray start` finds it and who submits to that does not.
    """
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    if "RAY_AUTH_MODE" in os.environ:
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Both are read once: this process may have been in another Ray before.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _on_the_loopback() -> Iterator[None]:
    """Inside, a Ray that is started is at 127.0.0.1, as it always is on a Mac, and not at the network's address.

    Nobody else reaches it, and a laptop may change its network meanwhile.
    """
    from ray._private import ray_constants

    name, original = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    asked = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = original
        del os.environ[name]
        if asked is not None:
            os.environ[name] = asked


@contextmanager
def _further_parameters() -> Iterator[None]:
    """Inside, a Ray that is started has what `ray.init` does not let one ask for.

    Its agent listens on a free port: by default it is always 52365, and of two Rays on one machine the second
    would have no agent, and so could run no jobs. And no process reads all logs for a terminal that shows none.
    """
    from ray._private import parameter

    original = parameter.RayParams
    parameter.RayParams = partial(original, dashboard_agent_listen_port=0, include_log_monitor=False)
    try:
        yield
    finally:
        parameter.RayParams = original


def _join(address: str) -> None:
    import ray

    if takes_jobs(address):
        raise UserError(f"{address} takes jobs and can't be joined: give auto, host:port or ray://host:port")
    try:
        _look_for(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        message = f"no Ray cluster answers at {address} ({error}): check --address or leave it out"
        raise UserError(" ".join(message.split())) from error


def _look_for(address: str) -> None:
    """Raise OSError where nobody listens at host:port: Ray would go on asking for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()


def _local_resources(device: str) -> Resources:
    import ray

    offered = ray.cluster_resources()
    gpus = 0 if device == "cpu" else int(offered.get("GPU", 0))
    models = max(1, gpus)
    return Resources(
        models=models,
        # Many models would leave no CPU of Ray's for reading and writing; threads bound what each really takes.
        model_cpus=0,
        model_gpus=min(1, gpus),
        model_threads=int(os.environ.get("OMP_NUM_THREADS") or max(1, _cores() // models)),
    )


def cluster_resources(device: str) -> Resources:
    """What the cluster that this process has joined offers at present."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
    # Without GPUs each model takes half of the largest node, so that reading and writing always find room.
    model_cpus = 0 if gpus else max(cpus, default=0) // 2
    return Resources(
        models=gpus or max(1, sum(count > model_cpus > 0 for count in cpus)),
        model_cpus=model_cpus,
        model_gpus=min(1, gpus),
        model_threads=None if model_cpus else 1,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set_up_data() -> None:
    """Keep Ray Data's loop from spinning, and its plans and timings in its log file and off the terminal."""
    import ray.data

    from .pacing import pace

    context = ray.data.DataContext.get_current()
    pace(context)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if type(handler).__name__ == "PlainRayHandler":
            handler.setLevel(logging.CRITICAL)
    # In Ray 2.60 nothing else can say max_restarts; and fewer photos than tasks is no fault.
    warnings.filterwarnings("ignore", message="`ray_remote_args_fn`")
    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks", category=UserWarning)
