"""Tokens are made once for each text, whoever asks, and are what they are without a store."""

import numpy as np
import pytest

from m3tune.data import token_store
from m3tune.data import tokens as tokens_module
from m3tune.data.token_store import TokenStore, tokens_kept
from m3tune.data.tokens import Texts, in_chunks, tokenize
from tiny import tiny_tokenizer

TEXTS = ["r01 r02 c03", "", "c01", "r01 r02 c03", "c02 c03 c04 c05 c06 c07", "zzz", "c01 c02", "c01"]


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def tokenized(monkeypatch):
    """The texts that reach the tokenizer, as the store calls it; three at a time, saved after every five."""
    seen = []

    def spied(texts, tokenizer, max_tokens):
        def note(text):
            seen.append(text)
            return text

        return in_chunks(map(note, texts), tokenizer, max_tokens)

    monkeypatch.setattr(tokens_module, "_CHUNK_TEXTS", 3)
    monkeypatch.setattr(token_store, "_SAVED_TEXTS", 5)
    monkeypatch.setattr(token_store, "in_chunks", spied)
    return seen


def same(first, second):
    assert [text.tolist() for text in first] == [text.tolist() for text in second]
    assert first.lengths.tolist() == second.lengths.tolist()
    assert first.cut.tolist() == second.cut.tolist()
    assert first.num_tokens == second.num_tokens
    for begin, end in ((0, len(first)), (2, 5), (3, 3)):
        assert first.flat(begin, end).tolist() == second.flat(begin, end).tolist()


def test_a_table_is_what_the_tokenizer_says_text_by_text(tokenizer, monkeypatch):
    monkeypatch.setattr(tokens_module, "_CHUNK_TEXTS", 3)
    table = tokenize(TEXTS, tokenizer, 5)
    whole = [tokenizer(text).input_ids for text in TEXTS]
    alone = [tokenizer(text, truncation=True, max_length=5).input_ids for text in TEXTS]
    assert [text.tolist() for text in table] == alone
    assert table.cut.tolist() == [len(ids) > 5 for ids in whole]
    assert (table.num_truncated, table.num_tokens) == (1, sum(map(len, alone)))
    assert table.ids.dtype == np.int32
    assert len(tokenize([], tokenizer, 5)) == 0


def test_the_store_gives_the_same_and_tokenises_each_text_once(tokenizer, tmp_path, tokenized):
    store = TokenStore(tmp_path)
    table = store.table(TEXTS, tokenizer, 5)
    assert isinstance(table.ids, np.memmap)
    same(table, tokenize(TEXTS, tokenizer, 5))
    assert tokenized == list(dict.fromkeys(TEXTS)), "copies once"
    some = ["c01 c02", "r05", "", "c01 c02"]
    same(store.table(some, tokenizer, 5), tokenize(some, tokenizer, 5))
    same(TokenStore(tmp_path).table(TEXTS[::-1], tokenizer, 5), tokenize(TEXTS[::-1], tokenizer, 5))
    assert tokenized == [*dict.fromkeys(TEXTS), "r05"], "only what is new"
    same(table, tokenize(TEXTS, tokenizer, 5))
    same(store.table([], tokenizer, 5), tokenize([], tokenizer, 5))


def test_another_limit_or_tokenizer_is_tokenised_anew(tokenizer, tmp_path, tokenized):
    store = TokenStore(tmp_path)
    for limit in (5, 4, 5, 48):
        same(store.table(TEXTS, tokenizer, limit), tokenize(TEXTS, tokenizer, limit))
    assert len(tokenized) == 3 * len(set(TEXTS))
    other = tiny_tokenizer("xlm-roberta")
    same(store.table(TEXTS, other, 5), tokenize(TEXTS, other, 5))
    assert len(tokenized) == 4 * len(set(TEXTS))
    store.table(TEXTS, tiny_tokenizer(), 5)
    assert len(tokenized) == 4 * len(set(TEXTS)), "an equal tokenizer, loaded again"
    grown = tiny_tokenizer()
    grown.add_tokens(["zzz"])
    same(store.table(TEXTS, grown, 5), tokenize(TEXTS, grown, 5))
    assert len(tokenized) == 5 * len(set(TEXTS)), "one more word"


