"""The examples for containers, as far as this machine can tell: `./just test-clients`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "examples"
PYTHON = Path(os.environ["CARGO_TARGET_DIR"]) / "clients" / "venv" / "bin" / "python"
VARIABLE = "OMNI_CREDENTIALS_MASTER_PASSWORD_FILE"


def documents(name: str) -> list[dict]:
    """What is in a YAML file."""
    read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    return json.loads(subprocess.run([PYTHON, "-c", read, FOLDER / name], capture_output=True, text=True, check=True).stdout)


def test_the_page_names_them() -> None:
    page = (DOCS / "production.md").read_text()
    assert [file.name for file in FOLDER.iterdir() if f"(examples/{file.name})" not in page] == []


def test_compose() -> None:
    (compose,) = documents("compose.yaml")
    service = compose["services"]["db"]
    assert service["environment"][VARIABLE] == "/run/secrets/omni"
    for name, path in service["environment"].items():
        assert name.endswith("_FILE") and path.removeprefix("/run/secrets/") in service["secrets"]
    assert set(service["secrets"]) == set(compose["secrets"])
    assert "preload_libraries" in str(service["command"])


def test_kubernetes() -> None:
    *_, stateful = documents("kubernetes.yaml")
    pod = stateful["spec"]["template"]["spec"]
    container = pod["containers"][0]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    assert values[VARIABLE].startswith(mounted["omni"] + "/")
    assert pod["volumes"][0]["secret"]["defaultMode"] == 0o440 and pod["securityContext"]["fsGroup"] == 999


def test_cloudnative_pg() -> None:
    (cluster,) = documents("cloudnative-pg.yaml")
    (item,) = cluster["spec"]["projectedVolumeTemplate"]["sources"][0]["secret"]["items"]
    assert cluster["spec"]["env"] == [{"name": VARIABLE, "value": f"/projected/{item['path']}"}]
    assert cluster["spec"]["postgresql"]["shared_preload_libraries"] == ["omni_credentials"]


def test_patroni() -> None:
    assert f"Environment={VARIABLE}=%d/omni" in (FOLDER / "patroni.service.d.conf").read_text()


def test_dockerfile(tmp_path: Path) -> None:
    """The commands of its RUN, on an archive of that shape."""
    run = (FOLDER / "Dockerfile").read_text().split("RUN ", 1)[1].replace("\\\n", " ").replace("/tmp/", f"{tmp_path}/")
    for folder in ("package/lib", "package/share/extension", "server/lib", "server/extension", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "package/lib/omni_credentials.so").touch()
    (tmp_path / "package/share/extension/omni_credentials.control").touch()
    program = tmp_path / "bin" / "pg_config"
    program.write_text(f'#!/bin/sh\ncase $1 in --pkglibdir) echo {tmp_path}/server/lib;; *) echo {tmp_path}/server;; esac\n')
    program.chmod(0o755)
    environment = os.environ | {"PACKAGE": "package", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    subprocess.run(["sh", "-eu", "-c", run], env=environment, check=True)
    assert (tmp_path / "server/lib/omni_credentials.so").exists()
    assert (tmp_path / "server/extension/omni_credentials.control").exists()
