"""Stand-ins for the images of others, out of Debian's packages, if none can be pulled.

They carry the names of the real ones, in the check's own store only, so that Dockerfile and
docker-compose.yml are used unchanged. Grafana has none: no registry of packages carries it.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from tools.deployment.containers import Engine
from tools.deployment.processes import run
from tools.deployment.report import CheckFailed
from tools.lock import ROOT

_DOCUMENTS = ("doc", "info", "locale", "man")
_PYTHON = "python3.11,python3.11-venv,python3-pip,ca-certificates"
# With its configuration in the command, as the compose file gives it, and a user without rights.
_PROMETHEUS = """\
FROM {python}
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus \\
    && rm -rf /var/lib/apt/lists/* && mkdir /prometheus && chown nobody /prometheus
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]
"""


def default_image(variable: str) -> str:
    """The full name of the image that compose takes where this variable is unset."""
    found = re.search(rf"\$\{{{variable}:-([^}}]+)\}}", (ROOT / "docker-compose.yml").read_text())
    if found is None:
        raise CheckFailed(f"docker-compose.yml has no ${{{variable}:-...}}")
    name = found[1]
    return f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"


def make_stand_ins(engine: Engine, folder: Path) -> list[str]:
    """Makes the images that the store has not; gives the names of those."""
    made = []
    python = default_image("BASE")
    if not engine.has(python):
        root = _debian(folder / "base", "bookworm", _PYTHON)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")
        _keep(engine, root, python)
        made.append(python)
    prometheus = default_image("PROMETHEUS_IMAGE")
    if not engine.has(prometheus):
        recipe = folder / "prometheus"
        recipe.mkdir(exist_ok=True)
        (recipe / "Containerfile").write_text(_PROMETHEUS.format(python=python))
        engine("build", "--network=host", "--tag", prometheus, str(recipe))
        made.append(prometheus)
    nginx = default_image("NGINX_IMAGE")
    if not engine.has(nginx):
        # Stable Debian's nginx is older than the `resolve` of deploy/nginx/upstreams-compose.conf.
        root = _debian(folder / "nginx", "testing", "nginx,ca-certificates")
        (root / "etc/nginx/sites-enabled/default").unlink()
        for log, stream in (("error", "stderr"), ("access", "stdout")):
            (root / f"var/log/nginx/{log}.log").unlink(missing_ok=True)
            (root / f"var/log/nginx/{log}.log").symlink_to(f"/dev/{stream}")
        command = ('CMD ["nginx", "-g", "daemon off;"]', "STOPSIGNAL SIGQUIT")
        _keep(engine, root, nginx, *command)
        made.append(nginx)
    return made


def _debian(root: Path, release: str, packages: str) -> Path:
    """A small Debian in a folder."""
    shutil.rmtree(root, ignore_errors=True)
    run(["debootstrap", "--variant=minbase", f"--include={packages}", release, str(root)])
    # As in the slim images: no documents, no translations, no lists of packages.
    for spent in ("var/cache/apt", "var/lib/apt/lists", *(f"usr/share/{s}" for s in _DOCUMENTS)):
        shutil.rmtree(root / spent)
        (root / spent).mkdir()
    return root


def _keep(engine: Engine, root: Path, name: str, *changes: str) -> None:
    """Makes an image of a folder, and removes the folder."""
    archive = root.with_suffix(".tar")
    run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."])
    engine("import", *(f"--change={change}" for change in changes), str(archive), name)
    os.unlink(archive)
    shutil.rmtree(root)
