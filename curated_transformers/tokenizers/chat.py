"""Chat templates: Jinja programs that come with a model and write a conversation as its prompt.

They are downloaded code, so they run in Jinja's sandbox. The functions and options are those that
templates are written for (https://huggingface.co/docs/transformers/chat_templating).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jinja2 import Environment, Template

Message = Mapping[str, Any]


def render_chat(template: str, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
    """The prompt that a template writes for one conversation.

    ``messages`` are mappings with ``role`` and mostly ``content``, oldest first. Raises
    ``ValueError`` for messages that are none, for a broken template, and when the template refuses
    the conversation.
    """
    check_messages(messages)
    try:
        return _compiled(template).render(messages=list(messages), **variables)
    except Exception as error:  # a template is a program, which may fail as any other
        raise ValueError(f"The chat template failed: {error}") from error


def cut_behind_last_message(prompt: str, messages: Sequence[Message]) -> str:
    """The prompt up to the end of the last message, for the model to go on there.

    Templates may remove spaces around a message. Raises ``ValueError`` when the message is not text
    that stands in the prompt.
    """
    content = messages[-1].get("content") if messages else None
    if not isinstance(content, str) or not content.strip():
        raise ValueError("There is no last message with text that could be continued")
    bare = content.strip()
    begin = prompt.rfind(bare)
    if begin < 0:
        raise ValueError("The chat template does not write the last message as it is")
    kept = content.lstrip()
    return prompt[: begin + len(kept if prompt.startswith(kept, begin) else bare)]


def check_messages(messages: Sequence[Message]) -> None:
    """Raises ``ValueError`` unless ``messages`` is a list of mappings with a ``role``."""
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise ValueError(
            f"A conversation is a list of messages, got a {type(messages).__name__}; "
            'write [{"role": "user", "content": "..."}]'
        )
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message:
            raise ValueError(f"A message is a mapping with `role` and `content`, got {message!r}")


def named_templates(value: Any, source: str) -> dict[str, str]:
    """``chat_template`` of tokenizer_config.json as templates by name.

    The value is one template, which gets the name ``default``, or a list of objects with ``name``
    and ``template``. Raises ``ValueError`` for anything else.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    entries: Iterable[Any] = value if isinstance(value, list) else [value]
    templates = {}
    for entry in entries:
        name, template = (entry.get(key) if isinstance(entry, dict) else None for key in _ENTRY)
        if not isinstance(name, str) or not isinstance(template, str):
            raise ValueError(
                f"{source}: `chat_template` must be a string or a list of named templates"
            )
        templates[name] = template
    return templates


_ENTRY = ("name", "template")


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what the model wrote, for training; here it changes
        nothing."""

        tags = {"generation"}  # noqa: RUF012 (Jinja reads it from the class)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which prompts must not be.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.datetime.now().strftime(layout)
