import pytest

from jv5kit.errors import InputError
from jv5kit.tasks import TASKS, document_prompt, named_prompt, query_prompt

PROMPTS = {"query": "Query: ", "document": "Document: "}


def test_only_a_retrieval_query_gets_the_query_prompt() -> None:
    prompts = {task: query_prompt(PROMPTS, task) for task in TASKS}
    assert prompts == {
        "retrieval": "Query: ",
        "text-matching": "Document: ",
        "clustering": "Document: ",
        "classification": "Document: ",
    }


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"document": "d", "passage": "p", "corpus": "c"}, "d"),
        ({"corpus": "c", "passage": "p"}, "p"),
        ({"corpus": "c"}, "c"),
        ({"document": "", "passage": "p"}, ""),
        ({"query": "q"}, ""),
        ({}, ""),
    ],
)
def test_the_document_prompt_has_several_names(prompts: dict[str, str], expected: str) -> None:
    assert document_prompt(prompts) == expected


def test_a_named_prompt_beats_the_default() -> None:
    assert named_prompt(PROMPTS, "query", "document") == "Query: "
    assert named_prompt(PROMPTS, None, "document") == "Document: "
    assert named_prompt(PROMPTS, None, None) == ""


def test_an_unknown_prompt_name_is_an_error_that_names_the_prompts() -> None:
    with pytest.raises(InputError, match=r"prompt_name='poem' .*'query', 'document'"):
        named_prompt(PROMPTS, "poem", None)


@pytest.mark.parametrize("prompts", [{}, {"query": "", "document": ""}])
def test_a_model_without_prompts_gets_none(prompts: dict[str, str]) -> None:
    assert named_prompt(prompts, "poem", "query") == ""
    assert query_prompt(prompts, "retrieval") == document_prompt(prompts) == ""
