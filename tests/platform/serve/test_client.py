"""The client's errors are one sentence each, the server's or its own."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from diffuir_core import UserError
from diffuir_platform.serve.client import Client, ServerProblem
from support.ports import free_port

Ask = Callable[[Client], object]
ASKS: dict[str, Ask] = {
    "restore": lambda client: client.restore(b"photo"),
    "models": lambda client: client.models(),
    "submit": lambda client: client.submit("in", "out"),
    "job": lambda client: client.job("one"),
    "cancel": lambda client: client.cancel("one"),
    "wait": lambda client: client.wait("one"),
}
BODIES = {"list": b"[1]", "html": b"<html>hi", "nothing": b"", "number": b"7", "object": b"{}"}


class Answers(BaseHTTPRequestHandler):
    """A server of another kind: responds to /STATUS/NAME/... with that status and body, and echoes other names."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        _, status, name, *_ = self.path.split("/")
        if name == "slow":
            time.sleep(0.5)
        answer = BODIES.get(name, json.dumps({"status": "done", "id": self.path, "body": len(body)}).encode())
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(answer)))
        if name == "echo":
            self.send_header("Content-Type", "image/png")
            self.send_header("Diffuir-Model", "one")
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_DELETE = do_GET  # noqa: N815 - the names are http.server's

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("body", BODIES)
def test_a_server_of_another_kind_is_told(url: str, ask: Ask, status: int, body: str) -> None:
    with pytest.raises(ServerProblem, match="is no endpoint of DiffUIR: check its address") as problem:
        ask(Client(f"{url}/{status}/{body}", retries=0))
    assert (problem.value.status, problem.value.kind) == (status, "unknown")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_photo_is_bytes_of_any_kind_or_a_file(
    url: str, tmp_path: Path, kind: Callable[[bytes], bytes]
) -> None:
    client = Client(f"{url}/200/echo")
    file = tmp_path / "a.png"
    file.write_bytes(b"photo")
    for photo in (kind(b"photo"), file, str(file)):
        assert json.loads(client.restore(photo).data)["body"] == 5


def test_a_file_that_cannot_be_read_is_one_sentence(url: str, tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path, str(tmp_path / "a\0b")):
        with pytest.raises(UserError, match=r"can't be read \(.*\): give a photo's file") as caught:
            Client(url).restore(path)
        assert len(str(caught.value).splitlines()) == 1


def test_an_id_leads_nowhere_else(url: str) -> None:
    for ask in (Client.job, Client.cancel):
        assert ask(Client(f"{url}/200/echo"), "../models?a=b#c")["id"] == (
            "/200/echo/v1/jobs/..%2Fmodels%3Fa%3Db%23c"
        )


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "localhost", "ftp://host", "http://", "http://a:port", "http://[::1", ""]
)
def test_what_is_no_address_is_told_at_once(url: str) -> None:
    with pytest.raises(UserError, match="is not the URL of a server: give one like http://"):
        Client(url)


@pytest.mark.parametrize("key", ["abc\n", "a\rb", "schl\u00fcssel", "\u043a\u043b\u044e\u0447"])
def test_a_key_that_no_header_holds_is_told_at_once(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="the API key holds characters that a header can't"):
        Client(key=key)
    monkeypatch.setenv("DIFFUIR_API_KEY", key)
    with pytest.raises(UserError, match="the API key holds characters that a header can't"):
        Client()


def test_where_nobody_answers_the_address_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=re.escape(f"no server answers at {url} (ConnectionError)")):
        Client(url, retries=0).models()


def test_a_server_that_takes_too_long_is_not_said_to_be_elsewhere(url: str) -> None:
    with pytest.raises(UserError, match=r"did not answer within 0\.1 s: give the client a longer timeout"):
        Client(f"{url}/200/slow", retries=0, timeout=0.1).models()
