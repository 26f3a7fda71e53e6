"""
What must be unique: a call's key, made of its task's name and its arguments.

``tasks.sync(user_id=7,full=false)`` is a default key. Keys are at most 120
printable ASCII characters without spaces, so that they can be read in
``redis-cli`` and stand in records and logs; a longer or stranger one is
``tasks.sync#<digest of the whole text>``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from onceguard.rules.canonical import SCALARS, NoCanonicalText, canonical, quote
from onceguard.rules.errors import KeyNotComputable
from onceguard.rules.template import parse_template

if TYPE_CHECKING:
    from onceguard.rules.options import Once

LONGEST = 120

Bound = Mapping[str, Any]
Render = Callable[[Bound], str]

_PLAIN = re.compile(rf"[!-~]{{1,{LONGEST}}}").fullmatch
_ODD = re.compile(r"[^!-~]")
_LONGEST_HEAD = 80
_DIGEST_BYTES = 16
_REQUIRED = inspect.Parameter.empty
_SIMPLE = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
}


class KeyMaker:
    """
    Makes the keys of one task's calls; everything that can be prepared is.

    Args:
        task_name: Name of the task.
        signature: How the task is called, without ``self``.
        once: Its options, or those of one call.
    """

    __slots__ = ("_nested", "_parameters", "_positional", "_render", "_signature", "_task")

    def __init__(self, task_name: str, signature: inspect.Signature, once: Once) -> None:
        parameters = signature.parameters.values()
        self._task = task_name
        self._signature = signature
        self._render = _render(task_name, once)
        self._nested = frozenset(once.keys or ())
        simple = all(p.kind in _SIMPLE for p in parameters)
        self._parameters = [(p.name, p.default) for p in parameters] if simple else None
        self._positional = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)

    def __call__(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None
    ) -> str:
        """
        Return the key of a call.

        Raises:
            TypeError: The task can't be called like this.
            KeyNotComputable: It can, but there is no key for it.
        """
        bound = self._bind_fast(args or (), kwargs or {})
        return self._render(self.bind(args, kwargs) if bound is None else bound)

    def bind(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """
        Return every argument by name, defaults included.

        Parameters come in the signature's order, then extra keyword arguments
        by name.

        Raises:
            TypeError: The task can't be called like this.
        """
        try:
            call = self._signature.bind(*(args or ()), **(kwargs or {}))
        except TypeError as error:
            raise TypeError(f"{self._task}: {error}") from None
        call.apply_defaults()
        bound = dict(call.arguments)
        for parameter in self._signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                self._spread(bound, parameter.name)
        return bound

    def _spread(self, bound: dict[str, Any], name: str) -> None:
        """Put the extra keyword arguments beside the others, or also as one if asked for."""
        extra = bound.pop(name)
        if name in self._nested:
            bound[name] = extra
        for key in sorted(extra):
            # A positional-only parameter leaves its name free for an extra one.
            bound[f"**{key}" if key in bound else key] = extra[key]

    def _bind_fast(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Bind as `bind` does for plain signatures and good calls, ten times as fast."""
        given = len(args)
        if self._parameters is None or given > self._positional:
            return None
        bound = {}
        unused = len(kwargs)
        for index, (name, default) in enumerate(self._parameters):
            if index < given:
                bound[name] = args[index]
            elif name in kwargs:
                bound[name] = kwargs[name]
                unused -= 1
            elif default is _REQUIRED:
                return None
            else:
                bound[name] = default
        return None if unused else bound


def key_of(task_name: str, bound: Bound, once: Once) -> str:
    """
    Return the key of a call whose arguments are bound.

    Args:
        task_name: Name of the task.
        bound: Every argument by name, as from `KeyMaker.bind`.
        once: The task's options.

    Raises:
        KeyNotComputable: There is no key for these arguments.
    """
    return _render(task_name, once)(bound)


def _render(task_name: str, once: Once) -> Render:
    if isinstance(once.key, str):
        return _by_template(task_name, once.key)
    if once.key is not None:
        return _by_function(task_name, once.key)
    return _by_arguments(task_name, once.keys)


def _by_arguments(task_name: str, keys: Sequence[str] | None) -> Render:
    chosen = None if keys is None else frozenset(keys)
    head = _head(task_name)

    def render(bound: Bound) -> str:
        parts = []
        for name, value in bound.items():
            if chosen is None or name in chosen:
                scalar = SCALARS.get(type(value))
                text = scalar(value) if scalar else _text(task_name, name, value)
                parts.append(f"{name if name.isidentifier() else quote(name)}={text}")
        return _short(f"{task_name}({','.join(parts)})", head)

    return render


def _by_template(task_name: str, key: str) -> Render:
    template = parse_template(key)
    head = _head(template.head)

    def render(bound: Bound) -> str:
        text = ""
        for literal, name in template.parts:
            text += literal
            if name is not None:
                text += _gap(task_name, bound, name)
        if not text:
            raise KeyNotComputable(
                task_name, "", "", f"the template {key!r} gave an empty text"
            )
        return _short(text, head)

    return render


def _gap(task_name: str, bound: Bound, name: str) -> str:
    if name not in bound:
        reason = "the key's template needs it, and the call does not have it"
        raise KeyNotComputable(task_name, name, "", reason)
    value = bound[name]
    return value if type(value) is str else _plain_text(_text(task_name, name, value), value)


def _plain_text(text: str, value: object) -> str:
    """Take the quotes off a str subclass's text: strings stand in a template as they are."""
    return str.__str__(value) if isinstance(value, str) else text


def _by_function(task_name: str, function: Callable[..., str]) -> Render:
    accepted = _accepted(function)

    def render(bound: Bound) -> str:
        chosen = {n: v for n, v in bound.items() if accepted is None or n in accepted}
        try:
            text = function(**chosen)
        except Exception as error:
            reason = f"the function of key failed: {error!r}"
            raise KeyNotComputable(task_name, "", "", reason) from error
        if not isinstance(text, str) or not text:
            reason = f"the function of key must return a text that is not empty, got {text!r}"
            raise KeyNotComputable(task_name, "", "", reason)
        return _short(text, _head(text))

    return render


def _accepted(function: Callable[..., str]) -> frozenset[str] | None:
    """Return the names that *function* takes, or None if it takes any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins don't tell
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters)


def _text(task_name: str, name: str, value: object) -> str:
    try:
        return canonical(value)
    except NoCanonicalText as error:
        raise KeyNotComputable(task_name, name, error.value_type, error.reason) from error


def _head(text: str) -> str:
    return _ODD.sub("_", text)[:_LONGEST_HEAD]


def _short(text: str, head: str) -> str:
    if _PLAIN(text):
        return text
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
    return f"{head}#{digest.hexdigest()}"
