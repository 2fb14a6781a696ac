"""The layout as rules: which module may import which, and where torch may be named."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import jv5kit

PACKAGE = Path(jv5kit.__file__).parent

# Each layer may import those to its left, never those to its right; modules of one layer may import each other.
LAYERS = [
    {"types", "errors"},
    {"_native", "tasks", "logs", "prefetch", "progress"},
    {"documents", "embeddings", "exact", "filters", "quantize", "rotation", "where"},
    {"storage"},
    {"hybrid", "scan", "search_modes"},
    {"graph"},
    {"exporting", "querying"},
    {"hub", "weights"},
    {"pretrained"},
    {"modeling", "native"},
    {"backends"},
    {"encoder"},
    {"sources", "index_model", "passages"},
    {"index_settings"},
    {"building", "deleting", "index_reader"},
    {"index"},
    {"sharding"},
    {"stores"},
    {"contents", "retrieval"},
    {"server"},
    {"evaluation"},
    {"training"},
    {"mining"},
    {"integrations"},
    {"cli"},
    {"__main__", "__init__"},
]
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}

HEAVY = {"torch", "transformers"}
MAY_NAME_TORCH = {"modeling"}

# What only some files may import, and when they run: a plot is drawn, a task of mteb is run, a classifier is trained.
EXTRAS: dict[str, set[str]] = {
    "faiss": set(),
    "langchain_core": set(),
    "llama_index": set(),
    "matplotlib": {"plots.py"},
    "mteb": {"mteb_adapter.py"},
    "ray": set(),
    "sentence_transformers": set(),
    "sklearn": {"classification.py", "clustering.py"},
}

# What only the server's folder may import; the command loads that folder when it runs.
SERVER = {"prometheus_client", "starlette", "uvicorn"}

# What speaks to an engine is loaded when a URL names it.
STORES = {"psycopg": "postgres"}

# An integration is imported by those who have its library, and derives from the library's classes.
INTEGRATIONS = {
    "faiss": {"faiss.py"},
    "langchain_core": {"langchain.py"},
    "llama_index": {"llamaindex.py", "llamaindex_filters.py"},
    "mteb": {"mteb.py"},
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def area(path: Path) -> str:
    """The module of the package, or the folder, that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree: ast.AST) -> list[tuple[str, bool]]:
    """Dotted names that are imported when the code runs, and whether at the top of the module."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.append((node.module or "", top))
            found.extend((f"{node.module}.{alias.name}", top) for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, top and not inside)

    visit(tree, top=True)
    return found


def violations(path: Path, source: str) -> list[str]:
    """What a file imports against the rules."""
    own = area(path)
    wrong = []
    for name, top in imports(ast.parse(source)):
        root, _, rest = name.partition(".")
        # Training is loaded by the commands that train, after they found torch installed.
        if root in HEAVY and own != "training" and (own not in MAY_NAME_TORCH or top):
            wrong.append(f"{own} imports {name}" + (" at its top" if top else ""))
        integrates = own == "integrations" and path.name in INTEGRATIONS.get(root, ())
        if root in EXTRAS and not integrates and (path.name not in EXTRAS[root] or top):
            wrong.append(f"{path.name} imports {name}" + (" at its top" if top else ""))
        if root in SERVER and own != "server":
            wrong.append(f"{own} imports {name}")
        if root in STORES and path.parent != PACKAGE / "stores" / STORES[root]:
            wrong.append(f"{path.name} imports {name}")
        if root == "jv5kit" and rest:
            other = rest.partition(".")[0]
            if other in RANK and RANK[other] > RANK[own]:
                wrong.append(f"{own} imports {other}")
    return wrong


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_layers(path: Path) -> None:
    assert area(path) in RANK, f"{area(path)} has no layer"
    if area(path) != "__init__":
        assert not violations(path, path.read_text(encoding="utf-8"))


def test_the_rules_see_what_breaks_them() -> None:
    types = PACKAGE / "types.py"
    assert violations(types, "def f():\n    from jv5kit.index import Index") != []
    assert violations(types, "import torch")
    assert violations(PACKAGE / "modeling.py", "import torch")
    assert not violations(PACKAGE / "modeling.py", "def f():\n    import torch")
    assert not violations(PACKAGE / "training" / "packed.py", "import torch")
    assert violations(PACKAGE / "encoder.py", "def f():\n    from jv5kit.training import packed")
    assert not violations(types, "if TYPE_CHECKING:\n    from jv5kit.index import Index")
    plots = PACKAGE / "evaluation" / "plots.py"
    assert not violations(plots, "def f():\n    from matplotlib.figure import Figure")
    assert violations(plots, "from matplotlib.figure import Figure")
    assert violations(plots, "def f():\n    import mteb")
    assert violations(PACKAGE / "evaluation" / "runner.py", "def f():\n    import sklearn.cluster")
    assert violations(PACKAGE / "cli" / "serve.py", "def f():\n    import uvicorn")
    assert not violations(PACKAGE / "server" / "running.py", "import uvicorn")
    assert violations(PACKAGE / "stores" / "__init__.py", "def f():\n    import psycopg")
    assert not violations(PACKAGE / "stores" / "postgres" / "writer.py", "from psycopg import sql")
    langchain = PACKAGE / "integrations" / "langchain.py"
    assert not violations(langchain, "from langchain_core.documents import Document\nfrom jv5kit.index import Index")
    assert violations(langchain, "from llama_index.core.schema import TextNode")
    assert violations(PACKAGE / "training" / "langchain.py", "import langchain_core")
    assert violations(PACKAGE / "index.py", "def f():\n    from jv5kit.integrations import langchain")
    assert violations(PACKAGE / "evaluation" / "runner.py", "def f():\n    import jv5kit.integrations")


def test_no_module_is_named_search() -> None:
    # `from jv5kit import search` would give the module.
    assert not [path for path in sources() if path.name == "search.py" and area(path) != "cli"]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_has_one_subject(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
