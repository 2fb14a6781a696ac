"""PostgreSQL with pgvector: codes as ``bit(n)``, where many write at once or a server must not be a single one.

``postgresql://USER@HOST/DATABASE?index=NAME`` names an index; :mod:`jv5kit.stores.postgres.address` has the details.
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
