"""The manifests of `cluster/kuberay`: read or rendered, and what is wrong with them.

Each check returns sentences, one for each fault; an empty list is a pass.
"""

from __future__ import annotations

import copy
import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from support.paths import ROOT

KUBERAY = ROOT / "cluster" / "kuberay"
OVERLAYS = ("cpu", "gpu", "spot", "gated")
GATED = ("tlsOptions", "networkPolicy", "historyServerOptions", "gcsFaultToleranceOptions.backend")
"""Fields of a cluster's spec that KubeRay 1.7 refuses unless its operator has their feature gate."""
CLUSTER_OF = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
}
"""Kind -> where its cluster's spec is."""
LONGEST_NAME = 47
"""Longest name of a RayJob or RayService: MaxRayJobNameLength of KubeRay's controllers."""

Manifest = dict[str, Any]

PLAIN = {
    "ConfigMap": ("data",),
    "NetworkPolicy": (
        "spec.podSelector.matchLabels",
        "spec.policyTypes",
        "spec.ingress.from.podSelector.matchLabels",
        "spec.ingress.from.namespaceSelector.matchLabels",
        "spec.ingress.ports.port",
    ),
    # For pods of an operator Kubernetes takes a number here, no maxUnavailable and no percentage.
    "PodDisruptionBudget": ("spec.minAvailable", "spec.selector.matchLabels"),
    "Ingress": (
        "spec.ingressClassName",
        *("spec.tls.hosts", "spec.tls.secretName", "spec.rules.host"),
        *("spec.rules.http.paths.path", "spec.rules.http.paths.pathType"),
        *("spec.rules.http.paths.backend.service.name", "spec.rules.http.paths.backend.service.port.number"),
    ),
}
"""Kind of Kubernetes' own -> the keys that are used of it."""
METADATA = (
    "apiVersion",
    "kind",
    "metadata.name",
    "metadata.namespace",
    "metadata.labels",
    "metadata.annotations",
)
NUMBERS = ("minAvailable", "port", "number")
"""Keys of numbers in them."""


@lru_cache
def schemas() -> Manifest:
    """Kind -> KubeRay's schema, which refuses unknown keys."""
    made: Manifest = json.loads(
        gzip.decompress((ROOT / "tests/cluster/kuberay/schemas.json.gz").read_bytes())
    )
    for kind, schema in made.items():
        schema["properties"] |= {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}}
        schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    _close(made)
    return made


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for part in schema:
            _close(part)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close(part)


def base() -> list[Manifest]:
    """The manifests of the base as `parts/complete/copy` completes them, read without kustomize."""
    kustomization = yaml.safe_load((KUBERAY / "base/kustomization.yaml").read_text())
    texts = [(KUBERAY / "base" / name).read_text() for name in kustomization["resources"]]
    found = [one for text in texts for one in yaml.safe_load_all(text)]
    (cluster,) = (one["spec"] for one in found if one["kind"] == "RayCluster")
    for one in found:
        if one["kind"] in ("RayJob", "RayService"):
            one["spec"][CLUSTER_OF[one["kind"]][1]] = copy.deepcopy(cluster)
    return json.loads(json.dumps(found))  # so that no two share a part


def kustomize() -> list[str] | None:
    """The command that renders a folder, where this machine has one."""
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return ["kustomize", "build"] if shutil.which("kustomize") else None


def render(folder: Path) -> list[Manifest]:
    """The manifests that `kubectl apply -k` sends of a folder."""
    command = kustomize()
    assert command is not None
    done = subprocess.run([*command, folder], check=True, capture_output=True, text=True, timeout=60)
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


@lru_cache
def rendered(overlay: str) -> list[Manifest]:
    """The manifests of an overlay, which callers leave as they are."""
    return render(KUBERAY / "overlays" / overlay)


