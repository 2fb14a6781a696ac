"""What can go wrong, as one family of exceptions.

The command line turns each into one line and an exit status: 2 for :class:`InputError` (the caller can mend it), 1 for
the rest. A message says what was wrong, with the value, and what to do.
"""

from __future__ import annotations


class Jv5kitError(Exception):
    """Base of every error that jv5kit raises on purpose."""


class InputError(Jv5kitError, ValueError):
    """A wrong argument or bad input: nothing was done, and the caller can mend it."""


class DocumentError(InputError):
    """A line of a documents file that cannot be used; the message begins with ``file:line``."""


class DuplicateError(InputError):
    """An id that another document already has."""


class ModelNotFoundError(InputError):
    """A model name that is neither a usable folder nor a model of the hub that can be reached."""


class MissingExtraError(Jv5kitError, ImportError):
    """An optional dependency that is not installed; the message has the ``pip install`` line."""


class IndexNotFoundError(InputError):
    """A path that holds no index."""


class IndexExistsError(InputError):
    """A path that already holds an index, or something else, where a new index was to be made."""


class IndexLockedError(Jv5kitError):
    """An index that another process is writing; the message names the holder."""


class IndexFormatError(Jv5kitError):
    """An index of a newer format than this version reads."""


class IndexDamagedError(Jv5kitError):
    """An index file whose bytes are not those that were written; the message names the file."""

    @classmethod
    def of(cls, path: object, problem: str) -> IndexDamagedError:
        """The error of a file, with what to do."""
        return cls(f"{path} is damaged: {problem}; restore it from a copy, or build the index again")
