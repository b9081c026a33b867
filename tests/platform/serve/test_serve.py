"""`diffuir serve` with the shipped weights, over HTTP."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
import yaml
from PIL import Image

from diffuir_core import UserError
from diffuir_platform import storage
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.serve import ServeSettings
from diffuir_platform.serve.client import Client, ServerProblem
from diffuir_platform.serve.commands import deployable
from support.nodes import BUCKET, running
from support.ports import free_port
from support.serving import Endpoint, started

CLI = "diffuir_platform.cli"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that jobs may read and write, with photos of several kinds in `in/`."""
    folder = tmp_path_factory.mktemp("jobs")
    photos = folder / "in"
    photos.mkdir()
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    photo = small.resize((80, 64), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x010E] = "a photo"
    photo.save(photos / "a.jpg", quality=92, exif=exif)
    photo.convert("L").save(photos / "grey.png")
    photo.convert("RGBA").save(photos / "alpha.png")
    photo.rotate(90, expand=True).save(photos / "upright.webp", quality=90)
    deep = (np.asarray(photo.convert("L")).astype(np.uint16) * 257) + 3
    Image.fromarray(deep).save(photos / "deep.png")
    return folder


@pytest.fixture(scope="module")
def endpoint(folder: Path, weights: Path) -> Iterator[Endpoint]:
    """An endpoint with two models, of which a replica may hold one beside the first."""
    port = free_port()
    models = f"models={{shipped: null, blank: {weights}}}"
    settings = [f"jobs_under=[{folder}]", models, "models_memory=8000000", "device=cpu"]
    with started(["-m", CLI, "serve", *settings, "--port", str(port)], port) as endpoint:
        yield endpoint


@pytest.fixture
def client(endpoint: Endpoint) -> Client:
    return Client(endpoint.url)


@pytest.fixture
def jpeg(folder: Path) -> bytes:
    return (folder / "in" / "a.jpg").read_bytes()


