"""Rows as the model sees them: which tokens are trained, and whether serving sends the same ones.

What is sent is rendered here by `tokenizer.apply_chat_template`, as servers do it, and not by the
code that made the training tokens.
"""

from __future__ import annotations

from typing import Any

from sft.check.report import RowView
from sft.data.rows.conversation import Conversation
from sft.data.template.chat_template import ChatTemplate
from sft.data.template.limits import check_limits
from sft.data.template.pieces import decode, pieces
from sft.data.tokenize import IGNORE_INDEX, Example
from sft.model.load import TokenizerInfo

_NUM_SHOWN = 6  # tokens of each side where training and serving part


def row_view(
    example: Example,
    tokenizer: Any,
    template: ChatTemplate | None = None,
    conversation: Conversation | None = None,
) -> RowView:
    """`example` in pieces; with `template` and `conversation` also compared with serving.

    `conversation` is the row that the example was made of. A piece has the kind of its own
    prediction: `trained` when the model learns to write it. Every special token is a piece.
    """
    serving = None
    if template and conversation and conversation.kind == "chat":
        serving = _serving(example, tokenizer, template, conversation)
    return RowView(
        id=example.id,
        num_tokens=example.num_tokens,
        num_trained=example.num_trained,
        pieces=tuple(pieces(example, tokenizer)),
        serving=serving,
    )


def _serving(
    example: Example, tokenizer: Any, template: ChatTemplate, conversation: Conversation
) -> str:
    """Where the prompt of a trained turn differs from what is sent to get it; else empty."""
    turns = [i for i, message in enumerate(conversation.messages) if message.weight > 0]
    _, hash_sign, number = example.id.removeprefix(str(conversation.origin)).rpartition("#")
    if hash_sign:  # an example of one turn, counted from 1
        turns = [turns[int(number) - 1]]
    differences = [
        (turn, difference)
        for turn in turns
        if (difference := _difference(example, tokenizer, template, conversation, turn))
    ]
    if not differences:
        return ""
    turn, difference = differences[0]
    some = f"{len(differences)} of {len(turns)} trained turns differ; " if len(turns) > 1 else ""
    return f"{some}messages[{turn}]: {difference}"


def _difference(
    example: Example,
    tokenizer: Any,
    template: ChatTemplate,
    conversation: Conversation,
    turn: int,
) -> str:
    before = conversation.as_dicts()[:turn]
    messages, tools = template.as_served(before, conversation.tools)
    given = [dict(tool) for tool in tools] or None
    try:
        # Servers may choose another template for rows with tools, which no one has tried yet.
        text = tokenizer.get_chat_template(tools=given)
        check_limits(text, tokenizer.name_or_path, tokenizer.special_tokens_map)
        sent = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=given,
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
    except Exception as error:  # a template is a program: it can fail in any way
        return f"the chat template refuses to render the prompt that is sent: {error}"
    trained = example.input_ids.tolist()
    pairs = enumerate(zip(trained, sent, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), None)  # None: equal as far as both go
    if at is not None:
        pair = (
            repr(decode(tokenizer, ids[at : at + _NUM_SHOWN])) if ids[at:] else "nothing"
            for ids in (sent, trained)
        )
        text = "token {}: sent {}, trained on {}".format(at, *pair)
        if template.has_special_text(conversation):
            text += (
                ". The row spells a special token, which is trained on as text; `sft chat` sends "
                "it as text too, other servers send the token"
            )
        return text
    if len(sent) < len(trained) and example.labels[len(sent) - 1] == IGNORE_INDEX:
        return f"token {len(sent)}: the first after the prompt that is sent, and it is not trained"
    return ""


def facts_of(
    template: ChatTemplate, tokenizer: TokenizerInfo, folder: str | None = None
) -> dict[str, str]:
    """What is known about the template, as lines of a table.

    `folder` is the model's folder or hub id; without it that of the tokenizer.
    """
    facts = template.facts
    if facts.tools_by == "template":
        tools = "shown by the template"
    else:
        tools = "shown as text in the messages, because the template ignores them"
    markers = "generation markers" if facts.has_generation_markers else "message spans"
    return {
        "chat template": f"{tokenizer.template_source}, sha256 {facts.sha256[:12]}",
        "generation prompt": repr(facts.generation_prompt),
        "stop token": f"{facts.stop_token!r} ({facts.stop_id}), trained at the end of every turn",
        "stops by itself": _stops(facts.stop_id, folder or tokenizer.tokenizer.name_or_path),
        "BOS": f"one, {tokenizer.tokenizer.bos_token!r}, at the start"
        if facts.leading_bos
        else "none",
        "tools": tools,
        "mask methods": f"prefix differences, and {markers}",
    }


def _stops(stop_id: int, folder: str) -> str:
    """Does the model as it is now end its answers where training ends them?"""
    from transformers import GenerationConfig

    try:
        stops = GenerationConfig.from_pretrained(folder).eos_token_id
    except (OSError, ValueError, TypeError):
        return "not measured: the model has no generation_config.json that can be read"
    ids = stops if isinstance(stops, list) else [] if stops is None else [stops]
    if stop_id in ids:
        return f"yes, generation_config.json has {stop_id} among eos_token_id"
    has = ", ".join(map(str, ids)) or "none"
    return (
        f"not yet: eos_token_id in generation_config.json is {has}; the model that a run saves "
        f"has {stop_id} too"
    )
