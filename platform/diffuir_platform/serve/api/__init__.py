"""HTTP: the routes, their description in OpenAPI, and the page."""

from .routes import api

__all__ = ["api"]
