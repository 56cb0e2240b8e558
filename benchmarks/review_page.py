"""The review page in Chromium: 50 pairs by keyboard, the server killed after the 30th, pictures at two widths.

python benchmarks/review_page.py [--run RUN] [--pictures FOLDER]

Without a run it reviews BM25's candidates for SciFact, with hostile text laid over some of it. Needs Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from devtools import Chromium
from m3tune.artifact import StageKey, writing
from m3tune.data.prepared import STAGE, save_prepared
from m3tune.data.similar import exact_copies
from m3tune.negatives.table import write_candidates
from m3tune.negatives.verdict_store import VerdictStore
from m3tune.retrieval.bm25 import bm25_run
from m3tune.review.sitting import KEYS
from m3tune.types import Candidate, Split
from peers import scifact

PAIRS, KILLED_AFTER = 50, 30
HOSTILE = '<script>document.title="owned"</script><img src=x onerror="document.title=1"> \u202etxet \u2066\x1b[31m\x00 '
ARABIC = "ما هي عاصمة فرنسا؟ aspirin "
REVIEWER = "<b>browser</b>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run with mined candidates; its verdicts grow by 50")
    parser.add_argument("--pictures", type=Path, default=Path("review-pictures"))
    arguments = parser.parse_args()
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or hostile_run(Path(folder) / "run")
        browser = Chromium()
        try:
            review(run, browser, arguments.pictures)
        finally:
            browser.close()
    if browser.log:
        sys.exit("the page complains:\n" + "\n".join(browser.log))


def review(run: Path, browser: Chromium, pictures: Path) -> None:
    """Label, kill, go on, and compare what is stored with what was pressed. Ends the program where they differ."""
    keys = list(itertools.islice(itertools.cycle(KEYS), PAIRS))
    with served(run) as (server, url):
        browser.open(url)
        take_pictures(browser, pictures, "pair")
        press_all(browser, keys[:KILLED_AFTER], already=0)
        server.send_signal(signal.SIGKILL)
        server.wait()
    print(f"killed after {KILLED_AFTER}: {len(stored(run))} verdicts on disk", flush=True)
    with served(run) as (server, url):
        browser.open(url)
        wait_for(browser, KILLED_AFTER)
        browser.press("z")
        press_all(browser, keys[KILLED_AFTER - 1 :], already=KILLED_AFTER - 1)
        take_pictures(browser, pictures, "later")
        server.send_signal(signal.SIGINT)
        print(f"the server ended with {server.wait()}; {len(stored(run))} verdicts on disk")
    if stored(run) != [KEYS[key] for key in keys]:
        sys.exit("what is stored is not what was pressed")
    print(f"all {PAIRS} as pressed; pictures in {pictures}")


@contextlib.contextmanager
def served(run: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """The server and the address of its page; killed at the end if it runs still."""
    code = "from m3tune.cli import main; main()"
    options = ["review", str(run), "--show", "all", "--reviewer", REVIEWER, "--json"]
    server = subprocess.Popen([sys.executable, "-c", code, *options], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server, json.loads(server.stdout.readline())["url"]
    finally:
        server.kill()
        server.wait()


def press_all(browser: Chromium, keys: list[str], already: int) -> None:
    for number, key in enumerate(keys, start=already):
        wait_for(browser, number)
        browser.press(key)
    wait_for(browser, already + len(keys))


def wait_for(browser: Chromium, judged: int) -> None:
    """Until the page says that so many are judged, and has its script, without which a key presses nothing."""
    browser.until("document.readyState == 'complete' && document.title.split(' ')[1]", str(judged))


def take_pictures(browser: Chromium, folder: Path, name: str) -> None:
    browser.until("document.readyState", "complete")
    for width, dark in itertools.product((1200, 380), (False, True)):
        file = folder / f"{name}-{width}-{'dark' if dark else 'light'}.png"
        too_wide = browser.screenshot(file, width, 1000, dark=dark)
        print(f"{file.name}: {too_wide} pixels too wide")


def stored(run: Path) -> list[str]:
    verdicts = VerdictStore(run / "review" / "verdicts.sqlite").standing()
    return [verdict.judged for verdict in verdicts if verdict.reviewer == REVIEWER]


def hostile_run(folder: Path, queries: int = 20, depth: int = 12) -> Path:
    """BM25's candidates for SciFact's first queries, the first of each with hostile text, one of a megabyte."""
    collection = scifact()
    query_ids = list(collection.positives)[:queries]
    found = bm25_run(collection, query_ids, depth)
    passages, asked = dict(collection.passages), dict(collection.queries)
    for number, query_id in enumerate(query_ids):
        first = found[query_id][0].passage_id
        longer = "m" * 2**20 if number == 1 else ""
        passages[first] = replace(passages[first], text=HOSTILE + passages[first].text + longer)
        before = (ARABIC, HOSTILE)[number % 2]
        asked[query_id] = replace(asked[query_id], text=before + asked[query_id].text)
    collection = replace(collection, queries=asked, passages=passages)
    with writing(folder / "data", StageKey(STAGE, {})) as (partial, _):
        save_prepared(partial, collection, exact_copies(collection), Split(tuple(query_ids), (), ()))
    with writing(folder / "negatives", StageKey("mine", {})) as (partial, _):
        write_candidates(
            (
                Candidate(query_id, hit.passage_id, ("bm25",), rank, hit.score, hits[0].score)
                for query_id, hits in found.items()
                for rank, hit in enumerate(hits, start=1)
            ),
            partial,
        )
    return folder


if __name__ == "__main__":
    main()
