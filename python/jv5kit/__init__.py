"""Text embeddings all the way into a fast index: encode, truncate, binarize and search.

The public names are loaded when they are first used: importing the package loads neither torch nor transformers, nor
even NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jv5kit.embeddings import truncate_embeddings
    from jv5kit.encoder import Encoder
    from jv5kit.errors import Jv5kitError
    from jv5kit.exact import hamming_search, int8_search, rescored_search
    from jv5kit.index import Index
    from jv5kit.quantize import embedding_ranges, quantize_embeddings, quantize_rows
    from jv5kit.retrieval import search
    from jv5kit.types import Document, Hit, Passage

    __version__: str

__all__ = [
    "Document",
    "Encoder",
    "Hit",
    "Index",
    "Jv5kitError",
    "Passage",
    "__version__",
    "embedding_ranges",
    "hamming_search",
    "int8_search",
    "quantize_embeddings",
    "quantize_rows",
    "rescored_search",
    "search",
    "truncate_embeddings",
]

_MODULES = {
    "Document": "types",
    "Encoder": "encoder",
    "Hit": "types",
    "Index": "index",
    "Jv5kitError": "errors",
    "Passage": "types",
    "embedding_ranges": "quantize",
    "hamming_search": "exact",
    "int8_search": "exact",
    "quantize_embeddings": "quantize",
    "quantize_rows": "quantize",
    "rescored_search": "exact",
    "search": "retrieval",
    "truncate_embeddings": "embeddings",
}


if not TYPE_CHECKING:
    # A type checker sees the imports above; with a __getattr__ it would let every misspelled name pass.
    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("jv5kit")
        elif name in _MODULES:
            value = getattr(importlib.import_module(f"jv5kit.{_MODULES[name]}"), name)
        else:
            raise AttributeError(f"module 'jv5kit' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
