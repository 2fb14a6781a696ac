"""An index on disk: a SQLite catalogue, immutable safetensors segments, a writer's lock.

``index.sqlite`` is the one source of truth. A segment is written and fsynced first, then named by a transaction
together with its documents; what no transaction names does not exist, and the next writer sweeps it. Every byte that
answers a query has a checksum that is verified before its first use.
"""
