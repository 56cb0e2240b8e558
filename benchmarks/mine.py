"""Mining: ours against FAISS on random vectors, and end to end against FlagEmbedding's way, on the same work.

python benchmarks/mine.py [--passages 1000000] [--queries 2000] [--dimension 384] [--texts 5183] [--repeats 3]

Vectors: what `m3tune mine` does from vectors on (search, exact scores, every filter, the sample, the tables), and
FAISS' exact flat search alone; each in a process of its own, with its peak of memory. Texts: SciFact with
all-MiniLM-L6-v2 from texts to rows, against the steps of FlagEmbedding's mining script reproduced from its description
(encode the corpus and the queries with FlagModel, IndexFlatIP, ranks 3 to 200 without the row's own positives, a random
sample).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from duplicates import in_its_own_process, peak_mib
from m3tune.data.collection import Collection
from m3tune.data.table import Table
from m3tune.types import Judgment, Passage, Query

DEPTH = 100
NEGATIVES = 8


def random_vectors(passages: int, queries: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Passages, and queries near some of them; of length one."""
    generator = np.random.default_rng(0)
    corpus = generator.standard_normal((passages, dimension), dtype=np.float32)
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    asked = corpus[:queries] + generator.standard_normal((queries, dimension), dtype=np.float32) / dimension**0.5
    return corpus, asked / np.linalg.norm(asked, axis=1, keepdims=True)


def ours_on_vectors(passages: int, queries: int, dimension: int) -> None:
    from m3tune.config import MineConfig, ModelConfig
    from m3tune.data.known import known_relevant
    from m3tune.data.similar import Similar
    from m3tune.negatives.ground import make_ground
    from m3tune.negatives.miner import Miner, mine_vectors
    from m3tune.negatives.task import Task
    from m3tune.retrieval.vectors import Vectors

    corpus, asked = random_vectors(passages, queries, dimension)
    texts = Table(Passage, (Passage(f"p{n}", f"passage {n}") for n in range(passages)))
    questions = {f"q{n}": Query(f"q{n}", f"question {n}") for n in range(queries)}
    judgments = tuple(Judgment(f"q{n}", f"p{n}") for n in range(queries))
    collection = Collection(questions, texts, judgments)
    config = MineConfig(negatives_per_query=NEGATIVES)
    start = time.perf_counter()
    ground = make_ground(collection, known_relevant(collection, Similar()), list(questions), None)
    task = Task(config, ModelConfig(path="-"), collection, Similar(), list(questions), "")
    with tempfile.TemporaryDirectory() as folder:
        miner = Miner(Vectors(asked), Vectors(corpus), "dense", {})
        counts = mine_vectors(Path(folder), task, ground, miner, (), Path(folder) / "cache")
    report("m3tune, all of mining", time.perf_counter() - start, queries)
    print(f"    {counts}", flush=True)


def faiss_on_vectors(passages: int, queries: int, dimension: int) -> None:
    import faiss

    corpus, asked = random_vectors(passages, queries, dimension)
    start = time.perf_counter()
    index = faiss.IndexFlatIP(dimension)
    index.add(corpus)
    index.search(asked, DEPTH)
    report("FAISS flat, search alone", time.perf_counter() - start, queries)


def report(name: str, seconds: float, queries: int) -> None:
    print(f"  {name:28} {seconds:8.1f} s  {queries / seconds:8.1f} queries/s  peak {peak_mib():6.0f} MiB", flush=True)


def ours_on_texts(size: int) -> None:
    from m3tune.mining import mine_data
    from m3tune.recipe import build_recipe
    from m3tune.starter import DEMO

    with tempfile.TemporaryDirectory() as folder:
        data = written(size, Path(folder))
        tables = {
            "output": f"{folder}/mined", "data": {"path": str(data)}, "model": {"path": DEMO["model.path"]},
            "mine": {"negatives_per_query": NEGATIVES},
        }  # fmt: skip
        start = time.perf_counter()
        mine_data(build_recipe(tables), "all", lambda _: None)
        report("m3tune, texts to rows", time.perf_counter() - start, len(json.loads(data.read_text())["queries"]))


def flag_on_texts(size: int) -> None:
    import faiss

    from encode import flag_embedding

    with tempfile.TemporaryDirectory() as folder:
        data = json.loads(written(size, Path(folder)).read_text())
        start = time.perf_counter()
        model, texts = flag_embedding(), list(data["corpus"].values())
        corpus = np.asarray(model.encode(texts), dtype=np.float32)
        index = faiss.IndexFlatIP(corpus.shape[1])
        index.add(corpus)
        queries = np.asarray(model.encode_queries(list(data["queries"].values())), dtype=np.float32)
        _, found = index.search(queries, min(200, len(texts)))
        generator, rows = random.Random(0), []
        for (query_id, query), ranked in zip(data["queries"].items(), found, strict=True):
            positives = {data["corpus"][passage_id] for passage_id in data["relevant_docs"][query_id]}
            left = [texts[row] for row in ranked[2:] if texts[row] not in positives and texts[row] != query]
            negatives = generator.sample(left, min(NEGATIVES, len(left)))
            rows.append({"query": query, "pos": list(positives), "neg": negatives})
        (Path(folder) / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        report("FlagEmbedding's steps", time.perf_counter() - start, len(rows))


def written(size: int, folder: Path) -> Path:
    """SciFact's first passages and the queries about them as LlamaIndex JSON, which both can take."""
    from peers import scifact

    collection = scifact()
    corpus = {p.id: p.full_text for p in list(collection.passages.values())[:size]}
    relevant = {q: [p for p in passages if p in corpus] for q, passages in collection.positives.items()}
    relevant = {query_id: passages for query_id, passages in relevant.items() if passages}
    queries = {query_id: collection.queries[query_id].text for query_id in relevant}
    file = folder / "data.json"
    file.write_text(json.dumps({"queries": queries, "corpus": corpus, "relevant_docs": relevant}))
    return file


def machine() -> None:
    from peers import print_machine

    print_machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--texts", type=int, default=5183)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    in_its_own_process(machine)
    for _ in range(arguments.repeats):
        print(f"{arguments.passages:,} vectors, {arguments.queries:,} queries", flush=True)
        for contestant in (ours_on_vectors, faiss_on_vectors):
            in_its_own_process(contestant, arguments.passages, arguments.queries, arguments.dimension)
        print(f"{arguments.texts:,} texts", flush=True)
        for on_texts in (ours_on_texts, flag_on_texts):
            in_its_own_process(on_texts, arguments.texts)


if __name__ == "__main__":
    main()
