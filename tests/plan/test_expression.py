"""Sums of models are read as they are written, and what cannot be read is told where."""

import pytest

from weightsmith.errors import ExpressionInvalid
from weightsmith.plan.expression import Term, parse_expression


def read(text: str) -> dict[str, float]:
    return {term.source: term.factor for term in parse_expression(text)}


@pytest.mark.parametrize(
    "text, terms",
    [
        ("A", {"A": 1}),
        ("0.5*A + 0.3*B + 0.2*C", {"A": 0.5, "B": 0.3, "C": 0.2}),
        ("A + 1*(B - C)", {"A": 1, "B": 1, "C": -1}),
        ("A - 2*(B - 0.5*(C + D))", {"A": 1, "B": -2, "C": 1, "D": 1}),
        ("-1*A + 2 * B", {"A": -1, "B": 2}),
        ("1e-1*./a-b + .5*org/name@main", {"./a-b": 0.1, "org/name@main": 0.5}),
        ("A+D1 + B", {"A+D1": 1, "B": 1}),
        ("A + 0.5*(B - A)", {"A": 0.5, "B": 0.5}),
        ("'my model' + \"other (1)\"", {"my model": 1, "other (1)": 1}),
        ("(model(1) + B)", {"model(1)": 1, "B": 1}),
        ("7b-model + 0.5*7b", {"7b-model": 1, "7b": 0.5}),
        ("A + B - B", {"A": 1}),
        ("  A   +\tB ", {"A": 1, "B": 1}),
    ],
)
def test_a_sum_is_read_as_it_is_written(text: str, terms: dict[str, float]) -> None:
    assert read(text) == terms


def test_terms_keep_their_order() -> None:
    assert parse_expression("B + A") == (Term(1.0, "B"), Term(1.0, "A"))


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "at its end: a source belongs here"),
        ("A + ", "at its end: a source belongs here"),
        ("A B", "at 'B': an operator, "),
        ("A +B", "at '[+]B': an operator, "),
        ("A * B", "an operator, "),
        ("A*0.5 + B", "at 'A[*]0.5 [+] B': a number and [*] belong before a source"),
        ("(A + B", "at its end: a parenthesis is never closed"),
        ("A + B)", "a parenthesis is closed that was never opened"),
        ("'A + B", "a quote is never closed"),
        ("A - A", "every factor is zero"),
        ("1e999*A", "the factor of A is not finite"),
        ("0,5*A + B", "at '0,5[*]A [+] B': 0,5 is no factor"),
        ("1/3*A", "1/3 is no factor: write a number as 0.5"),
        ("A / 2", "at '/ 2': there is no division: write 0.5[*]A"),
        ("(A + B)/2", "at '/2': there is no division"),
        ("A + nan*B", "at 'nan[*]B': nan is no factor"),
        ("0.5*", "a source belongs here"),
        ("()", "a source belongs here"),
        ("(" * 100 + "A", "too deep"),
        (" + ".join(f"m{n}" for n in range(65)), "more than 64 sources"),
    ],
)
def test_what_is_no_sum_is_refused_where_it_is_none(text: str, reason: str) -> None:
    with pytest.raises(ExpressionInvalid, match=reason):
        parse_expression(text)
