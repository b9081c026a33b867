"""A client of MLflow that fails soon where nobody answers, and addresses and errors without passwords."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from diffuir_core import UserError

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # One retry, at once: for a kept connection that the server has closed. The uploader does the backoff.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    # Seconds for each answer of the server, not for a whole upload.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

_LOG_LEVELS = {
    "mlflow": logging.WARNING,
    "alembic": logging.WARNING,
    # They log tracebacks and retries; the uploader logs one sentence.
    "mlflow.store.db.utils": logging.CRITICAL,
    "urllib3.connectionpool": logging.ERROR,
}
_DATABASE_ATTEMPTS = 3
"""Attempts to connect to a database, within a second; MLflow's own ten take 100 s."""
_LONGEST_REASON = 200
"""Most characters of an error's reason."""


def connect(uri: str) -> Any:
    """Return an `MlflowClient` of `uri`; a database is opened at once, a server is not asked yet.

    The user and password of an http(s) address go into MLflow's variables, MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, because its errors repeat the address. So a process can use one tracker with a
    password.
    """
    from mlflow import MlflowClient

    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    if not uri.startswith(("http://", "https://")):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = _DATABASE_ATTEMPTS
        return MlflowClient(uri)
    parts = urlsplit(uri)
    if parts.username:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return MlflowClient(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


def connection_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that mean that a tracker, its database or its artifact store can't be used."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # ImportError: the driver of a database or a bucket is not installed. ValueError: not a URL.
    return (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError)


def unusable_tracker(uri: str, error: Exception, remedy: str) -> UserError:
    """Return the error for a tracker that failed a request which can't wait."""
    if _wants_a_password(error):
        remedy = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of an account that it knows"
        )
    return UserError(f"the tracker at {without_password(uri)} can't be used ({reason(error)}): {remedy}")


def _wants_a_password(error: Exception) -> bool:
    """Whether a server refused a request for want of a user and password, or of the right ones (HTTP 401, 403)."""
    code = getattr(error, "error_code", "")
    return (
        code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or re.search(r"\b40[13]\b", str(error)) is not None
    )


def absolute(uri: str) -> str:
    """Return `uri` with the path of a SQLite file made absolute: Ray's workers run in other folders."""
    path = uri.removeprefix("sqlite:///")
    if path == uri or path.startswith(("/", ":")) or not path:
        return uri
    return f"{sqlite_uri(Path.cwd())}/{path}"


def sqlite_uri(file: Path) -> str:
    """Return the address of a tracker in a SQLite file, with ? and % of its path escaped."""
    return f"sqlite:///{str(file).replace('%', '%25').replace('?', '%3F')}"


def without_password(uri: str) -> str:
    """Return `uri` without user and password, fit to be printed and kept."""
    scheme, separator, rest = uri.partition("://")
    if not separator or rest.startswith("/"):
        return uri
    # Up to the last @: a password with an unescaped @ or slash must go as a whole.
    return f"{scheme}://{rest.rpartition('@')[2]}"


def reason(error: BaseException) -> str:
    """Return the reason in a few words: of the system or the database, else the first line of the message."""
    from sqlalchemy.exc import DBAPIError

    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TimeoutError):
            return "no answer in time"
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        if isinstance(inner, DBAPIError):
            return _first_line(inner.orig or inner)
        inner = inner.__cause__ or inner.__context__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    line = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
    return re.sub(r"://[^/\s]*@", "://", line)[:_LONGEST_REASON]
