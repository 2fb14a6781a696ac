"""Gather real documents: the docstrings of every public module, class and function of this Python's standard library.

Writes ``docs.jsonl``, one JSON object a line: ``id`` and ``title`` (the dotted name), ``text`` (the
docstring), ``kind`` and ``module``.
Sources are parsed, never imported; names written in C get their docstrings from the running interpreter.

    python examples/stdlib_docs.py docs.jsonl
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import sys
import sysconfig
import warnings
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Record = tuple[str, str, str, str]
"""Dotted name, docstring, kind and module."""

SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "test", "tests"}


def from_sources(library: Path) -> Iterator[Record]:
    """Records of the modules under a folder, in the order of their names."""
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if SKIPPED_FOLDERS & set(parts) or any("-" in part for part in parts):
            continue
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # Test data of the standard library that is wrong on purpose.
        yield from from_tree(tree, module, module, "module")


def from_tree(node: ast.AST, name: str, module: str, kind: str) -> Iterator[Record]:
    """Records of a module, class or function and of what is defined in it."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node)
        if docstring and name:
            yield name, docstring, kind, module
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            child_kind = "class" if isinstance(child, ast.ClassDef) else "function"
            yield from from_tree(child, f"{name}.{child.name}", module, child_kind)
        else:
            yield from from_tree(child, name, module, kind)


def from_extensions() -> Iterator[Record]:
    """Records of the modules that are written in C, built into the interpreter or beside it."""
    for module_name in sorted(sys.stdlib_module_names):
        spec = importlib.util.find_spec(module_name) if not module_name.startswith("_test") else None
        if spec is None or not (spec.origin == "built-in" or isinstance(spec.loader, ExtensionFileLoader)):
            continue
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue  # It needs a library that this machine lacks.
        yield module_name, inspect.getdoc(module) or "", "module", module_name
        for name, value in sorted(vars(module).items()):
            if not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            kind = "class" if inspect.isclass(value) else "function"
            yield f"{module_name}.{name}", inspect.getdoc(value) or "", kind, module_name
            if inspect.isclass(value):
                for attribute, method in sorted(vars(value).items()):
                    if inspect.isroutine(method):
                        yield f"{module_name}.{name}.{attribute}", inspect.getdoc(method) or "", "function", module_name


def is_public(name: str) -> bool:
    """Whether no part of a dotted name begins with an underscore, but for names such as ``__init__``."""
    return all(not part.startswith("_") or (part.startswith("__") and part.endswith("__")) for part in name.split("."))


def main() -> None:
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "docs.jsonl")
    library = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    unnamed = output.with_name(f".{output.name}.tmp")
    with unnamed.open("w", encoding="utf-8") as file:
        for records in (from_sources(library), from_extensions()):
            for name, docstring, kind, module in records:
                text = docstring.strip()
                # Variants for other platforms share a name: the first one counts.
                if not text or not is_public(name) or name in seen or "\0" in text:
                    continue
                seen.add(name)
                record = {"id": name, "title": name, "text": text, "kind": kind, "module": module}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    unnamed.replace(output)
    print(f"{output}: {len(seen):,} documents", file=sys.stderr)


if __name__ == "__main__":
    main()
