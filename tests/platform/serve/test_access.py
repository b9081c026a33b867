"""Access to the endpoint: keys from the environment or a file, their rates, and pages of other sites."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffuir_core import UserError
from diffuir_platform.serve import ServeSettings, commands
from diffuir_platform.serve.gateway.access import Access, api_keys, check_origin
from diffuir_platform.serve.problems import Problem
from support.ports import free_port

ANN, BOB = "ann's key, of some length", "bob's key, of some length"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFUIR_API_KEYS", raising=False)
    monkeypatch.delenv("DIFFUIR_API_KEYS_FILE", raising=False)


def refusal(access: Access, authorization: str | None) -> Problem:
    with pytest.raises(Problem) as refused:
        access.check(authorization)
    return refused.value


def test_where_there_are_no_keys_everyone_may_ask() -> None:
    access = Access({}, None)
    assert access.check(None) == access.check("Bearer anything") == ""


def test_a_key_is_known_by_its_name() -> None:
    access = Access({"ann": ANN, "bob": BOB}, None)
    assert access.check(f"Bearer {ANN}") == "ann"
    assert access.check(f"bearer   {BOB} ") == "bob"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        ANN,
        f"Basic {ANN}",
        f"Bearer {ANN}x",
        f"Bearer {ANN[:-1]}",
        f"Bearer{ANN}",
    ],
)
def test_without_a_known_key_it_is_401(authorization: str | None) -> None:
    problem = refusal(Access({"ann": ANN}, None), authorization)
    assert (problem.status, problem.kind) == (401, "key")
    assert ANN not in problem.detail


@given(st.text(st.characters(codec="latin-1")))
def test_whatever_a_header_holds_is_a_key_or_a_401(text: str) -> None:
    problem = refusal(Access({"ann": ANN}, None), f"Bearer {text}")
    assert problem.status == 401


def test_more_than_its_rate_is_429_and_says_when_to_come_back() -> None:
    access = Access({"ann": ANN, "bob": BOB}, per_minute=2)
    for _ in range(2):
        access.check(f"Bearer {ANN}")
    problem = refusal(access, f"Bearer {ANN}")
    assert (problem.status, problem.kind) == (429, "rate")
    assert problem.retry_after is not None
    assert 1 <= problem.retry_after <= 60
    assert access.check(f"Bearer {BOB}") == "bob", "each has a rate of its own"


def test_requests_without_a_key_use_up_nobodys_rate() -> None:
    access = Access({"ann": ANN}, per_minute=1)
    for _ in range(5):
        assert refusal(access, "Bearer of nothing known").status == 401
    assert access.check(f"Bearer {ANN}") == "ann"


def test_without_keys_the_rate_is_everyones_together() -> None:
    access = Access({}, per_minute=1)
    access.check(None)
    assert refusal(access, None).status == 429


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUIR_API_KEYS", " ann:of-sixteen-chars, bob : with:a:colon:in:it ,\n,")
    keys = api_keys(required=True)
    assert keys == {"ann": "of-sixteen-chars", "bob": "with:a:colon:in:it"}
    assert Access(keys, None).check("Bearer with:a:colon:in:it") == "bob"


def test_keys_come_from_a_file_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("ann:of-sixteen-chars\n\n  cid:another-key-of-his\n")
    monkeypatch.setenv("DIFFUIR_API_KEYS_FILE", str(file))
    monkeypatch.setenv("DIFFUIR_API_KEYS", "bob:of-sixteen-chars")
    assert list(api_keys(required=True)) == ["bob", "ann", "cid"]


@pytest.mark.parametrize("key", ["schlüssel-von-bob", "key\tof-sixteen-chars", "ключ-из-шестнадцати"])
def test_a_key_that_no_client_can_send_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("DIFFUIR_API_KEYS", f"bob:{key}")
    with pytest.raises(UserError, match="key of bob holds characters that a client can't send") as error:
        api_keys(required=False)
    assert key not in str(error.value)


@pytest.mark.parametrize(
    "line", ["no-colon-and-no-name", ":of-sixteen-chars", "ann:short", "ann:", f"ann:{'short':>20}"]
)
def test_a_line_that_is_no_key_is_one_sentence_that_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("DIFFUIR_API_KEYS", f"bob:of-sixteen-chars,{line}")
    with pytest.raises(UserError, match="NAME:KEY with at least 16 characters") as error:
        api_keys(required=False)
    assert line not in str(error.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("DIFFUIR_API_KEYS_FILE", str(file))
    with pytest.raises(UserError, match=r"DIFFUIR_API_KEYS_FILE = .*keys can't be read"):
        api_keys(required=False)


def test_no_keys_are_an_error_only_where_they_are_required() -> None:
    assert api_keys(required=False) == {}
    with pytest.raises(UserError, match="require_key is set and there are no API keys"):
        api_keys(required=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "photos.example"},
        {"host": "photos.example", "origin": "https://photos.example"},
        {"host": "localhost:8000", "origin": "http://localhost:8000"},
    ],
)
def test_programs_and_its_own_page_may_use_it(headers: dict[str, str]) -> None:
    check_origin(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "photos.example", "origin": "https://evil.example"},
        {"host": "photos.example", "origin": "https://photos.example.evil.example"},
        {"host": "photos.example", "origin": "https://photos.example@evil.example"},
        {"host": "localhost:8000", "origin": "http://localhost:9000"},
        {"host": "photos.example", "origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"host": "", "origin": "null"},
    ],
)
def test_pages_of_other_sites_may_not(headers: dict[str, str]) -> None:
    with pytest.raises(Problem) as refused:
        check_origin(headers)
    assert (refused.value.status, refused.value.kind) == (403, "origin")


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "https://]", "http://a]b["])
def test_an_origin_that_is_no_url_is_another_site(origin: str) -> None:
    with pytest.raises(Problem) as refused:
        check_origin({"host": "photos.example", "origin": origin})
    assert refused.value.status == 403


def test_a_name_that_leads_to_this_machine_does_not_let_a_site_in() -> None:
    """DNS rebinding: the origin and the host are the same then, but not a name of this machine."""
    site = {"host": "evil.example:8000", "origin": "http://evil.example:8000"}
    check_origin(site)
    for headers in (site, {"host": "evil.example"}, {"host": "["}, {}):
        with pytest.raises(Problem) as caught:
            check_origin(headers, local=True)
        assert caught.value.status == 403
    for host in ("127.0.0.1:8000", "localhost", "[::1]:8000"):
        check_origin({"host": host}, local=True)


def test_what_is_wrong_with_the_keys_is_told_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(commands, "ray_session", never)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in commands.SERVE_ENVIRONMENT:
        monkeypatch.setenv(name, commands.SERVE_ENVIRONMENT[name])
    with (
        pytest.raises(UserError, match="require_key is set"),
        commands.serving(ServeSettings(port=free_port(), require_key=True)),
    ):
        pass
    monkeypatch.setenv("DIFFUIR_API_KEYS", "a:short")
    with pytest.raises(UserError, match="NAME:KEY"), commands.serving(ServeSettings(port=free_port())):
        pass


def test_two_keys_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUIR_API_KEYS", f"a:{'x' * 16},a:{'y' * 16}")
    with pytest.raises(UserError, match="two API keys with the name a"):
        api_keys(False)
