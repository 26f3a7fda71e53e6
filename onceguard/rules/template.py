"""Key templates such as ``"account:{account_id}"``."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter

from onceguard.rules.checks import ProblemError


@dataclass(frozen=True, slots=True)
class Template:
    """
    A key with named gaps.

    Attributes:
        parts: Literal text, and the name of the argument that follows it
            or None at the end.
        fields: The names, in order, each once.
        head: Text before the first gap.
    """

    parts: tuple[tuple[str, str | None], ...]
    fields: tuple[str, ...]
    head: str


def parse_template(text: str) -> Template:
    """
    Take a template apart.

    Only plain names are allowed: attributes, indexes, conversions and format
    specifications would make the key depend on code that the template hides.

    Raises:
        ProblemError: It is no template; the sentence says why.
    """
    if not text:
        raise ProblemError("key must not be empty. Leave it out to use all arguments.")
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise ProblemError(
            f"key={text!r} is not a template: {error}. Write braces of the text twice."
        ) from error
    for _, name, specification, conversion in pieces:
        if name is not None and (not name.isidentifier() or specification or conversion):
            raise ProblemError(_odd_gap(text, name, specification, conversion))
    parts = tuple((literal, name) for literal, name, _, _ in pieces)
    fields = tuple(dict.fromkeys(name for _, name in parts if name is not None))
    return Template(parts=parts, fields=fields, head=_head(parts))


def _head(parts: tuple[tuple[str, str | None], ...]) -> str:
    head = ""
    for literal, name in parts:  # doubled braces split a literal without a gap
        head += literal
        if name is not None:
            break
    return head


def _odd_gap(text: str, name: str, specification: str | None, conversion: str | None) -> str:
    gap = "".join(
        (
            "{",
            name,
            f"!{conversion}" * bool(conversion),
            f":{specification}" * bool(specification),
        )
    )
    return (
        f"key={text!r} has {gap + '}'!r}, but a gap can only be the name of an argument. "
        "Use a function of the arguments to make the key of anything else."
    )
