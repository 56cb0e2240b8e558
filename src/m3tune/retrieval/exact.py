"""Exact search: every query against every passage by one head, in float32, block by block.

Q queries, P passages, K results; q and p of a block

Passages are read once, a block of them at a time, so that a corpus on disk may be larger than memory, and than the
device that computes the scores. In memory are the queries and the best K of each so far. Where bfloat16 is faster,
dense scores are computed for those passages alone that a screen in bfloat16 lets through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from m3tune.errors import DoesNotFitError
from m3tune.fitting import in_stretches
from m3tune.retrieval.room import Room
from m3tune.retrieval.screen import Rounded, in_bfloat16, pays, scores_of_pairs, screened
from m3tune.retrieval.vectors import Vectors
from m3tune.scoring import dense_scores, multi_scores
from m3tune.types import Head
from m3tune.vectors import Embeddings, Sparse, on_device, owners

CPU = torch.device("cpu")
_BLOCK_QUERIES = 1024  # of 256 to 2,000 queries by 8,192 to 65,536 passages the fastest on a CPU (docs/log.md)
_BLOCK_PASSAGES = 32_768
_BLOCK_TOKENS = 65_536  # of passages whose multi-vectors are loaded at once: 256 MiB at 1024 dimensions


class Ranked(NamedTuple):
    """Passage rows of one query, best first, and their scores."""

    rows: np.ndarray  # (K,) int64
    scores: np.ndarray  # (K,) float32


ScoreBlock = Callable[[Embeddings, Embeddings, Room | None], Tensor]
"""The scores (q, p) of some queries and some passages; dense ones in the room, where one is given."""


def rank(queries: Vectors, passages: Vectors, head: Head, depth: int, device: torch.device = CPU) -> list[Ranked]:
    """The best `depth` passages of each query by one head; equal scores in the order of the passages.

    Scores are computed on the device where it is a CUDA one, but sparse ones always on the CPU. A passage that shares
    no weighted token with the query is no result of the sparse head, as in BM25, so a ranking may be shorter than
    `depth`.
    """
    if not len(passages):
        return [Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(queries)
    on = device if device.type == "cuda" and head != "sparse" else CPU
    ranked = []
    for scores, rows in _top(queries, passages, head, min(depth, len(passages)), on):
        found = scores > 0 if head == "sparse" else np.ones_like(scores, dtype=bool)
        ranked += [Ranked(r[kept], s[kept]) for r, s, kept in zip(rows, scores, found, strict=True)]
    return ranked


def all_scores(queries: Vectors, passages: Vectors, head: Head) -> Tensor:
    """(Q, P) float32: for corpora so small that every score is kept."""
    columns: list[Tensor] = []

    def score(_: int, block: Embeddings) -> None:
        columns.append(torch.cat([SCORES[head](some, block, None) for some in _query_blocks(queries, head)]))

    _by_stretches(passages, head, score)
    return torch.cat(columns, dim=1) if columns else torch.zeros(len(queries), 0)


def sparse_products(queries: Sparse, passages: Sparse) -> Tensor:
    """The scores of `scoring.sparse_scores`, (Q, P), by SciPy's product of sparse matrices.

    Work goes with the entries that queries and passages share, as with an inverted index: only ids that occur in the
    queries have a column. For search alone, there is no gradient.
    """
    known, columns = queries.token_ids.unique(return_inverse=True)
    if not len(known) or not len(passages.token_ids):
        return torch.zeros(len(queries.offsets) - 1, len(passages.offsets) - 1)
    found = torch.searchsorted(known, passages.token_ids).clamp_max(len(known) - 1)
    shared = (known[found] == passages.token_ids) & (passages.weights > 0)
    shape = (len(passages.offsets) - 1, len(known))
    of_passage = owners(passages.offsets)[shared].numpy()
    postings = csr_array((passages.weights[shared].numpy(), (of_passage, found[shared].numpy())), shape=shape)
    of_query = csr_array(
        (queries.weights.numpy(), columns.numpy(), queries.offsets.numpy()),
        shape=(len(queries.offsets) - 1, len(known)),
    )
    return torch.from_numpy((of_query @ postings.T).toarray())


def _dense(queries: Tensor, passages: Tensor, room: Room | None) -> Tensor:
    """`scoring.dense_scores`, in the room where there is one."""
    if room is None:
        return dense_scores(queries, passages)
    return torch.mm(queries, passages.T, out=room.of(len(queries), len(passages)))


SCORES: dict[Head, ScoreBlock] = {
    "dense": lambda queries, passages, room: _dense(queries.dense, passages.dense, room),  # type: ignore[arg-type]
    "sparse": lambda queries, passages, _: sparse_products(queries.sparse, passages.sparse),  # type: ignore[arg-type]
    "multi": lambda queries, passages, _: multi_scores(queries.multi, passages.multi),  # type: ignore[arg-type]
}
"""How search scores a block by each head."""


def _top(
    queries: Vectors, passages: Vectors, head: Head, k: int, device: torch.device
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The best k of all blocks of passages for each block of queries: (q, K) scores and (q, K) rows, best first."""
    best: dict[int, tuple[Tensor, Tensor]] = {}
    room = Room(device)
    screens = head == "dense" and pays(min(len(passages), _BLOCK_PASSAGES), k, device)

    def merge(start: int, block: Embeddings) -> None:
        here, merged = on_device(block, device), {}
        screen = in_bfloat16(here.dense, room) if screens else None  # type: ignore[arg-type]
        for number, query_block in enumerate(_query_blocks(queries, head)):
            before, some = best.get(number), on_device(query_block, device)
            if screen is None:
                scores, columns = _best_of_block(SCORES[head](some, here, room), k)
            else:
                scores, columns = _screened(some.dense, screen, k, before, room)  # type: ignore[arg-type]
            merged[number] = _merged(before, scores.cpu(), columns.cpu() + start, k)
        best.update(merged)  # all at once: a stretch may run out of memory half-way and come again

    _by_stretches(passages, head, merge)
    return [(scores.numpy(), rows.numpy()) for scores, rows in best.values()]


