"""The process between clients and models: access, admission, decoding and encoding, jobs, metrics."""

from .access import api_keys, check_origin
from .gateway import Gateway, RestoreResult
from .uploads import read_body

__all__ = ["Gateway", "RestoreResult", "api_keys", "check_origin", "read_body"]
