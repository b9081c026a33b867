"""The application that Ray Serve runs: gateways with the API in front of model replicas, built from the
settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from ..config import parse_config
from ..runtime import WORKER_ENVIRONMENT, Resources
from .api import build_api
from .catalogue import Catalogue
from .gateway import Gateway
from .model import MODEL
from .model.scaling import replicas_for_work
from .settings import ServeSettings
from .transport import BodyFromScope, with_access_log

if TYPE_CHECKING:
    from .model.replica import MakeRestorer

NAME = "diffuir"
"""Name of the application in Ray Serve."""
GATEWAY = "Gateway"
"""Name of the deployment of the gateways."""
IMPORT_PATH = "diffuir_platform.serve.app:build"
"""Import path of the application in a config of `serve deploy`."""
LOGGING = LoggingConfig(encoding="JSON", enable_access_log=False)
"""Logging of every process; `transport/access_log.py` takes the place of Serve's access log."""
MAX_GATEWAY_REQUESTS = 10_000
"""Requests that Serve lets through to one gateway: more than the gateway's own limits."""
LOOK_BACK = 10.5
"""Period that autoscaling averages over, seconds; Serve requires more than ten."""
DRAIN = 30.0
"""Time beyond the longest request that a process has to finish its requests when it is to end, seconds."""


class GatewayDeployment(Gateway):
    """A gateway behind its API, as Ray Serve starts it."""

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The ASGI application of one process; Serve calls this after the constructor (see `serve.ingress`)."""
        return with_access_log(self.metrics.count_responses(BodyFromScope(build_api(self))))


def build(arguments: dict[str, Any]) -> serve.Application:
    """Build the application from the `args` of a config of `serve deploy`, which are those of `ServeSettings`."""
    return application(parse_config(ServeSettings, arguments, "args"))


def application(
    settings: ServeSettings, resources: Resources | None = None, make: MakeRestorer | None = None
) -> serve.Application:
    """Build the application: gateways in front of model replicas.

    resources: resources of one replica; None for those of the settings. make: makes the restorers; None for those
    of diffuir_core. Raises `UserError` for weights that can't be used.
    """
    # Imported here, because gateways load this module and should not load torch.
    from .model.replica import ModelReplica

    catalogue = Catalogue.of(settings)
    cpus, gpus, threads = _share(settings, resources)
    models = serve.deployment(ModelReplica).options(
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
            policy=AutoscalingPolicy(policy_function=replicas_for_work),
        ),
        graceful_shutdown_timeout_s=settings.timeout + DRAIN,
        logging_config=LOGGING,
    )
    gateways = serve.deployment(serve.ingress()(GatewayDeployment)).options(
        name=GATEWAY,
        num_replicas=settings.gateways,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MAX_GATEWAY_REQUESTS,
        graceful_shutdown_timeout_s=settings.timeout + settings.upload_timeout + DRAIN,
        logging_config=LOGGING,
    )
    bound: DeploymentHandle = models.bind(settings, catalogue, make, threads)
    return gateways.bind(settings, catalogue, bound)


def _share(settings: ServeSettings, resources: Resources | None) -> tuple[float, float, int | None]:
    """(CPUs, GPUs, threads) of one model replica."""
    if resources is not None:
        cpus = resources.model_cpus if settings.model_cpus is None else settings.model_cpus
        threads = resources.model_threads if settings.model_cpus is None else max(1, int(cpus))
        return cpus, resources.model_gpus * settings.gpu_share, threads
    cpus = 1.0 if settings.model_cpus is None else settings.model_cpus
    return cpus, settings.gpu_share if settings.device == "cuda" else 0.0, None if cpus else 1
