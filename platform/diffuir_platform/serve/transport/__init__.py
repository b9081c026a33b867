"""Middleware around Ray Serve's HTTP server: size limits, headers, small bodies, the access log."""

from .access_log import with_access_log
from .small_bodies import BodyFromScope

__all__ = ["BodyFromScope", "with_access_log"]
