"""BM25: the baseline without a model, and the part of a corpus that words alone find."""

from __future__ import annotations

import re
from collections.abc import Sequence

import bm25s
import numpy as np
from numpy.typing import NDArray

from m3tune.data.collection import Collection
from m3tune.types import Hit, Run

# Han (with 々〆〇), Hiragana, Katakana and Hangul, as Lucene's CJKBigramFilter takes them.
CJK = (
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
)
_CJK_STRETCH = re.compile(f"[{CJK}]+")
# bm25s' own pattern drops words of one letter; a CJK character that stands alone is a word.
_TOKEN_PATTERN = rf"(?u)\b\w\w+\b|[{CJK}]"


def bm25_run(collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
    """The `depth` best passages of each query by BM25 (Lucene's formula, k1 = 1.5, b = 0.75), best first.

    A passage's text is title and text. Equal scores keep the order of the corpus. Passages that share no word with the
    query are no result, so a ranking may be shorter than `depth`, or empty. English stop words are left out.

    Source: Kamphuis et al. 2020, "Which BM25 do you mean?", variant "Lucene (accurate)", as bm25s computes it.
    """
    passage_ids = list(collection.passages)
    corpus = tokenize([passage.full_text for passage in collection.passages.values()])
    queries = tokenize([collection.queries[query_id].text for query_id in query_ids])
    if not any(corpus):
        return {query_id: [] for query_id in query_ids}
    index = bm25s.BM25()
    index.index(_numbered(corpus), create_empty_token=False, show_progress=False)
    run: dict[str, list[Hit]] = {}
    for query_id, tokens in zip(query_ids, queries, strict=True):
        scores = index.get_scores_from_ids(index.get_tokens_ids(tokens))  # (passages,)
        run[query_id] = [Hit(passage_ids[row], float(scores[row])) for row in _best(scores, depth)]
    return run


def tokenize(texts: list[str]) -> list[list[str]]:
    """The words of each text: bm25s' own for scripts with spaces, overlapping pairs of characters for CJK.

    Pairs of characters need no dictionary and find Chinese nearly as well as a word segmenter (Nie et al. 2000).
    """
    return bm25s.tokenize(
        [_CJK_STRETCH.sub(_bigrams, text) for text in texts],
        token_pattern=_TOKEN_PATTERN,
        return_ids=False,
        show_progress=False,
    )


def _bigrams(stretch: re.Match[str]) -> str:
    """A stretch of CJK characters as overlapping pairs between spaces; a single one stays itself."""
    characters = stretch[0]
    pairs = [characters[i : i + 2] for i in range(len(characters) - 1)]
    return f" {' '.join(pairs) or characters} "


def _numbered(texts: list[list[str]]) -> tuple[list[list[int]], dict[str, int]]:
    """Token ids of each text and the vocabulary, numbered in order of appearance.

    Given strings, bm25s numbers them in the order of a set, which changes from process to process.
    """
    vocabulary: dict[str, int] = {}
    ids = [[vocabulary.setdefault(token, len(vocabulary)) for token in tokens] for tokens in texts]
    return ids, vocabulary


def _best(scores: NDArray[np.float32], depth: int) -> NDArray[np.intp]:
    """Rows of the `depth` best positive scores, best first, ties in the order of the rows."""
    threshold = 0.0 if depth >= len(scores) else np.partition(scores, -depth)[-depth]
    # Every row that ties with the last place stays in until the stable sort has settled who gets it.
    rows = np.flatnonzero((scores >= threshold) & (scores > 0))
    return rows[np.argsort(-scores[rows], kind="stable")][:depth]
