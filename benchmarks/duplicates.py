"""Near-duplicates: recall for each kind of edit, false pairs, and how time and memory grow with the number of texts.

python benchmarks/duplicates.py [--questions FILE] [--texts 25000 50000 100000 200000]

A pair of a text and its own edited copy is found or missed (recall); any other pair reported is counted as other. Other
pairs among the originals alone are printed, to be judged by eye. FILE is LlamaIndex JSON of a language without blanks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from m3tune.data.duplicates import near_duplicates
from m3tune.data.likeness import PASSAGES, QUERIES, Likeness
from m3tune.data.read import read_collection
from m3tune.starter import DEMO

_RANDOM = random.Random(0)
_WORDS = 60  # in a synthetic passage
_GROWTH_KINDS = ("new", "copy", "edited", "boilerplate")
_GROWTH_SHARES = (0.85, 0.02, 0.05, 0.08)
_MIB = 1 << 20
Edit = Callable[[str], str]


class FileTexts(Sequence[str]):
    """Texts on disk, one a line: only where each line begins is in memory."""

    def __init__(self, path: Path, offsets: np.ndarray) -> None:
        self._file = path.open("rb")
        self._offsets = offsets  # (N + 1,) int64

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        if not 0 <= row < len(self):
            raise IndexError(row)
        self._file.seek(self._offsets[row])
        return self._file.read(self._offsets[row + 1] - self._offsets[row] - 1).decode()


def passage_edits(words: list[str]) -> dict[str, Edit]:
    def some_words_changed(text: str) -> str:
        own = text.split()
        for at in _RANDOM.sample(range(len(own)), max(1, round(0.05 * len(own)))):
            own[at] = _RANDOM.choice(words)
        return " ".join(own)

    def sentences_shuffled(text: str) -> str:
        sentences = re.split(r"(?<=[.!?])\s+", text)
        return " ".join(_RANDOM.sample(sentences, len(sentences)))

    return {
        "case": lambda text: _RANDOM.choice([text.upper(), text.title()]),
        "white space": lambda text: "  ".join(text.split()).replace(". ", ".\n\n"),
        "5 % of the words changed": some_words_changed,
        "sentences shuffled": sentences_shuffled,
        "header of ten words": lambda text: " ".join([*_RANDOM.choices(words, k=10), text]),
    }


def query_edits(words: list[str]) -> dict[str, Edit]:
    def letter_lost(text: str) -> str:
        own = text.split()
        long = [at for at, word in enumerate(own) if len(word) > 5 and word.isalpha()]
        if long:
            at = _RANDOM.choice(long)
            letter = _RANDOM.randrange(2, len(own[at]) - 1)
            own[at] = own[at][:letter] + own[at][letter + 1 :]
        return " ".join(own)

    def word_replaced(text: str) -> str:
        own = text.split()
        own[_RANDOM.randrange(len(own))] = _RANDOM.choice(words)
        return " ".join(own)

    return {
        "case": str.upper,
        "punctuation": lambda text: f"«{text.rstrip('.')}» ??",
        "please before": lambda text: f"Please: {text}",
        "please tell me before": lambda text: f"Please tell me: {text}",
        "do you know whether before": lambda text: f"Do you know whether {text}",
        "thanks after": lambda text: f"{text} Thanks!",
        "a letter lost in a word": letter_lost,
        "a word replaced (another question)": word_replaced,
    }


def unspaced_edits(characters: list[str]) -> dict[str, Edit]:
    def character_replaced(text: str) -> str:
        at = _RANDOM.randrange(len(text))
        return text[:at] + _RANDOM.choice(characters) + text[at + 1 :]

    return {
        "punctuation and width": lambda text: text.translate(str.maketrans("？，「」?", '?  "？')),
        "please before": lambda text: f"請問，{text}",
        "please tell me before": lambda text: f"請告訴我：{text}",
        "particle after": lambda text: f"{text.rstrip('?？')}呢？",
        "a character replaced (another question)": character_replaced,
    }


def planted(name: str, texts: list[str], edits: dict[str, Edit], likeness: Likeness) -> None:
    """Find the edited copies of `texts` among the texts themselves."""
    texts = list(dict.fromkeys(texts))
    size = len(texts)
    own = near_duplicates(texts, likeness)
    print(f"\n{name}: {size} texts, {len(own.pairs)} pairs of their own")
    for (first, second), similarity in zip(own.pairs.tolist(), own.similarity, strict=True):
        print(f"  {similarity:.2f}  {texts[first][:120]!r}  {texts[second][:120]!r}")
    for label, edit in edits.items():
        start = time.perf_counter()
        found = near_duplicates([*texts, *map(edit, texts)], likeness)
        seconds = time.perf_counter() - start
        recall = np.mean(found.groups[:size] == found.groups[size:])
        other = np.count_nonzero(found.pairs[:, 0] % size != found.pairs[:, 1] % size)
        print(f"  {label:40} recall {recall:7.2%}  pairs {len(found.pairs):5}  other {other:3}  {seconds:5.1f} s")


def write_synthetic(path: Path, size: int) -> None:
    """Write `size` passages of 60 words put together from snippets of real text, and where each line begins.

    One in fifty is a copy of an earlier one, one in twenty has three words changed, one in twelve is two thirds
    boilerplate: one of ten texts with other words at the end.
    """
    source = " ".join(scifact_passages()).split()
    rng = np.random.default_rng(0)
    kinds = rng.choice(len(_GROWTH_KINDS), size, p=_GROWTH_SHARES)
    recent: list[list[str]] = []
    offsets = [0]
    with path.open("wb") as file:
        for kind in kinds:
            cuts = rng.integers(0, len(source) - 10, 10)
            words = [word for cut in cuts for word in source[cut : cut + 6]]
            if recent and _GROWTH_KINDS[kind] in ("copy", "edited"):
                words = list(recent[rng.integers(len(recent))])
            if _GROWTH_KINDS[kind] == "edited":
                for at in rng.integers(0, _WORDS, 3):
                    words[at] = source[rng.integers(len(source))]
            if _GROWTH_KINDS[kind] == "boilerplate":
                at = 40 * rng.integers(10)
                words[:40] = source[at : at + 40]
            recent.append(words)
            del recent[:-1000]
            offsets.append(offsets[-1] + file.write((" ".join(words) + "\n").encode()))
    np.save(path.with_suffix(".npy"), np.array(offsets))


def measure(path: Path) -> None:
    """Time and peak memory of the texts in a file, in a process that has held nothing else."""
    texts = FileTexts(path, np.load(path.with_suffix(".npy")))
    size = len(texts)
    before = peak_mib()
    start, start_cpu = time.perf_counter(), time.process_time()
    found = near_duplicates(texts)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    print(
        f"  {size:9} texts  {seconds:7.1f} s  {cpu:7.1f} s CPU  {cpu / size * 1e6:6.1f} s CPU per million  "
        f"peak {before:5.0f} -> {peak_mib():5.0f} MiB  links {len(found.pairs)}",
        flush=True,
    )


def grow(sizes: list[int]) -> None:
    """Measure each size. Every step is a process of its own, as a child begins with its parent's peak."""
    print(f"\nsynthetic passages of {_WORDS} words, on disk:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts"
        for size in sizes:
            in_its_own_process(write_synthetic, path, size)
            in_its_own_process(measure, path)


def in_its_own_process(work: Callable[..., None], *arguments: object) -> None:
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def machine() -> None:
    from peers import print_machine  # imports torch, which no measured process shall hold

    print_machine()


def scifact_passages() -> list[str]:
    collection, _ = read_collection(DEMO["data.path"])
    return [passage.full_text for passage in collection.passages.values()]


def peak_mib() -> float:
    """The most memory this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--texts", type=int, nargs="*", default=[25_000, 50_000, 100_000, 200_000])
    arguments = parser.parse_args()
    in_its_own_process(machine)
    grow(arguments.texts)
    passages = scifact_passages()
    words = sorted({word for text in passages for word in text.split()})
    for length in (None, 60, 30, 20):
        label = f"SciFact's passages, first {length} words" if length else "SciFact's passages"
        cut = [" ".join(text.split()[:length]) for text in passages] if length else passages
        planted(label, cut, passage_edits(words), PASSAGES)
    claims = [query.text for query in read_collection(DEMO["data.path"])[0].queries.values()]
    planted("SciFact's claims", claims, query_edits(words), QUERIES)
    if arguments.questions:
        data = json.loads(arguments.questions.read_text(encoding="utf-8"))
        questions = list(data["queries"].values())
        characters = sorted(set("".join(questions)))
        planted("questions without blanks", questions, unspaced_edits(characters), QUERIES)
        planted("passages without blanks", list(data["corpus"].values()), {}, PASSAGES)


if __name__ == "__main__":
    main()