def title(one: Manifest) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def clusters(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(kind and name, cluster's spec) of each."""
    for one in manifests:
        if one["kind"] in CLUSTER_OF:
            spec = one
            for key in CLUSTER_OF[one["kind"]]:
                spec = spec[key]
            yield title(one), spec


def pods(spec: Manifest) -> list[tuple[str, Manifest]]:
    """(node type, group) of each group of a cluster, the head first."""
    return [("head", spec["headGroupSpec"]), *(("worker", group) for group in spec["workerGroupSpecs"])]


def schema_faults(manifests: list[Manifest]) -> list[str]:
    """Keys and values that Kubernetes would refuse or leave out."""
    found = []
    for one in manifests:
        if one["kind"] in CLUSTER_OF:
            filled = copy.deepcopy(one)
            _fill(filled, schemas()[one["kind"]])
            validator = Draft202012Validator({**schemas(), "$ref": f"#/{one['kind']}"})
            found += [f"{title(one)}, {e.json_path}: {e.message}" for e in validator.iter_errors(filled)]
        elif one["kind"] in PLAIN:
            known = (*PLAIN[one["kind"]], *METADATA)
            found += [f"{title(one)}, {fault}" for fault in _plain_faults(one, known)]
        else:
            found.append(f"{title(one)} is of a kind that nothing here uses")
    return found


def _plain_faults(value: Any, known: tuple[str, ...], path: str = "") -> Iterator[str]:
    if path and not any(f"{key}.".startswith(f"{path}.") for key in known):
        yield f"{path} is unknown"
    elif path.rpartition(".")[2] in NUMBERS and path in known and not isinstance(value, int):
        yield f"{path}: {value!r} is no number"
    elif isinstance(value, list):
        for item in value:
            yield from _plain_faults(item, known, path)
    elif isinstance(value, dict) and path not in known:
        for key, part in value.items():
            yield from _plain_faults(part, known, f"{path}.{key}".lstrip("."))


def _fill(value: Any, schema: Manifest) -> None:
    """Put the defaults of the schema in, as the API server does before it checks."""
    if "$ref" in schema:
        schema = schemas()["RayCluster"]["properties"]["spec"]
    if isinstance(value, dict):
        for key, part in schema.get("properties", {}).items():
            if "default" in part:
                value.setdefault(key, copy.deepcopy(part["default"]))
            if key in value:
                _fill(value[key], part)
    elif isinstance(value, list):
        for item in value:
            _fill(item, schema.get("items", {}))


def size_faults(manifests: list[Manifest]) -> list[str]:
    """Replicas out of order, containers without image, requests or limits, and pods that may run as root."""
    found = []
    for name, spec in clusters(manifests):
        for group in spec["workerGroupSpecs"]:
            low, wanted, high = (group[key] for key in ("minReplicas", "replicas", "maxReplicas"))
            if not low <= wanted <= high:
                found.append(f"{name}: {low} <= {wanted} <= {high} replicas is not so")
        found += _resource_faults(f"{name}, autoscaler", spec["autoscalerOptions"])
        for kind, group in pods(spec):
            pod = group["template"]["spec"]
            context = pod.get("securityContext", {})
            if not context.get("runAsNonRoot") or not context.get("runAsUser"):
                found.append(f"{name}: a {kind} may run as root")
            volumes = {volume["name"] for volume in pod.get("volumes", ())}
            for container in (*pod["containers"], *pod.get("initContainers", ())):
                where = f"{name}, {container['name']}"
                if not container.get("image"):
                    found.append(f"{where} has no image")
                found += _resource_faults(where, container)
                mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", ())}
                found += [f"{where} mounts {mount}, which is no volume" for mount in mounts.keys() - volumes]
                if group["rayStartParams"].get("object-spilling-directory") not in mounts.values():
                    found.append(f"{where} spills into no volume")
    return found


def _resource_faults(where: str, container: Manifest) -> list[str]:
    requests, limits = (container.get("resources", {}).get(key, {}) for key in ("requests", "limits"))
    found = [
        f"{where} has no {key} of {name}"
        for name in ("cpu", "memory")
        for key, of in (("request", requests), ("limit", limits))
        if name not in of
    ]
    found += [
        f"{where} requests more {name} than its limit"
        for name in requests.keys() & limits.keys()
        if quantity(requests[name]) > quantity(limits[name])
    ]
    if any(requests.get(name) != count for name, count in limits.items() if "/" in name):
        found.append(f"{where} has a device's limit that is not its request")
    return found


def quantity(text: str) -> float:
    """The number that a quantity of Kubernetes is: "200m" is 0.2, "1Gi" is 2**30."""
    number, unit = re.fullmatch(r"([\d.]+)(m|[KMGT]i|)", text).groups()  # type: ignore[union-attr]
    scale = {"": 1.0, "m": 1e-3} | {f"{letter}i": 1024.0**n for n, letter in enumerate("KMGT", start=1)}
    return float(number) * scale[unit]


def gated_fields(manifests: list[Manifest]) -> list[str]:
    """Fields that need a feature gate of the operator."""
    found = []
    for name, spec in clusters(manifests):
        for field in GATED:
            value: Any = spec
            for key in field.split("."):
                value = (value or {}).get(key)
            if value not in (None, "redis"):
                found.append(f"{name} has {field}")
    return found


def references(manifests: list[Manifest]) -> set[str]:
    """Names of the secrets, config maps and volume claims that manifests refer to."""
    text = json.dumps(manifests, sort_keys=True)
    named = r'"(?:secret|configMap)(?:Key)?Ref": \{(?:"key": "[^"]*", )?"name": "([^"]+)"'
    return {*re.findall(named, text), *re.findall(r'"(?:secretName|claimName)": "([^"]+)"', text)}


def reference_faults(manifests: list[Manifest], page: str) -> list[str]:
    """References to what is neither among the manifests nor among what the page says to make."""
    made = {one["metadata"]["name"] for one in manifests if one["kind"] == "ConfigMap"}
    missing = sorted(name for name in references(manifests) - made if f"`{name}`" not in page)
    return [f"the page does not say how to make {name}" for name in missing]


def network_faults(manifests: list[Manifest]) -> list[str]:
    """Policies, budgets and ingresses that lead to no pod, no port or no service, and names that collide."""
    found = []
    nodes = []
    for name, spec in clusters(manifests):
        for kind, group in pods(spec):
            labels = dict(group["template"]["metadata"]["labels"])
            labels |= {"ray.io/node-type": kind, "ray.io/cluster": name.split()[1]}
            ports = {
                port["containerPort"] for c in group["template"]["spec"]["containers"] for port in c["ports"]
            }
            nodes.append((labels, ports))
    for one in manifests:
        if one["kind"] not in ("NetworkPolicy", "PodDisruptionBudget"):
            continue
        selector = one["spec"].get("podSelector") or one["spec"]["selector"]
        chosen = [ports for labels, ports in nodes if selector["matchLabels"].items() <= labels.items()]
        if not chosen:
            found.append(f"{title(one)} selects no pod")
        open_ports = {
            port["port"] for rule in one["spec"].get("ingress", ()) for port in rule.get("ports", ())
        }
        unknown = open_ports - set().union(*chosen)
        found += [f"{title(one)} opens {port}, which none of its pods has" for port in sorted(unknown)]
    services = {f"{one['metadata']['name']}-serve-svc" for one in manifests if one["kind"] == "RayService"}
    for one in manifests:
        if one["kind"] == "Ingress":
            hosts = {host for tls in one["spec"]["tls"] for host in tls["hosts"]}
            for rule in one["spec"]["rules"]:
                if rule["host"] not in hosts:
                    found.append(f"{title(one)} has no TLS for {rule['host']}")
                for path in rule["http"]["paths"]:
                    service = path["backend"]["service"]
                    if service["name"] not in services or service["port"]["number"] != 8000:
                        found.append(f"{title(one)} leads to {service}, which the endpoint is not")
    names = [one["metadata"]["name"] for one in manifests if one["kind"] in CLUSTER_OF]
    twice = sorted({name for name in names if names.count(name) > 1})
    found += [f"two have the name {name}, and so one head service" for name in twice]
    found += [f"the name {name} is too long" for name in names if len(name) > LONGEST_NAME]
    return found