def _screened(
    queries: Tensor, passages: Rounded, k: int, best: tuple[Tensor, Tensor] | None, room: Room
) -> tuple[Tensor, Tensor]:
    """The dense scores and columns, (q, m) each, of all that may be among the best k of a block and of those before."""
    least = best[0][:, k - 1] if best is not None and best[0].shape[1] >= k else None
    found = screened(in_bfloat16(queries, room), passages, k, least, room)
    if found is None:
        _, columns = _best_of_block(_dense(queries, passages.exact, room), k)
        rows = torch.arange(len(queries)).repeat_interleave(columns.shape[1])
        found = scores_of_pairs(queries, passages.exact, rows, columns.flatten()).view_as(columns), columns
    return found


def _best_of_block(found: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best `k` of each row, (q, K) scores and columns; of equal scores at the last place the first columns."""
    k = min(k, found.shape[1])
    scores, columns = found.topk(min(k + 1, found.shape[1]), dim=1)
    # topk takes any of the columns that tie with the last place. One column more tells where there are others.
    tied = (scores[:, k - 1] == scores[:, -1]).nonzero().flatten().tolist() if scores.shape[1] > k else []
    scores, columns = scores[:, :k], columns[:, :k]
    for row in tied:
        above = (found[row] > scores[row, -1]).nonzero().flatten()
        equal = (found[row] == scores[row, -1]).nonzero().flatten()
        columns[row] = torch.cat([above, equal[: k - len(above)]])
        scores[row] = found[row, columns[row]]
    return scores, columns


def _merged(best: tuple[Tensor, Tensor] | None, scores: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best k of those before and those of a block, (q, K) scores and rows, best first, equal ones by row."""
    if best is not None:
        scores, rows = torch.cat([best[0], scores], dim=1), torch.cat([best[1], rows], dim=1)
    by_row = rows.argsort(dim=1)
    scores, rows = scores.gather(1, by_row), rows.gather(1, by_row)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return scores.gather(1, order), rows.gather(1, order)


def _query_blocks(queries: Vectors, head: Head) -> Iterator[Embeddings]:
    for start in range(0, len(queries), _BLOCK_QUERIES):
        yield queries.load(slice(start, start + _BLOCK_QUERIES), (head,))


def _by_stretches(passages: Vectors, head: Head, of_block: Callable[[int, Embeddings], object]) -> None:
    """Call `of_block(first row, passages)` for stretches that fit in memory, whatever the corpus."""
    sizes, most, unit = np.ones(len(passages), np.int64), _BLOCK_PASSAGES, "passages"
    if head == "multi" and passages.multi is not None:
        sizes, most, unit = np.maximum(passages.multi.spans.lengths, 1), _BLOCK_TOKENS, "tokens"

    def work(first: int, last: int) -> None:
        of_block(first, passages.load(slice(first, last), (head,)))

    in_stretches(sizes, most, work, f"{unit} (search by the {head} head)", no_room)


def no_room(_: int) -> DoesNotFitError:
    """What to say where memory does not hold the scores of one text."""
    return DoesNotFitError(
        "out of memory in a search, for a single text's scores", fix="free memory, or search from a device with more"
    )
