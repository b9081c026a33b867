"""Ceph on one machine with its S3 gateway: a real object store of the smallest size.

One monitor, one object store daemon on a file in the folder, and one gateway, all on the loopback and run by the
user who starts them. Data is kept in one copy, so this is for trials only. Debian's packages: radosgw, ceph-mon,
ceph-osd.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from services import Service

from diffuir_core import UserError

PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool")

_CONFIG = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{port}]
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
ms_bind_ipv4 = true
ms_bind_ipv6 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
# No admin socket: its path may be longer than a socket's name can be.
admin_socket =
run_dir = {folder}
crash_dir = {folder}
log_file = {folder}/$name.log
# By default a disk that is 95% full stops the monitor, however little it writes.
mon_data_avail_crit = 1
mon_data_avail_warn = 2
# One copy, in one store.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
[mon]
mon_data = {folder}/mon
[osd]
osd_data = {folder}/osd
osd_objectstore = bluestore
bluestore_block_size = {bytes}
bluestore_block_wal_create = false
bluestore_block_db_create = false
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
osd_memory_target = 939524096
[client.rgw]
rgw_data = {folder}/rgw
rgw_thread_pool_size = 64
"""

STORE_BYTES = 16 * 2**30
"""Capacity of the store, bytes; its file is sparse."""


def is_installed() -> bool:
    """Whether all of its programs are installed."""
    return all(shutil.which(name) for name in PROGRAMS)


class Ceph:
    """A Ceph store in `folder`, made at its first start; from then on it keeps its monitor's port."""

    def __init__(self, folder: Path, monitor_port: int) -> None:
        self.folder = folder
        self._config = folder / "ceph.conf"
        self._monitor_port = monitor_port

    def services(self, gateway_port: int, ready: Callable[[], bool], key: str, secret: str) -> list[Service]:
        """Return monitor, store and gateway; the gateway listens at `gateway_port` and has the user `key`."""
        config = ("-f", "-c", str(self._config))
        store = ("--keyring", str(self.folder / "osd" / "keyring"))
        gateway = ("-n", "client.rgw", "--keyring", str(self.folder / "rgw" / "keyring"))
        frontend = f"--rgw-frontends=beast endpoint=127.0.0.1:{gateway_port}"
        environment = dict(os.environ)
        return [
            Service(
                name="ceph-mon",
                command=("ceph-mon", *config, "-i", "a"),
                environment=environment,
                prepare=self._make_monitor,
                ready=lambda: self._responds("status"),
            ),
            Service(
                name="ceph-osd",
                command=("ceph-osd", *config, "-i", "0", *store),
                environment=environment,
                prepare=self._make_store,
                ready=lambda: b'"num_up_osds":1' in self._output("osd", "stat", "--format", "json"),
                needs=("ceph-mon",),
            ),
            Service(
                name="radosgw",
                command=("radosgw", *config, *gateway, frontend),
                environment=environment,
                ready=ready,
                complete=lambda: self._make_user(gateway, key, secret),
                needs=("ceph-osd",),
            ),
        ]

    def _make_monitor(self) -> None:
        if self._config.exists():
            return
        for name in ("mon", "osd", "rgw"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        fsid = str(uuid.uuid4())
        text = _CONFIG.format(fsid=fsid, folder=self.folder, port=self._monitor_port, bytes=STORE_BYTES)
        draft = self._config.with_suffix(".draft")
        draft.write_text(text)
        keys, monitors = str(self.folder / "keyring"), str(self.folder / "monmap")
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
        _run("ceph-authtool", "--create-keyring", keys, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        _run("ceph-authtool", keys, "--gen-key", "-n", "client.admin", *everything)
        address = f"[v2:127.0.0.1:{self._monitor_port}]"
        _run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, monitors)
        _run("ceph-mon", "-c", str(draft), "-i", "a", "--mkfs", "--monmap", monitors, "--keyring", keys)
        # The file exists under its name only once all of this is done.
        draft.replace(self._config)

    def _make_store(self) -> None:
        keys, gateway_keys = self.folder / "osd" / "keyring", self.folder / "rgw" / "keyring"
        if gateway_keys.exists():
            return
        identity = str(uuid.uuid4())
        _run("ceph-authtool", str(keys), "--create-keyring", "--gen-key", "-n", "osd.0")
        secret = _run("ceph-authtool", str(keys), "-n", "osd.0", "--print-key").decode().strip()
        self._ceph("osd", "new", identity, "-i", "-", given=json.dumps({"cephx_secret": secret}).encode())
        config = ("-c", str(self._config))
        _run("ceph-osd", *config, "-i", "0", "--mkfs", "--osd-uuid", identity, "--keyring", str(keys))
        rights = ("mon", "allow rw", "osd", "allow rwx")
        self._ceph("auth", "get-or-create", "client.rgw", *rights, "-o", str(gateway_keys))

    def _make_user(self, gateway: tuple[str, ...], key: str, secret: str) -> None:
        admin = ("radosgw-admin", "-c", str(self._config), *gateway, "user")
        if subprocess.run([*admin, "info", "--uid=diffuir"], capture_output=True, check=False).returncode:
            _run(
                *admin,
                "create",
                "--uid=diffuir",
                "--display-name=diffuir",
                f"--access-key={key}",
                f"--secret={secret}",
            )

    def _ceph(self, *arguments: str, given: bytes | None = None) -> bytes:
        return _run("ceph", "-c", str(self._config), "--connect-timeout", "10", *arguments, given=given)

    def _output(self, *arguments: str) -> bytes:
        try:
            return self._ceph(*arguments).replace(b" ", b"")
        except UserError:
            return b""

    def _responds(self, *arguments: str) -> bool:
        return bool(self._output(*arguments))


def _run(*command: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode:
        output = " ".join(done.stderr.decode(errors="replace").split())[-300:]
        raise UserError(f"{command[0]} failed ({output}): remove the folder of the cluster and start it anew")
    return done.stdout
