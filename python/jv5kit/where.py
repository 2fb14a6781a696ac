r"""The language of filters, which ``--where`` takes: ``year >= 2020 and lang in ("en", "de") and not draft = true``.

=============================  ==========================================================================
``= == != < <= > >=``          a field, left, and a value, right
``in (…)``, ``not in (…)``     any, or none, of some values
``exists``, ``not exists``     after a field: whether the document has it
``and``, ``or``, ``not``       in any case; ``not`` binds closest, then ``and``; parentheses as usual
``2020``, ``-1.5``, ``1e-3``   numbers: whole ones exact to 64 bits, the others as floats
``"en"``, ``'en'``             strings, with the escapes ``\" \' \` \\ \/ \b \f \n \r \t \u0041``
``true``, ``false``            in any case
``year``, `` `a name` ``       fields: bare if of letters, digits, ``_``, ``.`` and ``-``, else in backticks
=============================  ==========================================================================

:mod:`jv5kit.filters` says what a filter means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from jv5kit.errors import InputError
from jv5kit.filters import BARE_NAME, KEYWORDS, Condition, Filter, Junction, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LENGTH = 1 << 20
"""Characters of the longest filter."""

MAX_DEPTH = 50
"""Parentheses and NOTs within one another."""

MAX_CONDITIONS = 256
"""Conditions of a filter, each of which reads a column; ``in`` is one, however many its values."""

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<string>"[^"\\]*(?:\\.[^"\\]*)*" | '[^'\\]*(?:\\.[^'\\]*)*')
    | (?P<quoted>`[^`\\]*(?:\\.[^`\\]*)*`)
    | (?P<symbol>[=!<>]=|[=<>(),])
    | (?P<word>[\w.+\-]+)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?P<fraction>\.[0-9]*)?|(?P<point>\.[0-9]+))(?P<exponent>[eE][+-]?[0-9]+)?")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"} | {char: char for char in "\"'`\\/"}
_OPERATORS: dict[str, tuple[Operator, bool]] = {
    "=": ("in", False),
    "==": ("in", False),
    "!=": ("in", True),
    "<": ("<", False),
    "<=": ("<=", False),
    ">": (">", False),
    ">=": (">=", False),
}
_A_VALUE = "a number, a string in quotes, true or false"


def parse_filter(where: str | Mapping[str, Any] | Filter) -> Filter:
    """The filter of a text, or of a dict: ``{"year": 2024, "lang": ["en", "de"]}``.

    A dict's keys are fields, all of which must match: a value is equality, a list is any of its values.

    Raises:
        InputError: it is not a filter; the message has the place in the text and what was expected, or the field.
    """
    if isinstance(where, Filter):
        return where
    if isinstance(where, str):
        return _Parser(where).filter()
    if not isinstance(where, Mapping):
        raise InputError(f"the filter is {type(where).__name__} {where!r:.80}; it must be a string or a dict")
    if not where:
        raise InputError("the filter is an empty dict; leave it out to search all documents")
    if len(where) > MAX_CONDITIONS:
        raise InputError(f"the filter has {len(where)} fields; the limit is {MAX_CONDITIONS}")
    for field in where:
        if not isinstance(field, str):
            raise InputError(f"the filter has the key {field!r:.80}; a field's name must be a string")
    several = (list, tuple, Set)
    return Junction.of(
        "and",
        [
            Condition.of(field, "in", [*value] if isinstance(value, several) else [value])
            for field, value in where.items()
        ],
    )


class _Token(NamedTuple):
    """A piece of the text; ``value`` is the number or string it stands for, or the field's name."""

    kind: Literal["value", "name", "keyword", "symbol", "word", "end"]
    text: str
    start: int
    value: Any = None


