"""The manifests of `cluster/kuberay`, as they lie there and as kustomize renders them.

Checked by KubeRay's schemas, by the code that their commands and configs start, and by what they refer to.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import ray
import yaml
from pydantic import ValidationError
from ray.scripts.scripts import start

from diffuir_core import UserError
from diffuir_platform.command_table import app
from diffuir_platform.config import parse_config
from diffuir_platform.evaluate.job import evaluation_job
from diffuir_platform.evaluate.settings import EvaluateSettings
from diffuir_platform.restore.job import restore_job
from diffuir_platform.restore.settings import RestoreJob
from diffuir_platform.runtime.session import WORKER_ENVIRONMENT
from diffuir_platform.serve import ServeSettings
from diffuir_platform.serve.commands import SERVE_ENVIRONMENT, deployable
from diffuir_platform.sweep import SweepConfig
from diffuir_platform.sweep.job import sweep_job
from diffuir_platform.train import TrainConfig
from diffuir_platform.train.job import training_job
from support.kuberay import (
    KUBERAY,
    OVERLAYS,
    Manifest,
    base,
    clusters,
    gated_fields,
    kustomize,
    network_faults,
    pods,
    quantity,
    reference_faults,
    render,
    rendered,
    schema_faults,
    size_faults,
    title,
)
from support.paths import ROOT

PAGE = (KUBERAY / "README.md").read_text(encoding="utf-8")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
HEAD = "http://head:8265"
SUBMISSIONS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "train": (TrainConfig, lambda config: training_job(config, False, HEAD)),
    "sweep": (SweepConfig, lambda config: sweep_job(config, HEAD)),
    "evaluate": (EvaluateSettings, lambda settings: evaluation_job(settings, HEAD)),
    "restore": (RestoreJob, lambda job: restore_job(job, HEAD)),
}
"""Command -> its settings, and what makes a job of them, which refuses paths that a cluster has not."""

needs_kustomize = pytest.mark.skipif(kustomize() is None, reason="neither kubectl nor kustomize is installed")
variants = pytest.mark.parametrize(
    "variant", ["base", *(pytest.param(name, marks=needs_kustomize) for name in OVERLAYS)]
)


def manifests(variant: str) -> list[Manifest]:
    return base() if variant == "base" else rendered(variant)


def named(found: list[Manifest], kind: str) -> list[Manifest]:
    return [one for one in found if one["kind"] == kind]


def settings_of(entrypoint: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """The settings of a job's command, as the command itself takes them."""
    program, command, *words = shlex.split(entrypoint)
    assert program == "diffuir"
    assert not app([command, *words, "--print-config"], standalone_mode=False)
    model, submission = SUBMISSIONS[command]
    settings = parse_config(model, yaml.safe_load(capsys.readouterr().out), command)
    submission(settings)
    return settings


