"""The order of the source files: layers of the extension, and no circle of imports in the Python package or the template."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECK = ROOT / "tools" / "check-layers.py"
PACKAGE = ROOT / "host-python" / "src" / "omni_credentials"
TEMPLATE = ROOT / "modules" / "template" / "src"


def check(source: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, CHECK, source], capture_output=True, text=True, check=False)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".rs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_layers_of_the_extension() -> None:
    done = check(ROOT / "host-pg" / "src")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_of_a_later_layer_fails(tmp_path: Path) -> None:
    """In every form that Rust has for it; what a comment or a text says is no import."""
    source = write(
        tmp_path,
        lib="mod error;\nfn init() { admin::register(); }\n",
        error="use crate::postgres::heap;\n",
        settings="pub fn register() { crate::keys::register() }\n",
        postgres__catalog="use crate::error::Error;\nuse crate::{\n    error::given,\n    rows::{open, scan},\n};\n",
        postgres__heap='// use crate::admin::owner;\nconst TEXT: &str = "crate::admin::owner";\n',
        keys__modules="use super::super::instance::Instance;\n",
        rows__open="use crate::postgres::heap;\nuse crate::rows::scan;\nuse crate::instance::Handle;\n",
        file_store__mod="use super::admin;\n",
        admin__verify="use crate::file_store::registry;\n",
    )
    done = check(source)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "error.rs:1: error imports postgres, but imports no layer",
        "file_store/mod.rs:1: file_store imports admin, a later layer",
        "keys/modules.rs:1: keys imports instance, a later layer",
        "postgres/catalog.rs:4: postgres imports rows, a later layer",
        "settings.rs:1: settings imports keys, a later layer",
    ]


def test_a_folder_without_a_layer_fails(tmp_path: Path) -> None:
    done = check(write(tmp_path, lib="", postgres__heap="", tools__more="", error="use crate::tools::more;\n"))
    assert done.returncode == 1
    assert "tools/more.rs:1: tools is no layer: name it in tools/check-layers.py" in done.stdout


def test_no_circle_in_the_python_package() -> None:
    """Imports for the type checker count, too."""
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.glob("*.py"):
        imports = graph.setdefault(path.stem, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                imports |= {node.module} if node.module else {alias.name for alias in node.names}
    assert "errors" in graph["_contract"], "the imports are not found"
    TopologicalSorter(graph).prepare()


def test_no_circle_in_the_template() -> None:
    graph: dict[str, set[str]] = {}
    modules = {path.stem for path in TEMPLATE.glob("*.rs")}
    for path in TEMPLATE.glob("*.rs"):
        # `lib.rs` declares the modules; it is named by none of them except for what it defines itself.
        if path.stem != "lib":
            names = re.findall(r"\bcrate::(?:\{([^;]*)\}|(\w+))", path.read_text())
            graph[path.stem] = {name for found in names for name in re.findall(r"\w+", " ".join(found))} & modules
    assert "contents" in graph["document"], "the imports are not found"
    TopologicalSorter(graph).prepare()
