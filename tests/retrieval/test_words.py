"""Lexical weights as words."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from m3tune.retrieval.words import lexical_words, shared_words, speller
from m3tune.vectors import Sparse
from tiny import tiny_tokenizer

SENTENCE_PIECE = ["▁retriev", "al", "▁", "检索", "▁模型", "ing"]
WORD_PIECE = ["retriev", "##al", "##索", "检"]
BYTE_LEVEL = ["Ġretriev", "al", "ing"]


def tokenizer(pieces, decoder=None):
    model = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=pieces[0]))
    if decoder:
        model.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=model)


@pytest.mark.parametrize(
    ("pieces", "decoder", "words"),
    [
        (SENTENCE_PIECE, None, ["retriev", "…al", "(space)", "检索", "模型", "…ing"]),
        (WORD_PIECE, None, ["retriev", "…al", "索", "检"]),
        (BYTE_LEVEL, decoders.ByteLevel(), ["retriev", "…al", "…ing"]),
    ],
)
def test_pieces_are_readable_and_those_inside_a_word_marked(pieces, decoder, words):
    spell = speller(tokenizer(pieces, decoder))
    assert [spell(i) for i in range(len(pieces))] == words


def test_words_by_weight_and_what_two_texts_share():
    spell = speller(tiny_tokenizer())
    ids = tiny_tokenizer().convert_tokens_to_ids(["c01", "r02", "r03", "c01", "r03"])
    sparse = Sparse(torch.tensor(ids), torch.tensor([0.1, 0.5, 0.0, 2.0, 3.0]), torch.tensor([0, 3, 5]))
    assert [(w.word, round(w.weight, 3)) for w in lexical_words(sparse, 0, spell)] == [("r02", 0.5), ("c01", 0.1)]
    (shared,) = shared_words(sparse, 0, sparse, 1, spell)
    assert (shared.word, round(shared.product, 6)) == ("c01", 0.2)
