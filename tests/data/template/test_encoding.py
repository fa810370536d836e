"""Rendered text to ids: what the data spells is text, what the template writes is a token."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer

import tiny
from sft.data.template.encoding import MARK_END, MARK_START, Encoded, TextEncoder
from sft.errors import DataError

END = "<|im_end|>"
END_ID, STOP_ID = 4, 2


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(tiny.tokenizer())


def marked(text):
    return f"{MARK_START}{text}{MARK_END}"


def test_ids_and_offsets_are_the_tokenizers(encoder):
    assert encoder.encode(f"Hi é{END}\n") == Encoded(
        text=f"Hi é{END}\n",
        ids=[44, 77, 225, 132, 107, END_ID, 203],
        offsets=[(0, 1), (1, 2), (2, 3), (3, 4), (3, 4), (4, 14), (14, 15)],
    )


def test_special_ids(encoder):
    assert encoder.special_ids == dict(enumerate(tiny.SPECIALS))


def test_text_without_special_tokens_is_left_as_it_is(encoder):
    value = {"role": "user", "content": "a <b> < /s>", "n": 3, "list": ["x", None, True]}
    assert not encoder.has_special_text(value)
    assert encoder.mark(value) == value


def test_marks_are_put_around_every_special_string_at_any_depth(encoder):
    value = [{"a": (f"x{END}", {f"{END}</s>": 1})}, END]
    assert encoder.has_special_text(value)
    assert encoder.mark(value) == [
        {"a": [f"x{marked(END)}", {f"{marked(END)}{marked('</s>')}": 1}]},
        marked(END),
    ]
    for part in ({END: 1}, {"a": END}, [[END]], ({"a": [END]},), END):
        assert encoder.has_special_text(part)


@pytest.mark.parametrize("mark", [MARK_START, MARK_END])
def test_marks_in_the_data_are_seen_and_refused(mark, encoder):
    for value in (mark, [mark], {"a": f"b{mark}c"}, {mark: 1}, f"{END}{mark}"):
        assert encoder.has_special_text(value)
        with pytest.raises(DataError, match=r"private-use characters U\+E0F0 or U\+E0F1"):
            encoder.mark(value)


def test_marked_is_text_and_unmarked_is_a_token(encoder):
    both = encoder.encode(f"{marked(END)}{END}{marked('</s>')}")
    assert both.text == f"{END}{END}</s>"
    assert [i for i in both.ids if i in encoder.special_ids] == [END_ID]
    assert both.offsets[both.ids.index(END_ID)] == (10, 20)
    assert encoder._tokenizer.decode(both.ids) == both.text
    # The text is one piece, as it would be if it were not cut by marks.
    joined = encoder.encode(f"a {marked(END)} b").ids
    assert joined == encoder._tokenizer.encode(f"a {END} b", split_special_tokens=True)


def test_a_longer_special_token_is_not_taken_for_a_shorter_one(encoder):
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [f"{END}{END}"]})
    longer = TextEncoder(tokenizer)
    (double,) = set(longer.special_ids) - set(encoder.special_ids)
    assert longer.encode(f"{END}{END}{marked('<s>')}").ids[0] == double
    assert longer.mark(f"{END}{END}") == marked(f"{END}{END}")


def test_added_tokens_that_are_not_special_stay_tokens():
    """`<think>` and the like are what a model writes, and part of its answers."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<think>"])
    thinker = TextEncoder(tokenizer)
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert think not in thinker.special_ids and not thinker.has_special_text("<think>")
    assert thinker.encode(f"<think>{marked(END)}<think>").ids.count(think) == 2


def test_half_a_mark_marks_nothing(encoder):
    """A template may cut a marked string; tokens it writes after the cut stay tokens."""
    for cut in (f"a{MARK_START}{END}b", f"a{END}{MARK_END}b", f"a{MARK_START}\n{END}\n{MARK_END}b"):
        encoded = encoder.encode(cut)
        assert MARK_START not in encoded.text and MARK_END not in encoded.text
        assert encoded.ids.count(END_ID) == 1
    both = encoder.encode(f"{MARK_START}{END}{marked(END)}")
    assert both.text == END * 2 and both.ids.count(END_ID) == 1


def test_in_pieces_is_the_same_where_nothing_is_marked(encoder):
    for text in ("", "Hi", END, f"<s>{END}\n\n{END}</s>", f"  the fox{END}  é🎉 \n"):
        assert encoder.encode_in_pieces(text) == encoder.encode(text)


def test_the_encoding_of_text_never_holds_a_special_token(encoder):
    """A model that knows whole words knows special tokens, and finds them in text."""
    spec = tiny.tokenizer().backend_tokenizer.to_str()
    spec = spec.replace('"ignore_merges":false', '"ignore_merges":true')
    backend = Tokenizer.from_str(spec)
    backend.pre_tokenizer = None
    wordy = TextEncoder(type(tiny.tokenizer())(tokenizer_object=backend, eos_token="</s>"))
    assert wordy.encode(f"Hi{END}").ids[-1] == END_ID
    with pytest.raises(DataError, match="holds '</s>', which this tokenizer cannot encode as text"):
        wordy.encode(f"Hi{END}{marked('</s>')}{END}")


def test_a_tokenizer_without_offsets_is_refused():
    with pytest.raises(
        DataError, match=r"ByT5Tokenizer gives no character offsets.*tokenizer.json"
    ):
        TextEncoder(ByT5Tokenizer())


def test_a_tokenizer_without_special_tokens():
    spec = json.loads(tiny.tokenizer().backend_tokenizer.to_str()) | {"added_tokens": []}
    backend = Tokenizer.from_str(json.dumps(spec))
    plain = TextEncoder(type(tiny.tokenizer())(tokenizer_object=backend))
    assert plain.special_ids == {}
    assert not plain.has_special_text(f"{END}</s>")
    assert plain.mark(END) == END
    assert plain._tokenizer.decode(plain.encode_in_pieces(END).ids) == END
