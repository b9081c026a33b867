"""The process between clients and models: who may come in, what waits, decoding and encoding, jobs."""

from .access import check_origin, keys_of_environment
from .gateway import Answer, Gateway
from .uploads import read_body

__all__ = ["Answer", "Gateway", "check_origin", "keys_of_environment", "read_body"]
