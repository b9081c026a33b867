"""HTTP: the routes, their description in OpenAPI, and the page."""

from .routes import build_api

__all__ = ["build_api"]
