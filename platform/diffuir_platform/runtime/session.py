"""A Ray to run on: one of our own on this machine, or a cluster that is already there."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from diffuir_core.errors import UserError

from . import private
from .starting import local_ray

OBJECT_STORE_BYTES = 4 * 2**30
"""Largest object store of a local Ray, bytes; 30% of the machine's memory where that is less."""

SECONDS_TO_CONNECT = 10
"""Longest wait for a connection to the cluster to join, seconds."""

WORKER_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""Environment of processes that hold a model.

MALLOC_ARENA_MAX: Ray's have many threads before ours begins, each with a heap of its own, which
diffuir_core/allocator.py cannot undo: training ran at three quarters of its speed. OMP_WAIT_POLICY: threads that
wait for arithmetic sleep; spinning ones take the cores from whatever else runs, which may be what they wait for.
"""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources that a pipeline may ask Ray for."""

    models: int
    """Processes that hold one model each."""
    model_cpus: float
    """Logical CPUs of each such process."""
    model_gpus: float
    """GPUs of each such process."""
    model_threads: int | None
    """Threads for the arithmetic of one model; None leaves it to Ray (as many as `model_cpus`)."""


def cluster_address(requested: str | None = None) -> str | None:
    """The address of the cluster to run on; None for a Ray of our own.

    A job joins the cluster that runs it, whatever `requested` is. Without it, RAY_ADDRESS counts, as for every
    other Ray program, unless it is an http:// address, which is meant for Ray's own job command.
    """
    if private.JOB_VARIABLE in os.environ:
        return "auto"
    if requested:
        return requested
    named = os.environ.get("RAY_ADDRESS") or None
    return None if named is None or takes_jobs(named) else named


def takes_jobs(address: str) -> bool:
    """Whether `address` is that of a job server, to which jobs are submitted; no process can join it."""
    return address.startswith(("http://", "https://"))


@contextmanager
def ray_session(
    address: str | None = None,
    device: str = "auto",
    least_cpus: int = 1,
    data: bool = False,
    dashboard: bool = False,
) -> Iterator[Resources]:
    """A running Ray and its resources: a quiet local one, shut down at the end, or the cluster at `address`.

    `cluster_address` decides which: a job never starts a Ray of its own. A Ray that this process has already
    started is used as it is and left running. device: "cpu" leaves the GPUs alone. least_cpus: logical CPUs that a
    local Ray has at least. data: whether Ray Data will be used. dashboard: whether a local Ray has a dashboard on
    the loopback, with its job server. Raises `UserError` where `address` does not answer, and `RayDidNotStart`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # threads that outlive a Ray would start another
    os.environ.setdefault(
        "RAY_IGNORE_UNHANDLED_ERRORS", "1"
    )  # of tasks that nobody waits for, as at a signal
    import ray

    address = cluster_address(address)
    with ExitStack() as stack:
        if not ray.is_initialized():
            private.keep_signal_handlers()
            if address is None:
                # Two logical CPUs more than there are: readers and writers mostly wait, and models take none.
                stack.enter_context(_local_ray(max(_cores() + 2, least_cpus), dashboard))
            else:
                stack.callback(ray.shutdown)
                _join(address)
        if data:
            _configure_ray_data()
        yield _local_resources(device) if address is None else cluster_resources(device)


def _local_ray(cpus: int, dashboard: bool) -> AbstractContextManager[None]:
    """A quiet Ray of our own on this machine."""
    _require_token()
    os.environ.setdefault(private.PREEMPTION_WATCHER_VARIABLE, "0")
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return local_ray(
        num_cpus=cpus,
        object_store_memory=min(OBJECT_STORE_BYTES, int(memory * 0.3)),
        include_dashboard=dashboard,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _require_token() -> None:
    """Give the Ray that is started from here a token of its own, unless RAY_AUTH_MODE says otherwise.

    Its ports run whatever is sent to them, and those of Ray Serve's replicas are open on every address. Ray's own
    token would lie in the home folder, where a later `ray start` would take it and a job submitted to that cluster
    would not have it.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    private.reload_authentication()


def _join(address: str) -> None:
    import ray

    if takes_jobs(address):
        raise UserError(
            f"{address} is a job server, which no process can join: give auto, host:port or ray://host:port"
        )
    try:
        _check_connection(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        message = f"no Ray cluster answers at {address} ({error}): check --address or leave it out"
        raise UserError(" ".join(message.split())) from error


def _check_connection(address: str) -> None:
    """Raise OSError where nothing listens at host:port: Ray would keep trying for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()


def _local_resources(device: str) -> Resources:
    import ray

    offered = ray.cluster_resources()
    gpus = 0 if device == "cpu" else int(offered.get("GPU", 0))
    models = max(1, gpus)
    return Resources(
        models=models,
        # The threads limit what each really uses.
        model_cpus=0,
        model_gpus=min(1, gpus),
        model_threads=int(os.environ.get("OMP_NUM_THREADS") or max(1, _cores() // models)),
    )


def cluster_resources(device: str) -> Resources:
    """The resources that the cluster which this process has joined has at present."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
    # Without GPUs each model takes half of the largest node, so that smaller nodes are of use too.
    model_cpus = 0 if gpus else max(cpus, default=0) // 2
    return Resources(
        models=gpus or max(1, sum(count // model_cpus for count in cpus) if model_cpus else 0),
        model_cpus=model_cpus,
        model_gpus=min(1, gpus),
        model_threads=None if model_cpus else 1,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _configure_ray_data() -> None:
    """Keep Ray Data's scheduling loop from spinning, and its plans and timings off the terminal."""
    # A driver that was killed keeps its resources for so long, and this run may be the one that goes on.
    os.environ.setdefault("RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S", "20")
    import ray.data

    from .pacing import pause_between_rounds

    context = ray.data.DataContext.get_current()
    pause_between_rounds(context)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    private.mute_data_console()
    # In Ray 2.60 nothing else can set max_restarts; and fewer photos than tasks is no fault.
    warnings.filterwarnings("ignore", message="`ray_remote_args_fn`")
    warnings.filterwarnings("ignore", message="The m..imum number of concurrent", category=UserWarning)
