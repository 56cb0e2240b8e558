"""How much of a query stands word for word in a passage."""

from __future__ import annotations

import re
import unicodedata

_LEAST_LETTERS = 12  # a shorter query, such as a name, stands in its answer for good reason
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")  # kana, Han, Hangul
_NOT_WORD = re.compile(r"[\W_]+")


def copied_share(query: str, passage: str) -> float:
    """The share of the query's n-grams that the passage has, 1 where it holds the query whole; 0 for short queries.

    n-grams are of 3 words; of 4 characters where the query is mostly Chinese, Japanese or Korean, and there short is
    under 6 characters. Case, punctuation and white space do not count.

    >>> copied_share("Who wrote the book on whales?", "… who wrote the book on whales is unknown.")
    1.0
    """
    query, passage = _plain(query), _plain(passage)
    dense = 2 * len(_DENSE.findall(query)) > len(query)
    letters = query.replace(" ", "")
    if len(letters) < (_LEAST_LETTERS // 2 if dense else _LEAST_LETTERS):
        return 0.0
    if dense:
        return _contained(letters, passage.replace(" ", ""), 4)
    words = query.split(" ")
    if len(words) < 3:
        return 0.0
    if f" {query} " in f" {passage} ":
        return 1.0
    grams = [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]
    return sum(f" {gram} " in f" {passage} " for gram in grams) / len(grams)


def _contained(query: str, passage: str, size: int) -> float:
    if query in passage:
        return 1.0
    grams = [query[i : i + size] for i in range(len(query) - size + 1)]
    return sum(gram in passage for gram in grams) / len(grams)


def _plain(text: str) -> str:
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