class _Parser:
    """Recursive descent, with a token of look-ahead."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise InputError(f"the filter has {len(text)} characters; the limit is {MAX_LENGTH}")
        self._text = text
        self._tokens = self._lex()
        self._next = next(self._tokens)
        self._depth = 0
        self._conditions = 0

    def filter(self) -> Filter:
        """The filter of the whole text."""
        found = self._or()
        if self._next.kind != "end":
            self._fail("'and', 'or' or the end")
        return found

    def _or(self) -> Filter:
        operands = [self._and()]
        while self._accept("or"):
            operands.append(self._and())
        return Junction.of("or", operands)

    def _and(self) -> Filter:
        operands = [self._not()]
        while self._accept("and"):
            operands.append(self._not())
        return Junction.of("and", operands)

    def _not(self) -> Filter:
        start = self._next.start
        if not (inverse := self._accept("not")) and not self._accept("("):
            return self._condition()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"it is nested deeper than {MAX_DEPTH}", start)
        found = ~self._not() if inverse else self._or()
        if not inverse:
            self._expect(")", "'and', 'or' or ')'")
        self._depth -= 1
        return found

    def _condition(self) -> Condition:
        token = self._next
        if token.kind != "name":
            self._fail("a field, 'not' or '('")
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            self._refuse(
                f"it has more than {MAX_CONDITIONS} conditions (a list of values after 'in' is one)", token.start
            )
        self._advance()
        inverse = self._accept("not")
        operator: Operator
        values: list[Any] = []
        if self._accept("exists"):
            operator = "exists"
        elif self._accept("in"):
            operator, values = "in", self._list()
        elif not inverse and self._next.value in _OPERATORS:
            operator, inverse = _OPERATORS[self._advance().value]
            values = [self._value(_A_VALUE)]
        else:
            self._fail("'in' or 'exists'" if inverse else "one of = == != < <= > >= in exists, or 'not'")
        try:
            condition = Condition.of(token.value, operator, values)
        except InputError as error:
            self._refuse(str(error), token.start)
        return ~condition if inverse else condition

    def _list(self) -> list[Any]:
        self._expect("(", "'('")
        values: list[Any] = []
        while not self._accept(")"):
            if values:
                self._expect(",", "',' or ')'")
            values.append(self._value(_A_VALUE if values else f"{_A_VALUE}, or ')'"))
        return values

    def _value(self, expected: str) -> Any:
        if self._next.kind != "value":
            self._fail(expected)
        return self._advance().value

    def _accept(self, text: str) -> bool:
        """Whether the next token is this keyword or symbol, which is then passed."""
        found = self._next.kind in ("keyword", "symbol") and self._next.value == text
        if found:
            self._advance()
        return found

    def _expect(self, text: str, expected: str) -> None:
        if not self._accept(text):
            self._fail(expected)

    def _advance(self) -> _Token:
        token, self._next = self._next, next(self._tokens, self._next)
        return token

    def _fail(self, expected: str) -> NoReturn:
        token = self._next
        found = "the filter ends" if token.kind == "end" else f"there is {token.text:.80}"
        if expected.startswith(_A_VALUE) and token.kind in ("name", "word"):
            found += " (strings need quotes)"
        elif expected.startswith(_A_VALUE) and token.value == "null":
            found += " (a missing field is found by 'not exists')"
        elif expected.startswith("a field") and token.kind in ("keyword", "word"):
            found += " (a field of such a name needs backticks)"
        self._refuse(f"expected {expected}, but {found}", token.start)

    def _refuse(self, problem: str, start: int) -> NoReturn:
        around = self._text if len(self._text) <= 80 else f"…{self._text[max(0, start - 30) : start + 30]}…"
        raise InputError(f"{problem} (at character {start + 1} of the filter {around!r})")

    def _lex(self) -> Iterator[_Token]:
        for match in _TOKEN.finditer(self._text):
            text, start = match.group(), match.start()
            match match.lastgroup:
                case "string":
                    yield _Token("value", text, start, self._unescape(text[1:-1], start + 1))
                case "quoted":
                    yield _Token("name", text, start, self._unescape(text[1:-1], start + 1))
                case "symbol":
                    yield _Token("symbol", text, start, text)
                case "word":
                    yield self._word(text, start)
                case "other" if text in "\"'`":
                    self._refuse(f"{text} is not closed", start)
                case "other":
                    self._refuse(
                        f"{text!r} means nothing here; strings need quotes, unusual field names backticks", start
                    )
        yield _Token("end", "", len(self._text))

    def _word(self, text: str, start: int) -> _Token:
        if text.lower() in ("true", "false"):
            return _Token("value", text, start, text.lower() == "true")
        if text.lower() in KEYWORDS:
            return _Token("keyword", text, start, text.lower())
        if BARE_NAME.fullmatch(text):
            return _Token("name", text, start, text)
        if not (number := _NUMBER.fullmatch(text)):
            return _Token("word", text, start)
        if any(number.groups()):
            return _Token("value", text, start, float(text))
        try:
            return _Token("value", text, start, int(text))
        except ValueError:
            # Python's own limit, against numbers that take minutes to read.
            self._refuse(f"a whole number of {len(text)} digits is beyond 64 bits", start)

    def _unescape(self, text: str, start: int) -> str:
        def char(escape: re.Match[str]) -> str:
            code, letter = escape.groups()
            if code:
                return chr(int(code, 16))
            if letter not in _ESCAPES:
                self._refuse(f"{escape.group()} is no escape; a backslash is written twice", start + escape.start())
            return _ESCAPES[letter]

        if "\\" not in text:
            return text
        # Two escapes of a surrogate pair are one character.
        return _ESCAPE.sub(char, text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
