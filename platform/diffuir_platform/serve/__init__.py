"""The endpoint: an HTTP API in front of models that batch, scale and refuse excess load, and a page to try it."""

from .settings import ServeSettings

__all__ = ["ServeSettings"]