def check_serving(service: Manifest) -> ServeSettings:
    """The endpoint's config is what `--print-config` prints, and the cluster has room for it at its largest."""
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    settings = parse_config(ServeSettings, config["applications"][0]["args"], "args")
    assert config == yaml.safe_load(deployable(settings))
    assert min(settings.gateways, settings.min_replicas) >= 2, "a redeploy would stop the only process first"
    assert settings.require_key
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    each = int(quantity(limits["cpu"]) // (settings.model_cpus or 1))
    for replicas, nodes in ((settings.min_replicas, "replicas"), (settings.max_replicas, "maxReplicas")):
        assert replicas <= each * group[nodes], f"{replicas} replicas do not fit"
    assert (settings.device == "cuda") == ("nvidia.com/gpu" in limits)
    return settings


@variants
def test_no_check_finds_a_fault(variant: str) -> None:
    found = manifests(variant)
    assert schema_faults(found) == []
    assert size_faults(found) == []
    # The endpoint's pods get their label from an overlay.
    assert [one for one in network_faults(found) if variant != "base" or "diffuir-endpoint" not in one] == []
    assert reference_faults(found, PAGE) == []
    kinds = [one["kind"] for one in found]
    assert [kinds.count(kind) for kind in ("RayCluster", "RayJob", "RayService", "Ingress")] == [1, 4, 1, 1]


@variants
def test_only_the_gated_overlay_has_gated_fields(variant: str) -> None:
    found = gated_fields(manifests(variant))
    assert bool(found) == (variant == "gated")
    if variant == "gated":
        values = yaml.safe_load((KUBERAY / "overlays/gated/operator-values.yaml").read_text())
        on = {gate["name"] for gate in values["featureGates"] if gate["enabled"]}
        gates = {"tlsOptions": "RayClusterMTLS", "networkPolicy": "RayClusterNetworkPolicy"}
        assert {gates[field.split()[-1]] for field in found} <= on


@variants
def test_every_cluster_is_one_of_this_version(variant: str) -> None:
    for name, spec in clusters(manifests(variant)):
        assert spec["rayVersion"] == ray.__version__
        assert spec["authOptions"] == {"mode": "token", "secretName": "diffuir-token"}
        assert spec["enableInTreeAutoscaling"]
        assert spec["autoscalerOptions"]["version"] == "v2"
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
        assert {6379, 8265, 10001, 8000} <= {port["containerPort"] for port in head["ports"]}
        # The operator replaces a head that ends; a job's head takes its driver with it, and knows nothing to keep.
        assert ("gcsFaultToleranceOptions" in spec) == (variant != "base" and not name.startswith("RayJob"))
        for _, group in pods(spec):
            options = [word for key, value in group["rayStartParams"].items() for word in (f"--{key}", value)]
            start.make_context("start", options)
            for container in group["template"]["spec"]["containers"]:
                assert container["image"].partition(":")[0] == "diffuir"
                if variant != "base":
                    cuda = "-cuda" if variant in ("gpu", "spot") else ""
                    assert container["image"] == f"diffuir:{VERSION}{cuda}"


@variants
def test_commands_are_understood_and_fit_their_cluster(
    variant: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = manifests(variant)
    (environment,) = named(found, "ConfigMap")
    for name, value in environment["data"].items():
        monkeypatch.setenv(name, value)
    for job in named(found, "RayJob"):
        spec = job["spec"]
        # KubeRay refuses a suspended job that keeps its cluster.
        assert spec["suspend"]
        assert spec["shutdownAfterJobFinishes"]
        settings = settings_of(spec["entrypoint"], capsys)
        assert job["metadata"]["labels"]["app.kubernetes.io/component"] == spec["entrypoint"].split()[1]
        if isinstance(settings, TrainConfig | SweepConfig):
            from diffuir_platform.train.run import required_cpus

            train = settings.train if isinstance(settings, SweepConfig) else settings
            (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            assert required_cpus(train) <= group["replicas"] * quantity(limits["cpu"])


@variants
def test_the_endpoint_has_what_print_config_prints(variant: str) -> None:
    found = manifests(variant)
    (service,), (ingress,) = named(found, "RayService"), named(found, "Ingress")
    settings = check_serving(service)
    limits = {key.rpartition("/")[2]: value for key, value in ingress["metadata"]["annotations"].items()}
    assert int(limits["proxy-body-size"].removesuffix("m")) * 2**20 > settings.max_bytes
    assert int(limits["proxy-read-timeout"]) > settings.timeout + settings.upload_timeout
    delay = service["spec"]["rayClusterDeletionDelaySeconds"]
    assert delay > settings.timeout + settings.upload_timeout
    assert service["spec"]["upgradeStrategy"] == {"type": "NewCluster"}


@variants
def test_every_node_has_the_environment_of_ours(variant: str) -> None:
    found = manifests(variant)
    (environment,) = named(found, "ConfigMap")
    assert {**SERVE_ENVIRONMENT, **WORKER_ENVIRONMENT}.items() <= environment["data"].items()
    for name, spec in clusters(found):
        for _, group in pods(spec):
            sources = [
                source["name"]
                for each in group["template"]["spec"]["containers"][0]["envFrom"]
                for source in each.values()
            ]
            keys = ["diffuir-api-keys"] if name.startswith("RayService") and variant != "base" else []
            assert sources == ["diffuir-environment", "diffuir-credentials", *keys]


@needs_kustomize
@pytest.mark.parametrize("overlay", ["gpu", "spot"])
def test_workers_of_jobs_alone_are_on_spot_nodes_and_all_have_a_gpu(overlay: str) -> None:
    for name, spec in clusters(rendered(overlay)):
        head, worker = (group["template"]["spec"] for _, group in pods(spec))
        assert "nodeSelector" not in head
        assert worker["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == "1"
        assert worker["nodeSelector"]["nvidia.com/gpu.present"] == "true"
        tolerated = {toleration["key"] for toleration in worker["tolerations"]}
        spot = overlay == "spot" and name.startswith("RayJob")
        assert tolerated == {"nvidia.com/gpu", *(["spot"] if spot else [])}
        assert worker["nodeSelector"].get("karpenter.sh/capacity-type") == ("spot" if spot else None)


@needs_kustomize
def test_the_evaluation_mounts_the_folder_that_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = [one for one in rendered("cpu") if title(one) == "RayJob diffuir-evaluate"]
    settings = settings_of(job["spec"]["entrypoint"], capsys)
    for _, group in pods(job["spec"]["rayClusterSpec"]):
        mounts = [mount["mountPath"] for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]]
        for path in (settings.pairs, settings.out):
            assert os.path.commonpath([path, "/shared"]) in mounts


@needs_kustomize
def test_the_overlay_on_the_page_is_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = re.findall("```yaml\n(.*?)```", PAGE, re.DOTALL)
    here = os.path.relpath(KUBERAY, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(text.replace("../diffuir/cluster/kuberay", here))
    found = render(tmp_path)
    assert schema_faults(found) + size_faults(found) + network_faults(found) == []
    assert {one["metadata"]["namespace"] for one in found} == {"restoration"}
    groups = [group for _, spec in clusters(found) for _, group in pods(spec)]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert images == {f"registry.example.com/diffuir:{VERSION}-cuda"}
    (job,) = [one for one in found if title(one) == "RayJob diffuir-restore"]
    assert settings_of(job["spec"]["entrypoint"], capsys).source == "s3://bucket/photos"


@needs_kustomize
def test_a_patch_that_replaces_a_whole_list_is_found(tmp_path: Path) -> None:
    """Kustomize knows no keys of KubeRay's lists, and takes the rest of a group away."""
    patch = (
        "{kind: RayCluster, apiVersion: ray.io/v1, metadata: {name: diffuir}, spec: {workerGroupSpecs: [%s]}}"
    )
    group = "{groupName: workers, maxReplicas: 9, template: {spec: {containers: [{name: ray-worker}]}}}"
    (tmp_path / "patch.yaml").write_text(patch % group)
    here = os.path.relpath(KUBERAY / "base", tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(f"resources: [{here}]\npatches: [{{path: patch.yaml}}]")
    (cluster,) = named(render(tmp_path), "RayCluster")
    cluster["spec"]["workerGroupSpecs"][0] |= {"minReplicas": 0, "replicas": 0, "rayStartParams": {}}
    assert any("ray-worker has no image" in fault for fault in size_faults([cluster]))


def test_the_page_names_every_part_and_overlay() -> None:
    parts = {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in base()}
    assert [part for part in parts if f"`{part}`" not in PAGE] == []
    assert {file.name for file in (KUBERAY / "overlays").iterdir()} == set(OVERLAYS)
    assert [name for name in OVERLAYS if f"`overlays/{name}`" not in PAGE] == []


CLUSTER, TRAIN, SERVICE = "RayCluster diffuir", "RayJob diffuir-train", "RayService diffuir-endpoint"
ENDPOINT, POLICY = "Ingress diffuir", "NetworkPolicy diffuir-nodes"
WORKERS = "spec.workerGroupSpecs.0"
HEAD_POD = "spec.headGroupSpec.template.spec"
NODE = "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0"
MISSING = object()


def planted(where: str, path: str, value: Any) -> list[Manifest]:
    """The base with one value put in at a path of one manifest, or taken out of it."""
    found = base()
    (place,) = [one for one in found if title(one) == where]
    *keys, last = [int(key) if key.isdigit() else key.replace("|", ".") for key in path.split(".")]
    for key in keys:
        place = place[key]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return found


def faults(found: list[Manifest]) -> list[str]:
    """What every check finds; the later ones expect manifests that have their schema."""
    return schema_faults(found) or [
        *size_faults(found),
        *gated_fields(found),
        *reference_faults(found, PAGE),
        *network_faults(found),
    ]


@pytest.mark.parametrize(
    ("where", "path", "value", "fault"),
    [
        (CLUSTER, "spec.rayVersions", "2.60.0", "'rayVersions' was unexpected"),
        (CLUSTER, f"{WORKERS}.template.spec.nodeSelectors", {}, "'nodeSelectors' was unexpected"),
        (CLUSTER, f"{WORKERS}.maxReplicas", "4", "'4' is not of type 'integer'"),
        (TRAIN, f"{NODE}.envFroms", [], "'envFroms' was unexpected"),
        (TRAIN, "spec.entryPoint", "true", "'entryPoint' was unexpected"),
        (SERVICE, "spec.serveConfig", "", "'serveConfig' was unexpected"),
        (SERVICE, "spec.rayClusterConfig.authOptions.mode", "tokens", "'tokens' is not one of"),
        (POLICY, "spec.ingress.0.form", [{}], "spec.ingress.form is unknown"),
        ("PodDisruptionBudget diffuir-cluster-head", "spec.minAvailable", "50%", "'50%' is no number"),
        (ENDPOINT, "spec.tls", [], "has no TLS for diffuir.example.com"),
        (CLUSTER, "kind", "RayCronJob", "is of a kind"),
        (CLUSTER, f"{WORKERS}.minReplicas", 3, "3 <= 2 <= 4 replicas"),
        (CLUSTER, f"{WORKERS}.maxReplicas", 1, "1 <= 2 <= 1 replicas"),
        (TRAIN, f"{NODE}.image", MISSING, "ray-worker has no image"),
        (TRAIN, f"{NODE}.resources.limits.memory", MISSING, "ray-worker has no limit of memory"),
        (TRAIN, f"{NODE}.resources.requests.cpu", "4500m", "requests more cpu"),
        (TRAIN, f"{NODE}.resources.limits.nvidia|com/gpu", "1", "a device's limit"),
        (CLUSTER, "spec.autoscalerOptions.resources", {}, "autoscaler has no request of cpu"),
        (CLUSTER, f"{HEAD_POD}.securityContext.runAsNonRoot", False, "a head may run as root"),
        (CLUSTER, f"{HEAD_POD}.volumes", [], "mounts spill, which is no volume"),
        (CLUSTER, f"{WORKERS}.rayStartParams.object-spilling-directory", "/tmp", "spills into no volume"),
        (CLUSTER, "spec.tlsOptions", {"enabled": True}, "has tlsOptions"),
        (SERVICE, "spec.rayClusterConfig.networkPolicy", {"mode": "DenyAll"}, "has networkPolicy"),
        (CLUSTER, "spec.gcsFaultToleranceOptions", {"backend": "rocksdb"}, "FaultToleranceOptions.backend"),
        (CLUSTER, "spec.authOptions.secretName", "other", "how to make other"),
        (TRAIN, f"{NODE}.envFrom.0.configMapRef.name", "settings", "how to make settings"),
        (ENDPOINT, "spec.tls.0.secretName", "certificate", "how to make certificate"),
        (POLICY, "spec.podSelector.matchLabels.app", "x", "diffuir-nodes selects no pod"),
        (POLICY, "spec.ingress.1.ports.0.port", 8266, "opens 8266"),
        (ENDPOINT, "spec.rules.0.host", "other.example.com", "has no TLS for other"),
        (ENDPOINT, "spec.rules.0.http.paths.0.backend.service.name", "diffuir", "leads to"),
        (SERVICE, "metadata.name", "diffuir", "two have the name diffuir"),
        (TRAIN, "metadata.name", "a" * 48, "is too long"),
    ],
)
def test_a_planted_fault_is_found(where: str, path: str, value: Any, fault: str) -> None:
    assert not any(fault in one for one in faults(base()))
    found = faults(planted(where, path, value))
    assert any(fault in one for one in found), found


@pytest.mark.parametrize(
    "entrypoint",
    [
        "diffuir train storage=s3://diffuir/runs data.indx=[s3://diffuir/pairs.parquet]",
        "diffuir train storage=runs data.index=[s3://diffuir/pairs.parquet]",
        "diffuir sweep name=delta grid.delta_ends=[1.0e-4] train.storage=s3://diffuir/runs",
        "diffuir evaluate pairs --out /shared/evaluation",
        "diffuir restore s3://diffuir/photos s3://diffuir/restored --step 3",
        "diffuir restored s3://diffuir/photos s3://diffuir/restored",
    ],
)
def test_a_command_that_would_not_start_is_found(entrypoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((UserError, click.ClickException, ValidationError)):
        settings_of(entrypoint, capsys)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("require_key: true", "require_keys: true"),
        ("require_key: true", "require_key: false"),
        ("port: 8000", "port: 8001"),
        ("serve.app:build", "serve.app:make"),
        ("proxy_location", "proxy_locations"),
        ("gateways: 2", "gateways: 1"),
        ("max_replicas: 4", "max_replicas: 5"),
        ("model_cpus: 4", "model_cpus: 8"),
        ("require_key: true", "require_key: true, device: cuda"),
    ],
)
def test_a_config_that_serve_would_not_take_is_found(old: str, new: str) -> None:
    (service,) = named(base(), "RayService")
    config = service["spec"]["serveConfigV2"]
    assert old in config
    service["spec"]["serveConfigV2"] = config.replace(old, new)
    with pytest.raises((AssertionError, UserError)):
        check_serving(service)
