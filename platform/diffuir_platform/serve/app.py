"""The application that Ray Serve runs: gateways in front of models, made of the settings alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from ..config import parse_config
from ..runtime import WORKER_ENVIRONMENT, Resources
from .api import api
from .catalogue import Catalogue
from .gateway import Gateway
from .model import MODEL
from .model.scaling import by_work
from .settings import ServeSettings
from .transport import Unpacked, logged

if TYPE_CHECKING:
    from .model.replica import Make

NAME = "diffuir"
GATEWAY = "Gateway"
IMPORT_PATH = "diffuir_platform.serve.app:build"
LOGGING = LoggingConfig(encoding="JSON", enable_access_log=False)
"""Of each process: the lines of `transport/access_log.py` say more than Serve's own."""
QUEUE = 10_000
"""Requests that Serve itself lets through to a process: the gateway's own limits come first."""
LOOK_BACK = 10.5
"""Seconds of work that scaling looks at; Serve wants more than ten."""
DRAIN = 30.0
"""Seconds beyond the longest request that a process which is to end has for what it has begun."""


class GatewayDeployment(Gateway):
    """A gateway behind its API, as Ray Serve starts it."""

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application of one process; Serve calls this after the constructor."""
        return logged(self.metrics.counting(Unpacked(api(self))))


def build(arguments: dict[str, Any]) -> serve.Application:
    """What the import path in a config of `serve deploy` names; arguments: `ServeSettings`."""
    return application(parse_config(ServeSettings, arguments, "args"))


def application(
    settings: ServeSettings, resources: Resources | None = None, make: Make | None = None
) -> serve.Application:
    """Gateways in front of models.

    resources: of one model's process; None for what the settings say. make: makes another restorer than that of
    the settings. Raises `UserError` for weights that can't be used.
    """
    # Gateways load this module too, and no torch.
    from .model.replica import Model

    catalogue = Catalogue.of(settings)
    cpus, gpus, threads = _share(settings, resources)
    models = serve.deployment(Model).options(
        name=MODEL,
        ray_actor_options={
            "num_cpus": cpus,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": WORKER_ENVIRONMENT},
        },
        max_ongoing_requests=settings.max_open * settings.gateways,
        max_queued_requests=settings.max_open,
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            upscale_delay_s=settings.upscale_delay,
            downscale_delay_s=settings.downscale_delay,
            look_back_period_s=LOOK_BACK,
            policy=AutoscalingPolicy(policy_function=by_work),
        ),
        graceful_shutdown_timeout_s=settings.timeout + DRAIN,
        logging_config=LOGGING,
    )
    gateways = serve.deployment(serve.ingress()(GatewayDeployment)).options(
        name=GATEWAY,
        num_replicas=settings.gateways,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=QUEUE,
        graceful_shutdown_timeout_s=settings.timeout + settings.upload_timeout + DRAIN,
        logging_config=LOGGING,
    )
    bound: DeploymentHandle = models.bind(settings, catalogue, make, threads)
    return gateways.bind(settings, catalogue, bound)


def _share(settings: ServeSettings, resources: Resources | None) -> tuple[float, float, int | None]:
    """(CPUs, GPUs, threads) of one model's process."""
    if resources is not None:
        cpus = resources.model_cpus if settings.model_cpus is None else settings.model_cpus
        threads = resources.model_threads if settings.model_cpus is None else max(1, int(cpus))
        return cpus, resources.model_gpus * settings.gpu_share, threads
    cpus = 1.0 if settings.model_cpus is None else settings.model_cpus
    return cpus, settings.gpu_share if settings.device == "cuda" else 0.0, None if cpus else 1
