from __future__ import annotations

import datetime
import json

import pytest
import tokenizers as engine
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from curated_transformers.tokenizers import Tokenizer

USER = [{"role": "user", "content": "hi"}]


def make(template, **config):
    words = engine.Tokenizer(WordLevel({"<s>": 0, "hi": 1, "<unk>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.add_special_tokens(["<s>"])
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    config = {"bos_token": "<s>", "chat_template": template, **config}
    return Tokenizer(tokenizer=words, config=config, special_tokens_map=None)


def render(template, messages=USER, **variables):
    return make(template).apply_chat_template(messages, **variables)


def test_template_sees_messages_special_pieces_and_variables():
    template = (
        "{{ bos_token }}{% for m in messages %}\n"
        "    {% if true %}\n"
        "{{ m.role }}: {{ m['content'] }}\n"
        "    {% endif %}\n"
        "{% endfor %}\n"
        "{% if add_generation_prompt %}{{ name }}{{ eos_token }}:{% endif %}"
    )
    assert render(template, name="bot") == "<s>user: hi\nbot:"
    assert render(template, add_generation_prompt=False) == "<s>user: hi\n"


def test_functions_that_templates_rely_on():
    assert render("{{ messages[0] | tojson }}") == '{"role": "user", "content": "hi"}'
    assert render("{{ x | tojson(indent=1) }}", x={"é": "<'>"}) == '{\n "é": "<\'>"\n}'
    assert render("{{ strftime_now('%Y') }}") in {
        str(datetime.datetime.now().year),
        str(datetime.datetime.now().year - 1),
    }
    assert (
        render("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}")
        == "1"
    )
    assert render("a{% generation %}{{ messages[0].content }}{% endgeneration %}b") == "ahib"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ nothing.attribute }}",
        "{% if %}",
        "{{ 'a' + 1 }}",
        "{{ 1 / 0 }}",
        "{% for i in range(1000000) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__ }}",
    ],
)
def test_failing_and_hostile_templates_are_a_value_error(template):
    with pytest.raises(ValueError, match="The chat template failed"):
        render(template)


@pytest.mark.parametrize("messages", ["hi", {"role": "user"}, ["hi"], [{"content": "hi"}]])
def test_messages_that_are_none_are_refused(messages):
    with pytest.raises(ValueError, match="message"):
        render("x", messages)


def test_conversation_is_not_changed():
    messages = [{"role": "user", "content": "hi"}]
    before = json.dumps(messages)
    render("{% set m = messages + [1] %}{{ m | length }}", messages)
    assert json.dumps(messages) == before


def test_named_templates():
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    tokenizer = make(named)
    assert tokenizer.chat_template == "d"
    assert tokenizer.apply_chat_template(USER) == "d"
    assert tokenizer.apply_chat_template(USER, tools=[{}]) == "t"
    assert tokenizer.apply_chat_template(USER, chat_template="tool_use") == "t"
    assert tokenizer.apply_chat_template(USER, chat_template="{{ 1 + 1 }}") == "2"
    with pytest.raises(ValueError, match="No chat template `rag`"):
        tokenizer.apply_chat_template(USER, chat_template="rag")


def test_tokenizer_without_template():
    tokenizer = make(None)
    assert tokenizer.chat_template is None
    with pytest.raises(ValueError, match="no default chat template"):
        tokenizer.apply_chat_template(USER)


@pytest.mark.parametrize("template", [3, [3], [{"name": "x"}], {"a": "b"}])
def test_broken_templates_in_the_config_are_refused(template):
    with pytest.raises(ValueError, match="`chat_template` must be"):
        make(template)


def test_encoding_a_chat_adds_no_second_begin_piece():
    tokenizer = make("{{ bos_token }}{{ messages[0].content }}")
    assert tokenizer.encode_chat(USER).ids == [[0, 1]]
    assert tokenizer.encode_chat(USER).pieces == [["<s>", "hi"]]


@pytest.mark.parametrize(
    ("content", "template", "expected"),
    [
        ("so far", "[{{ m.content }}]", "[hi][so far"),
        ("hi", "[{{ m.content }}]", "[hi][hi"),
        (" so far ", "[{{ m.content }}]", "[hi][ so far "),
        (" so far ", "[{{ m.content | trim }}]", "[hi][so far"),
        ("so far ", "[{{ m.content | trim }}] ", "[hi] [so far"),
    ],
)
def test_the_last_message_is_continued(content, template, expected):
    messages = [*USER, {"role": "assistant", "content": content}]
    whole = "{% for m in messages %}" + template + "{% endfor %}"
    whole += "{% if add_generation_prompt %}>{% endif %}"
    assert render(whole, messages, continue_last_message=True) == expected
    assert make(whole).encode_chat(messages, continue_last_message=True).ids[0]


@pytest.mark.parametrize(
    ("last", "template"),
    [
        ({"role": "assistant"}, "x"),
        ({"role": "assistant", "content": " "}, "x"),
        ({"role": "assistant", "content": [{"text": "x"}]}, "x"),
        ({"role": "assistant", "content": "yes"}, "{{ messages[-1].content | upper }}"),
    ],
)
def test_a_last_message_that_cannot_be_continued(last, template):
    with pytest.raises(ValueError, match="last message"):
        render(template, [*USER, last], continue_last_message=True)


@pytest.mark.parametrize("messages", ["hi", b"hi", USER[0], 5, None, iter(USER), {"a"}])
def test_what_is_no_list_of_messages_is_refused(messages):
    tokenizer = make("{{ messages[0].content }}")
    kind = type(messages).__name__
    with pytest.raises(ValueError, match=f"A conversation is a list of messages, got a {kind}"):
        tokenizer.encode_chat(messages)