def problem(answer: requests.Response, status: int, kind: str) -> dict[str, object]:
    """Check that the response is a problem, and return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:diffuir:{kind}"
    assert body["status"] == status
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["title"]
    assert body["detail"]
    return body


def test_guarantee_1_a_job_a_request_and_the_command_line_give_the_same_files(
    client: Client, folder: Path, tmp_path: Path
) -> None:
    job = client.wait(client.submit(str(folder / "in"), str(folder / "out"), seed=5))
    assert job["status"] == "done", job
    assert job["report"]["run"]["done"] == 5
    progress = job["progress"]
    assert (progress["done"], progress["failed"], progress["skipped"]) == (5, 0, 0)
    assert (progress["listed"], progress["listing_ended"], progress["error"]) == (5, True, None)
    assert progress["images_per_second"] > 0
    for photo in sorted((folder / "in").iterdir()):
        answer = client.restore(photo, seed=5)
        assert answer.data == (folder / "out" / photo.name).read_bytes(), photo.name
    restore(folder / "in" / "a.jpg", tmp_path / "a.jpg", RestoreOptions(seed=5, device="cpu"))
    assert (tmp_path / "a.jpg").read_bytes() == (folder / "out" / "a.jpg").read_bytes()


def test_an_answer_says_how_it_came_about(client: Client, jpeg: bytes) -> None:
    answer = client.restore(jpeg, steps=2, seed=3, format="png")
    assert answer.media_type == "image/png"
    assert Image.open(io.BytesIO(answer.data)).size == (80, 64)
    headers = answer.headers
    assert headers["Diffuir-Model"] == "shipped"
    assert headers["Diffuir-Steps"] == "2"
    assert headers["Diffuir-Seed"] == "3"
    assert headers["Diffuir-Tiles"] == "whole"
    assert len(headers["Diffuir-Weights"]) == 64
    for stage in ("upload", "decode", "queue", "restore", "hop", "encode", "whole"):
        assert f"{stage};dur=" in headers["Server-Timing"]


def test_each_model_restores_in_its_own_way(client: Client, jpeg: bytes) -> None:
    """The first model also restores after another has taken its place in memory."""
    first, second, again = (client.restore(jpeg, model=name) for name in ("shipped", "blank", "shipped"))
    assert [answer.headers["Diffuir-Model"] for answer in (first, second)] == ["shipped", "blank"]
    assert first.headers["Diffuir-Weights"] != second.headers["Diffuir-Weights"]
    assert first.data == again.data != second.data
    more = client.restore(jpeg, model="blank", steps=2)
    assert more.data != second.data
    assert client.restore(jpeg, model="blank").data == second.data


def test_a_form_gives_what_a_body_gives(endpoint: Endpoint, jpeg: bytes) -> None:
    form = requests.post(f"{endpoint.url}/v1/restore", files={"photo": ("a.jpg", jpeg)}, timeout=60)
    assert form.content == endpoint.restore(jpeg).content


def test_no_strength_is_the_photo_itself(client: Client, folder: Path) -> None:
    photo = folder / "in" / "grey.png"
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(client.restore(photo, strength=0).data))),
        np.asarray(Image.open(photo)),
    )


@pytest.mark.parametrize(
    ("parameters", "body", "status", "kind"),
    [
        ({}, b"hello", 415, "unknown-format"),
        ({}, b"", 422, "damaged"),
        ({}, None, 422, "damaged"),
        ({"stepss": 3}, b"x", 422, "parameter"),
        ({"steps": 0}, b"x", 422, "parameter"),
        ({"steps": 11}, b"x", 422, "parameter"),
        ({"seed": "one"}, b"x", 422, "parameter"),
        ({"model": "../../etc/passwd"}, b"x", 422, "model"),
        ({"format": "gif"}, b"x", 422, "parameter"),
    ],
)
def test_what_cannot_be_restored_is_a_problem_of_one_sentence(
    endpoint: Endpoint,
    jpeg: bytes,
    parameters: dict[str, object],
    body: bytes | None,
    status: int,
    kind: str,
) -> None:
    problem(endpoint.restore(jpeg[:300] if body is None else body, **parameters), status, kind)


def test_what_is_too_large_is_refused_while_it_comes(endpoint: Endpoint) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(2**20)

    declared = requests.post(f"{endpoint.url}/v1/restore", data=bytes(2**25 + 1), timeout=60)
    problem(declared, 413, "too-large")
    problem(requests.post(f"{endpoint.url}/v1/restore", data=chunks(), timeout=60), 413, "too-large")
    wide = io.BytesIO()
    Image.new("L", (20_000, 1)).save(wide, "PNG")
    problem(endpoint.restore(wide.getvalue()), 413, "too-large")


def test_what_is_not_there_is_a_problem_too(endpoint: Endpoint) -> None:
    problem(requests.get(f"{endpoint.url}/v2", timeout=30), 404, "http")
    problem(requests.get(f"{endpoint.url}/v1/restore", timeout=30), 405, "http")
    problem(requests.get(f"{endpoint.url}/v1/jobs/none", timeout=30), 404, "job")
    problem(requests.get(f"{endpoint.url}/examples/none.jpg", timeout=30), 404, "example")


def test_the_request_id_of_a_client_comes_back(endpoint: Endpoint) -> None:
    answer = requests.post(
        f"{endpoint.url}/v1/restore", data=b"x", headers={"X-Request-ID": "mine-1"}, timeout=30
    )
    assert problem(answer, 415, "unknown-format")["request_id"] == "mine-1"


def test_pages_of_other_sites_may_not_use_it(endpoint: Endpoint, jpeg: bytes) -> None:
    url = f"{endpoint.url}/v1/restore"
    foreign = requests.post(url, data=jpeg, headers={"Origin": "https://elsewhere.example"}, timeout=60)
    problem(foreign, 403, "origin")
    own = requests.post(url, data=jpeg, headers={"Origin": endpoint.url}, timeout=60)
    assert own.status_code == 200


def test_it_tells_its_models_and_whether_it_is_well(endpoint: Endpoint, client: Client) -> None:
    first, second = client.models()
    assert (first["name"], first["variant"], first["parameters"]) == ("shipped", "T", 886_435)
    assert (first["default"], second["name"], second["default"]) == (True, "blank", False)
    assert requests.get(f"{endpoint.url}/healthz", timeout=30).json()["status"] == "ok"
    assert requests.get(f"{endpoint.url}/readyz", timeout=30).json() == {"status": "ok", "models": 1.0}


def test_gateways_hold_no_torch(endpoint: Endpoint) -> None:
    running = psutil.process_iter(["cmdline"])  # without those that end meanwhile
    name = "ServeReplica:diffuir:Gateway"
    gateways = [process for process in running if name in " ".join(process.info["cmdline"] or ())]
    assert gateways
    for gateway in gateways:
        assert not [file.path for file in gateway.memory_maps() if "libtorch" in file.path]


def test_its_description_is_complete(endpoint: Endpoint) -> None:
    described = requests.get(f"{endpoint.url}/openapi.json", timeout=30).json()
    paths = described["paths"]
    assert set(paths) == {"/v1/restore", "/v1/jobs", "/v1/jobs/{job_id}", "/v1/models", "/healthz", "/readyz"}
    restore = paths["/v1/restore"]["post"]
    assert {"200", "400", "401", "408", "413", "415", "422", "429", "500", "503", "504"} <= set(
        restore["responses"]
    )
    assert {"image/jpeg", "multipart/form-data"} <= set(restore["requestBody"]["content"])
    assert described["components"]["securitySchemes"]
    for path, method in (
        ("/v1/models", "get"),
        ("/v1/jobs", "post"),
        ("/healthz", "get"),
        ("/readyz", "get"),
    ):
        answers = paths[path][method]["responses"]
        assert answers["202" if path == "/v1/jobs" else "200"]["content"]["application/json"]["schema"]
    named = {parameter["name"] for parameter in restore["parameters"]}
    assert {"model", "steps", "equalise", "seed", "format", "quality"} <= named
    assert all(parameter["description"] for parameter in restore["parameters"])


def test_the_client_says_what_the_server_says(client: Client) -> None:
    with pytest.raises(ServerProblem, match="not a JPEG") as caught:
        client.restore(b"hello")
    assert (caught.value.status, caught.value.kind) == (415, "unknown-format")
    with pytest.raises(UserError, match="no server answers"):
        Client(f"http://127.0.0.1:{free_port()}", retries=0).models()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("/etc", "{folder}/out2"),
        ("{folder}/in", "/tmp/elsewhere"),
        ("{folder}/../in", "{folder}/out2"),
        ("{folder}x", "{folder}/out2"),
        ("file:///etc/passwd", "{folder}/out2"),
        ("s3://bucket/in", "{folder}/out2"),
        ("{folder}/in/link/*.png", "{folder}/out2"),
        ("{folder}/in/[a]/x.png", "{folder}/out2"),
        ("{folder}/in", "{folder}/in/[a]/out"),
        (" {folder}/in", "{folder}/out2"),
        (["{folder}/in/a.jpg", "/etc/passwd"], "{folder}/out2"),
    ],
)
def test_a_job_reaches_nothing_outside_its_folders(
    client: Client, folder: Path, source: str | list[str], target: str
) -> None:
    links = folder / "in" / "link", folder / "in" / "[a]"
    for link in links:
        link.symlink_to("/etc")
    try:
        inside = [one.format(folder=folder) for one in ([source] if isinstance(source, str) else source)]
        with pytest.raises(ServerProblem) as caught:
            client.submit(inside if isinstance(source, list) else inside[0], target.format(folder=folder))
    finally:
        for link in links:
            link.unlink()
    assert caught.value.status == 403


def test_lists_of_a_job_come_in_its_request(client: Client, folder: Path) -> None:
    for listed in (f"{folder}/list.txt", f"{folder}/list.TXT/", f"file://{folder}/list.tx%74"):
        with pytest.raises(ServerProblem, match="as a JSON list") as caught:
            client.submit(listed, str(folder / "out3"))
        assert caught.value.status == 422
    photos = [str(folder / "in" / name) for name in ("a.jpg", "grey.png")]
    job = client.wait(client.submit(photos, str(folder / "out3"), steps=1))
    assert job["status"] == "done", job
    assert job["report"]["run"]["done"] == 2


def test_jobs_tell_their_progress_and_why_they_could_not_start(client: Client, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "bad.png").write_bytes(b"no photo")
    sources = ("in/a.jpg", "bad.png", "empty")
    one, bad, none = [client.submit(str(folder / name), str(folder / "out5" / name)) for name in sources]
    job = client.wait(one)
    assert (job["status"], job["progress"]["done"], job["progress"]["error"]) == ("done", 1, None)
    assert job["report"] is None
    job = client.wait(bad)
    assert (job["status"], job["progress"]["failed"]) == ("done-but-some-failed", 1)
    assert job["progress"]["error"].startswith("bad.png: ")
    job = client.wait(none)
    assert (job["status"], job["progress"]["listed"]) == ("failed", 0)
    assert "no photos in" in job["progress"]["error"]


def test_a_job_can_be_cancelled_and_goes_on_when_sent_again(client: Client, folder: Path) -> None:
    many = folder / "many"
    many.mkdir()
    for number in range(30):
        (many / f"{number}.jpg").write_bytes((folder / "in" / "a.jpg").read_bytes() + bytes([number]))
    job_id = client.submit(str(many), str(folder / "out4"))
    assert client.cancel(job_id)["id"] == job_id
    assert client.wait(job_id)["status"] in ("cancelled", "done")


def test_a_taken_port_is_one_sentence(endpoint: Endpoint) -> None:
    port = endpoint.url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", CLI, "serve", "--port", port], capture_output=True, text=True, timeout=120
    )
    assert second.returncode == 2
    assert "choose another --port" in second.stderr


def test_weights_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    command = [sys.executable, "-m", CLI, "serve", "--weights", str(missing), "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert str(missing) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_config_is_what_serve_deploy_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    settings = ServeSettings(port=8123, models={"prod": "models:/diffuir@prod"}, max_replicas=4)
    config = yaml.safe_load(deployable(settings))
    schema = ServeDeploySchema.model_validate(config)
    assert schema.http_options.port == 8123
    (application,) = config["applications"]
    assert ServeSettings(**application["args"]) == settings.model_copy(update={"port": 8000})


@pytest.mark.slow
def test_a_cluster_serves_what_the_config_says(tmp_path: Path, weights: Path, jpeg: bytes) -> None:
    """`serve deploy` to a cluster with its weights in a bucket, then a request: what an operator does."""
    with running(tmp_path, 1, {}) as nodes:
        model = f"{BUCKET}/mine.safetensors"
        storage.write_bytes(model, weights.read_bytes())
        settings = ServeSettings(port=free_port(), device="cpu", steps=1, models={"mine": model})
        config = tmp_path / "serve.yaml"
        # Both nodes are one machine here, which has the port once.
        config.write_text(deployable(settings).replace("EveryNode", "HeadOnly"))
        subprocess.run(
            [Path(sys.executable).with_name("serve"), "deploy", str(config)],
            env={
                **os.environ,
                **nodes.environment,
                "RAY_DASHBOARD_ADDRESS": nodes.environment["RAY_API_SERVER_ADDRESS"],
            },
            check=True,
            timeout=120,
        )
        client = Client(f"http://127.0.0.1:{settings.port}", retries=0)
        deadline = time.monotonic() + 240
        while True:
            try:
                restored = client.restore(jpeg)
                break
            except UserError:
                assert time.monotonic() < deadline
                time.sleep(1)
        assert restored.headers["Diffuir-Model"] == "mine"
        assert Image.open(io.BytesIO(restored.data)).size == (80, 64)


def test_the_settings_tell_what_is_wrong() -> None:
    from diffuir_platform.config import parse_config

    for wrong, match in (
        ({"models": {"a/b": None}}, "can't name a model"),
        ({"max_replicas": 1, "min_replicas": 2}, "less than min_replicas"),
        ({"steps": 20}, "more than most_steps"),
        ({"prot": 8000}, "port"),
        ({"target_wait": 2, "max_wait": 1}, "is more than max_wait"),
    ):
        with pytest.raises(UserError, match=match):
            parse_config(ServeSettings, wrong, "the options")


def test_a_job_is_described_as_the_command_line_describes_it() -> None:
    from diffuir_platform.restore.settings import RestoreJob
    from diffuir_platform.serve.schemas import JobRequest

    of_a_job = set(JobRequest.model_fields) - {"model"}
    assert of_a_job <= set(RestoreJob.model_fields), json.dumps(sorted(of_a_job))
