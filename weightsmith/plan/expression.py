"""A sum of models as a person writes it: ``0.5*A + 0.5*B``, ``A + 0.7*(B - C)``."""

import math
import re
from dataclasses import dataclass
from typing import Final

from weightsmith.errors import ExpressionInvalid

MOST_TERMS: Final = 64
_NUMBER: Final = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*\s*")
_FACTOR_LAST: Final = re.compile(r".+\*[\d.]+")
_NO_FACTOR: Final = re.compile(r"([-+\d.,/eE]+|nan|inf)\*.+", re.IGNORECASE)
"""What was meant as a number and ``*`` before a source, and is no number."""
_QUOTES: Final = "\"'"
_DEEPEST: Final = 32
_NO_DIVISION: Final = "there is no division: write 0.5*A for A/2"


@dataclass(frozen=True, slots=True)
class Term:
    """A source and what its values are multiplied by."""

    factor: float
    source: str


def parse_expression(text: str) -> tuple[Term, ...]:
    """The terms of a sum, each source once, in the order in which they come up.

    Operators are ``+`` and ``-`` between spaces, so that a name may hold both. A term is a SOURCE
    or a sum in parentheses, with a number and ``*`` before it or not; a SOURCE with spaces in it
    stands in quotes.
    Raises: ExpressionInvalid, with the place where it cannot be read.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def parse(self) -> tuple[Term, ...]:
        factors: dict[str, float] = {}
        for term in self._sum(depth=0):
            factors[term.source] = factors.get(term.source, 0.0) + term.factor
        if self._at < len(self._text):
            raise self._invalid("a parenthesis is closed that was never opened")
        if len(factors) > MOST_TERMS:
            raise self._invalid(f"it has more than {MOST_TERMS} sources")
        for source, factor in factors.items():
            if not math.isfinite(factor):
                raise self._invalid(f"the factor of {source} is not finite")
        kept = tuple(Term(factor, source) for source, factor in factors.items() if factor)
        if not kept:
            raise self._invalid("nothing is left of it: every factor is zero")
        return kept

    def _sum(self, depth: int) -> list[Term]:
        """Up to the end, or to a parenthesis that closes."""
        if depth > _DEEPEST:
            raise self._invalid("its parentheses are too deep")
        terms = self._term(1.0, depth)
        while True:
            spaced = self._skip_spaces()
            if self._at == len(self._text) or self._text[self._at] == ")":
                return terms
            sign = self._text[self._at]
            if sign == "/":
                raise self._invalid(_NO_DIVISION)
            after = self._text[self._at + 1 : self._at + 2]
            if sign not in "+-" or not spaced or not (after.isspace() or after == ""):
                raise self._invalid("an operator, + or -, belongs here, between spaces")
            self._at += 1
            terms += self._term(1.0 if sign == "+" else -1.0, depth)

    def _term(self, sign: float, depth: int) -> list[Term]:
        """A source or a sum in parentheses, and what it is multiplied by."""
        self._skip_spaces()
        factor = sign
        if match := _NUMBER.match(self._text, self._at):
            factor *= float(match[1])
            self._at = match.end()
        if self._text[self._at : self._at + 1] == "(":
            self._at += 1
            inner = self._sum(depth + 1)
            if self._text[self._at : self._at + 1] != ")":
                raise self._invalid("a parenthesis is never closed")
            self._at += 1
            return [Term(factor * term.factor, term.source) for term in inner]
        return [Term(factor, self._source())]

    def _source(self) -> str:
        """Up to a space, or to a parenthesis that it does not open itself."""
        start = self._at
        quote = self._text[start : start + 1]
        if quote and quote in _QUOTES:
            end = self._text.find(quote, start + 1)
            if end < 0:
                raise self._invalid("a quote is never closed")
            self._at = end + 1
            source = self._text[start + 1 : end]
        else:
            depth = 0
            for char in self._text[start:]:
                depth += {"(": 1, ")": -1}.get(char, 0)
                if char.isspace() or depth < 0:
                    break
                self._at += 1
            source = self._text[start : self._at]
            if match := _NO_FACTOR.fullmatch(source):
                self._at = start
                raise self._invalid(f"{match[1]} is no factor: write a number as 0.5")
        if not source or source in {"+", "-"}:
            self._at = start
            raise self._invalid("a source belongs here")
        if _FACTOR_LAST.fullmatch(source):
            self._at = start
            raise self._invalid("a number and * belong before a source, not behind it")
        return source

    def _skip_spaces(self) -> bool:
        """Whether there were any."""
        start = self._at
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1
        return self._at > start

    def _invalid(self, reason: str) -> ExpressionInvalid:
        rest = self._text[self._at :]
        where = f"at {rest!r}" if rest else "at its end"
        return ExpressionInvalid(expression=self._text, where=where, reason=reason)
