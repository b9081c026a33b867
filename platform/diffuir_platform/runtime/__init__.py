"""A Ray to run on, jobs submitted to a cluster, and every use of private parts of Ray and uvicorn."""

from .session import (
    WORKER_ENVIRONMENT,
    Resources,
    cluster_address,
    cluster_resources,
    ray_session,
    takes_jobs,
)
from .starting import RayDidNotStart

__all__ = [
    "WORKER_ENVIRONMENT",
    "RayDidNotStart",
    "Resources",
    "cluster_address",
    "cluster_resources",
    "ray_session",
    "takes_jobs",
]
