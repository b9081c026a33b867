"""A tracker's client that notices soon that nobody answers, and what may be said of its address."""

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
    # One more try, at once: for a kept connection that the server has closed. Waiting is the courier's business.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    # Of each wait for the other side, not of a whole upload.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

_LOUDEST = {
    "mlflow": logging.WARNING,
    "alembic": logging.WARNING,
    # Their tracebacks and retries say what the courier says in one sentence.
    "mlflow.store.db.utils": logging.CRITICAL,
    "urllib3.connectionpool": logging.ERROR,
}
_DATABASE_ATTEMPTS = 3
"""Of connecting to a database, within a second; MLflow's ten take 100 s."""
_LONGEST_REASON = 200


def connect(uri: str) -> Any:
    """An `MlflowClient` of `uri`. A database is opened here, a server is not asked yet.

    The user and password of an http(s) address go where MLflow looks for them, MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, and not into the addresses that its errors repeat: a process can speak to one tracker
    with a password.
    """
    from mlflow import MlflowClient

    for name, level in _LOUDEST.items():
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


def unusable() -> tuple[type[Exception], ...]:
    """What is raised where a tracker, its database or its store of files can't be used."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # ImportError: the driver of a database or a bucket is not installed. ValueError: no URL.
    return (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError)


def cannot_be_used(uri: str, error: Exception, remedy: str) -> UserError:
    """The sentence for a tracker that did not answer a request that can't wait."""
    return UserError(f"the tracker at {shown(uri)} can't be used ({reason(error)}): {remedy}")


def absolute(uri: str) -> str:
    """`uri` with the path of a SQLite file made absolute: Ray's workers run in other folders."""
    path = uri.removeprefix("sqlite:///")
    if path == uri or path.startswith(("/", ":")) or not path:
        return uri
    return f"{sqlite_uri(Path.cwd())}/{path}"


def sqlite_uri(file: Path) -> str:
    """The address of a tracker in a SQLite file, in whose name ? and % are no marks of an address."""
    return f"sqlite:///{str(file).replace('%', '%25').replace('?', '%3F')}"


def shown(uri: str) -> str:
    """`uri` as it may be printed and kept: without user and password."""
    scheme, separator, rest = uri.partition("://")
    if not separator or rest.startswith("/"):
        return uri
    # By the last @: an unescaped one, or a slash, in a password must not show half of it.
    return f"{scheme}://{rest.rpartition('@')[2]}"


def reason(error: BaseException) -> str:
    """What went wrong in a few words: what the system or the database said, else the first line of the message."""
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
