"""What stands before and around Ray Serve's own HTTP server: bounds, headers, small bodies, the access log."""

from .access_log import logged
from .small_bodies import Unpacked

__all__ = ["Unpacked", "logged"]
