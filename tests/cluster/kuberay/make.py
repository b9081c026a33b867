"""Reduces KubeRay's definitions of RayCluster, RayJob and RayService to the schemas that the tests read.

Source: ray-operator/config/crd/bases of https://github.com/ray-project/kuberay at v1.7.0, Apache License 2.0.

    python tests/cluster/kuberay/make.py FOLDER
"""

import gzip
import json
import sys
from pathlib import Path

import yaml


def schema(file: Path) -> dict:
    versions = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    found = next(one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1")
    del found["properties"]["status"]
    return found


if __name__ == "__main__":
    names = {"RayCluster": None, "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
    schemas = {name: schema(Path(sys.argv[1]) / f"ray.io_{name.lower()}s.yaml") for name in names}
    cluster = schemas["RayCluster"]["properties"]["spec"]
    for name, field in names.items():
        fields = schemas[name]["properties"]["spec"]["properties"]
        if field:
            assert fields[field] == cluster
            fields[field] = {"$ref": "#/RayCluster/properties/spec"}
    text = json.dumps(schemas, sort_keys=True, separators=(",", ":")).encode()
    Path(__file__).with_name("schemas.json.gz").write_bytes(gzip.compress(text, mtime=0))
