"""Tokenizers of transformers' kind, built from the vocabularies in the makers' packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import regex
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.tokenization_utils_base import generate_merges

from golden.families import FAMILIES, template_text


def from_ranks(
    name: str, ranks: Mapping[bytes, int], pattern: str, specials: Mapping[str, int], text: str
) -> Any:
    """Byte-level BPE that merges as tiktoken does: two neighbours whenever they make a token.

    `ranks` gives the id of each token, which is also its order; `specials` their ids. Tokens that
    are in no word of `text` are left out: no merge in it could make them, and all take a minute.
    """
    letters = bytes_to_unicode()
    words = "\0".join(set(regex.findall(pattern, text))).encode()
    vocab = {
        "".join(letters[byte] for byte in token): rank
        for token, rank in ranks.items()
        if len(token) == 1 or token in words
    }
    merges = generate_merges(vocab)
    bpe = Tokenizer(models.BPE(vocab | dict(specials), merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    bpe.decoder = decoders.ByteLevel()
    return _finished(name, bpe, specials)


def from_sentencepiece(name: str, file: Path, text: str) -> Any:
    """BPE over pieces, those in `text`; templates write the space that is added before a text."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    lines = "\0".join(set(text.split("\n"))).replace(" ", "▁")
    pieces = [(model.id_to_piece(i), i) for i in range(model.get_piece_size())]
    fixed = {i for _, i in pieces if model.is_byte(i) or model.is_control(i) or model.is_unknown(i)}
    vocab = {piece: i for piece, i in pieces if i in fixed or len(piece) == 1 or piece in lines}
    specials = {piece: i for piece, i in pieces if model.is_control(i)}
    scores = {piece: model.get_score(i) for piece, i in vocab.items() if i not in fixed}
    merges = generate_merges(vocab, scores)
    bpe = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _finished(name, bpe, specials)


def _finished(name: str, bpe: Tokenizer, specials: Mapping[str, int]) -> Any:
    in_order = sorted(specials, key=specials.__getitem__)
    bpe.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in in_order]
    )
    assert {token: bpe.token_to_id(token) for token in specials} == dict(specials)
    family = FAMILIES[name]
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=family.bos, eos_token=family.eos)
    fast.chat_template = template_text(name)
    return fast
