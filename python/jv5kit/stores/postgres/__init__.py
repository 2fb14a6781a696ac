"""PostgreSQL with pgvector 0.7 or newer: where many write at once, or where one server must not be the only one.

``postgresql://USER@HOST/DATABASE?index=NAME`` names an index; :mod:`jv5kit.stores.postgres.address` has the details.
What differs from an index in a folder:

- It has codes (``ubinary``), with int8 rows beside them or without; other precisions, and passages, are refused. The
  mode ``int8`` is refused too: candidates are found by their codes. The hits are those of a folder, to the last bit.
- ``hnsw`` goes with codes: pgvector's graph, which the planner uses where it pays. It is made when all documents are
  in, in the server's ``maintenance_work_mem``, and takes in later ones by itself. ``mode=`` asks for an exact search.
- Every batch is a transaction. Several may write at once: where two add a document of one id, the second one meets it.
- Hybrid search ranks words by PostgreSQL's ``ts_rank`` in the configuration ``english``, not by BM25, and takes the
  first 65,536 characters of a text: more words than fit into a ``tsvector`` cannot be indexed.
- An id has at most 2,000 bytes.
- It always shows the newest state. A connection that is lost is made anew, for half a minute; a batch that was under
  way is there once.
"""

from jv5kit.errors import MissingExtraError

try:
    import psycopg as _psycopg
except ImportError as error:
    # Also where psycopg is there without the library that it needs.
    raise MissingExtraError(
        f"postgresql:// needs psycopg ({' '.join(str(error).split())}): pip install 'jv5kit[postgres]'"
    ) from None

from jv5kit.stores.postgres.index import PostgresIndex

__all__ = ["PostgresIndex"]

del _psycopg
