"""Podman for a check, with its own store, and the compose file run by podman-compose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.deployment.processes import run
from tools.lock import ROOT
from tools.release_check import copy_of_the_tree

# runc and cgroupfs run under every layout of control groups, also where systemd is not; the limits
# are below those of any host, which Podman would otherwise try to raise.
_SETTINGS = """\
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# What a shell has for compose or for the service must not reach the check.
_FOREIGN = ("SDPOSE_", "COMPOSE_", "DOCKER_")


class Engine:
    """Podman with images, containers and networks in one folder."""

    def __init__(self, folder: Path) -> None:
        settings, store = folder / "containers.conf", folder / "storage.conf"
        networks = folder / "networks"
        networks.mkdir(parents=True, exist_ok=True)
        settings.write_text(
            f'{_SETTINGS}[network]\nnetwork_backend = "netavark"\n'
            f'network_config_dir = "{networks}"\n'
        )
        store.write_text(
            '[storage]\ndriver = "overlay"\n'
            f'runroot = "{folder / "run"}"\ngraphroot = "{folder / "graph"}"\n'
        )
        own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self.env = own | {
            "CONTAINERS_CONF": str(settings),
            "CONTAINERS_STORAGE_CONF": str(store),
            "BUILDAH_FORMAT": "docker",  # the other format has no health check
            "COMPOSE_PROFILES": "",  # podman-compose adds --profile to those of .env
        }

    def __call__(self, *arguments: str) -> str:
        """Output of one podman command; raises `CheckFailed`."""
        return run(["podman", *arguments], env=self.env).strip()

    def succeeds(self, *arguments: str) -> bool:
        """Whether a podman command ends with 0."""
        command = ["podman", *arguments]
        return (
            subprocess.run(command, env=self.env, capture_output=True, check=False).returncode == 0
        )

    def has(self, image: str) -> bool:
        """Whether the store has an image."""
        return self.succeeds("image", "exists", image)

    def inspect(self, kind: str, name: str) -> Mapping[str, Any]:
        """Podman's record of an image or a container."""
        (found,) = json.loads(self("inspect", "--type", kind, name))
        return dict(found)

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The files of an image."""
        try:
            yield Path(self("image", "mount", image))
        finally:
            self("image", "unmount", image)

    def close(self) -> None:
        """Removes all containers and what is mounted, so that the folder can be removed."""
        self("rm", "--all", "--force", "--time", "1")
        self("pod", "rm", "--all", "--force")
        for kind in ("network", "volume"):
            self(kind, "prune", "--force")
        graph = Path(str(self.env["CONTAINERS_STORAGE_CONF"])).parent / "graph"
        unmount = ["umount", str(graph / "overlay")]
        subprocess.run(unmount, check=False, capture_output=True)


class Project:
    """A clone of this repository in which `docker compose` commands are run by podman-compose.

    Args:
        folder: where the clone goes; its committed and changed files are copied.
        build: options of `podman build`.
    """

    def __init__(self, engine: Engine, folder: Path, build: Sequence[str]) -> None:
        self.engine, self.folder = engine, folder
        self._build = build
        copy_of_the_tree(folder)
        # The times of folders are part of what layers are known by.
        for path in filter(Path.is_dir, folder.rglob("*")):
            shutil.copystat(ROOT / path.relative_to(folder), path)

    def compose(self, *arguments: str, **variables: str) -> str:
        """Output of `docker compose` with these arguments and variables of the shell."""
        options = [f"--podman-build-args={option}" for option in self._build]
        program = Path(sys.executable).parent / "podman-compose"
        return run(
            [str(program), *options, *arguments], cwd=self.folder, env=self.engine.env | variables
        )

    def container(self, service: str) -> str:
        """Name of a service's container."""
        return f"sdpose_{service}_1"

    def healthy(self, service: str) -> bool:
        """Whether the image's health check, run now, returns 0."""
        return self.engine.succeeds("healthcheck", "run", self.container(service))