def interrupted(texts, after):
    """The texts, and from the second time that they are gone through an error after some of them."""
    times = []

    def text_of(number):
        times.append(number)
        if len(times) > len(texts) + after:
            raise KeyboardInterrupt
        return texts[number]

    return Texts(text_of, range(len(texts)))


def test_an_interrupted_attempt_is_gone_on_with(tokenizer, tmp_path, tokenized):
    texts = [f"r{i:02d} c01" for i in range(14)]
    with pytest.raises(KeyboardInterrupt):
        TokenStore(tmp_path).table(interrupted(texts, after=9), tokenizer, 48)
    (ids,) = tmp_path.glob("*/ids.bin")
    assert ids.stat().st_size == 4 * 4 * 8, "two chunks are saved, one was written beyond that"
    tokenized.clear()
    same(TokenStore(tmp_path).table(texts, tokenizer, 48), tokenize(texts, tokenizer, 48))
    assert tokenized == texts[5:], "what was saved is not tokenised again"


def test_texts_that_can_be_had_only_once_are_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="only once"):
        TokenStore(tmp_path).table(iter(TEXTS), tokenizer, 5)


@pytest.mark.parametrize("harm", ["torn id", "lost ids", "short ids", "broken list", "another list"])
def test_files_that_do_not_fit_are_not_believed(tokenizer, tmp_path, harm):
    TokenStore(tmp_path).table(TEXTS, tokenizer, 5)
    ids, texts = next(tmp_path.glob("*/ids.bin")), next(tmp_path.glob("*/texts.npy"))
    if harm == "torn id":
        ids.write_bytes(ids.read_bytes() + b"\x07")
    elif harm == "lost ids":
        ids.unlink()
    elif harm == "short ids":
        ids.write_bytes(ids.read_bytes()[:-4])
    elif harm == "broken list":
        texts.write_bytes(texts.read_bytes()[:-4])
    else:
        np.save(texts, np.arange(4))
    more = [*TEXTS, "c05 c06"]
    same(TokenStore(tmp_path).table(more, tokenizer, 5), tokenize(more, tokenizer, 5))


def test_two_writers_at_once_write_over_nothing(tokenizer, tmp_path, tokenized):
    mine, theirs = [f"r{i:02d} c01" for i in range(14)], [f"c02 r{i:02d} c03" for i in range(7)]
    passed = []

    def text_of(number):
        passed.append(number)
        if len(passed) == len(mine) + 4:  # the first chunk is written
            same(TokenStore(tmp_path).table(theirs, tokenizer, 48), tokenize(theirs, tokenizer, 48))
        return mine[number]

    same(TokenStore(tmp_path).table(Texts(text_of, range(14)), tokenizer, 48), tokenize(mine, tokenizer, 48))
    both = [*theirs, *mine]
    same(TokenStore(tmp_path).table(both, tokenizer, 48), tokenize(both, tokenizer, 48))
    assert set(theirs) <= set(tokenized)


def test_inside_the_block_everything_is_kept_and_at_its_end_gone(tokenizer, tmp_path, tokenized):
    folder = tmp_path / "run" / "tokens"
    with tokens_kept(folder), tokens_kept(tmp_path / "inner"):
        assert isinstance(tokenize(TEXTS, tokenizer, 5).ids, np.memmap)
        tokenize(TEXTS[2:4], tokenizer, 5)
    assert len(tokenized) == len(set(TEXTS))
    assert not folder.exists()
    assert not (tmp_path / "inner").exists()
    assert not isinstance(tokenize(TEXTS, tokenizer, 5).ids, np.memmap)


def test_an_error_keeps_the_tokens_and_nobody_elses_file_is_deleted(tokenizer, tmp_path, tokenized):
    def fail():
        with tokens_kept(tmp_path):
            tokenize(TEXTS, tokenizer, 5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    (tmp_path / "notes.txt").write_text("a person's own")
    with tokens_kept(tmp_path):
        tokenize(TEXTS, tokenizer, 5)
    assert len(tokenized) == len(set(TEXTS))
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
