"""LlamaIndex's filters as ours.

They differ where a document does not have the field: with LlamaIndex ``!=``, ``nin`` and a negation match it then, with
us no condition does. What is made of them here matches what LlamaIndex's own store of documents in memory matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jv5kit.errors import InputError, MissingExtraError
from jv5kit.filters import Condition, Filter, Junction

try:
    from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilters
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"filters of LlamaIndex need llama-index-core ({error.name} is missing): pip install 'jv5kit[llamaindex]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.filters import Order

_ORDERS: dict[Any, Order] = {
    FilterOperator.LT: "<",
    FilterOperator.LTE: "<=",
    FilterOperator.GT: ">",
    FilterOperator.GTE: ">=",
}

_KNOWN = "== != < <= > >= in nin any all contains"


def filter_of(given: Any) -> Filter | None:
    """The filter that ``MetadataFilters`` are; None where there are none.

    Raises:
        InputError: an operator is none of ours, or a value does not go with it.
    """
    if given is None or not given.filters:
        return None
    parts = [filter_of(one) if isinstance(one, MetadataFilters) else _condition(one) for one in given.filters]
    filters = [part for part in parts if part is not None]
    if not filters:
        return None
    match given.condition:
        case FilterCondition.OR:
            return Junction.of("or", filters)
        case FilterCondition.NOT:
            # None of them matches.
            return complement(Junction.of("or", filters))
        case _:
            return Junction.of("and", filters)


def complement(given: Filter) -> Filter:
    """The filter that matches where one does not, a document without the field among them."""
    if isinstance(given, Junction):
        return Junction.of("or" if given.word == "and" else "and", [complement(one) for one in given.operands])
    assert isinstance(given, Condition)
    if given.operator == "exists":
        return ~given
    return Junction.of("or", [~given, ~Condition.of(given.field, "exists")])


def _condition(given: Any) -> Filter:
    field, operator, value = given.key, given.operator, given.value
    match operator:
        # A list of ours matches if one of its elements does.
        case FilterOperator.EQ | FilterOperator.CONTAINS:
            return Condition.of(field, "in", [value])
        case FilterOperator.NE:
            return complement(Condition.of(field, "in", [value]))
        case FilterOperator.IN | FilterOperator.ANY:
            return Condition.of(field, "in", _values(given))
        case FilterOperator.NIN:
            return complement(Condition.of(field, "in", _values(given)))
        case FilterOperator.ALL:
            return Junction.of("and", [Condition.of(field, "in", [one]) for one in _values(given)])
        case _ if operator in _ORDERS:
            return Condition.of(field, _ORDERS[operator], [value])
        case _:
            raise InputError(
                f"the filter on {field!r} has the operator {operator.value!r}, which an index cannot answer; it knows "
                f"{_KNOWN}"
            )


def _values(given: Any) -> Sequence[Any]:
    """The values of an operator that takes several; at least one."""
    if not isinstance(given.value, list) or not given.value:
        raise InputError(
            f"the filter on {given.key!r} has {given.value!r:.80} after {given.operator.value!r}; it must be a list of "
            "values"
        )
    return given.value
