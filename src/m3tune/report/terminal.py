"""The same findings as tables for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from m3tune.evaluation.compare import Comparison
from m3tune.evaluation.metrics import mean
from m3tune.evaluation.store import Evaluation
from m3tune.negatives.summary import in_words
from m3tune.report import data_words, error_words, selection_words, verdict_words, words
from m3tune.report.contest_words import CORRECTION, Cells, cost_cells, difference_cells, recipe_cells
from m3tune.report.gather import gather
from m3tune.report.tables import print_line, print_table, table_of
from m3tune.types import SIDES

if TYPE_CHECKING:
    from m3tune.planning import RunPlan
    from m3tune.replaying import Replay
    from m3tune.searching import Answers

_EXCERPT_CHARACTERS = 160
_WORDS_SHOWN = 8
_STYLES = {"better": "bold green", "no worse": "bold", "inconclusive": "bold yellow", "worse": "bold red"}


def print_verdict(console: Console, run: Path | Mapping[str, Any]) -> None:
    """Print a run's metrics, its verdict in one sentence, where the report is and how to load the model.

    `run` is the folder of a finished run, or what `gather` returned for it.
    """
    data = gather(run) if isinstance(run, Path) else run
    verdict = data["verdict"]
    _print_metrics(console, data["metrics"], verdict["metric"])
    console.print(
        Text(verdict["verdict"], style=_STYLES[verdict["verdict"]]), Text(verdict_words.headline(data)), sep=": "
    )
    for line in (*_results(data), "", *_ways_on(data)):
        print_line(console, line)


def _print_metrics(console: Console, rows: Sequence[Mapping[str, Any]], main_metric: str) -> None:
    """Print one row a metric, with BM25 where it was measured."""
    bm25 = any(row["bm25"] is not None for row in rows)
    table = table_of(["metric", *(["BM25"] if bm25 else []), "base", "tuned", "difference", "95 % interval", "p"])
    for row in rows:
        table.add_row(
            Text(row["metric"]),
            *([words.number(row["bm25"])] if bm25 else []),
            words.number(row["base"]),
            words.number(row["tuned"]),
            _difference(row["difference"], row["ci95"]),
            Text(words.interval(row["ci95"])),
            words.p_value(row["p_value"]),
            style="bold" if row["metric"] == main_metric else "",
        )
    print_table(console, table)


def _results(data: Mapping[str, Any]) -> Iterator[str]:
    """What the run came to, and what stands out in it, a line each."""
    yield verdict_words.sentence(data)
    if data["heads"]:
        yield f"measured: {verdict_words.measured_by(data)}"
        yield from (f"  {verdict_words.compared(pair)}" for pair in data["heads"]["compared"])
    if data["rounds"]:
        yield selection_words.rounds(data["rounds"])
    yield from error_words.stands_out(data)
    if warning := verdict_words.words_win(data):
        yield f"warning: {warning}"


def _ways_on(data: Mapping[str, Any]) -> Iterator[str]:
    """Where the report and the model are, and how to use it, a line each."""
    folder = Path(data["folder"])
    yield f"report  {folder / 'report.html'}"
    yield f"model   {folder / 'model'}"
    dense_alone = "  (its dense head alone)" if data["heads"] else ""
    yield f'load    sentence_transformers.SentenceTransformer("{folder / "model"}"){dense_alone}'
    if data["heads"]:
        yield f"search  m3tune search {shlex.quote(str(folder / 'model'))} DATA"


def print_evaluations(console: Console, evaluations: Sequence[Evaluation]) -> None:
    """Print one row a model and head, one column a metric."""
    means = [mean(evaluation.per_query) for evaluation in evaluations]
    metrics = list(dict.fromkeys(name for values in means for name in values))
    table = table_of(["model", "head", *metrics, "queries"], names=2)
    for evaluation, values in zip(evaluations, means, strict=True):
        queries = max((len(per_query) for per_query in evaluation.per_query.values()), default=0)
        cells = [words.number(values.get(name)) for name in metrics]
        table.add_row(Text(evaluation.name), Text(evaluation.head), *cells, f"{queries:,}")
    print_table(console, table)


def print_comparison(console: Console, comparison: Comparison, names: tuple[str, str] = ("base", "tuned")) -> None:
    """Print every metric of two models; the difference is the second's of `names` minus the first's."""
    table = table_of(["metric", *names, "difference", "95 % interval", "p", "won", "tied", "lost"])
    for item in comparison.metrics:
        table.add_row(
            Text(item.metric),
            words.number(item.base),
            words.number(item.tuned),
            _difference(item.difference, item.ci95),
            Text(words.interval(item.ci95)),
            words.p_value(item.p_value),
            *(f"{count:,}" for count in (item.wins, item.ties, item.losses)),
            style="bold" if item.metric == comparison.main_metric else "",
        )
    print_table(console, table)
    print_line(console, f"{comparison.main.queries:,} queries; the interval and p are of the difference in the mean")


def print_contest(console: Console, facts: Mapping[str, Any], page: Path) -> None:
    """Print what a comparison of recipes found, as sentences and tables, and where its page is."""
    for cells in (recipe_cells(facts), cost_cells(facts), difference_cells(facts)):
        _print_cells(console, cells)
    print_line(console, CORRECTION)
    for line in facts["finding"]:
        print_line(console, line)
    print_line(console, f"report  {page}")


def print_replay(console: Console, found: Replay, folder: Path) -> None:
    """Print what came out otherwise in a replay, and what else differs, which may be why."""
    if found.results:
        table = table_of(["figure", "run", "replay"])
        for of in found.results:
            table.add_row(Text(of.where), Text(str(of.first)), Text(str(of.second)))
        print_table(console, table)
    same = found.figures - len(found.results)
    print_line(console, f"{same:,} of {found.figures:,} figures are the same")
    for of in found.origins:
        print_line(console, f"other {of.where}: {of.first} in the run, {of.second} in the replay")
    if found.results and not found.origins:
        print_line(console, "nothing else that is recorded differs: same recipe, data, model, versions and machine")
    print_line(console, f"replay  {folder}")


def print_mined(console: Console, folder: Path, facts: Mapping[str, Any], written: Sequence[Path], review: str) -> None:
    """Print what was kept and removed and by which source, what other thresholds would keep, and where things are.

    `review` is the command that shows them to a person.
    """
    for line in in_words(facts["counts"], facts["rule"]):
        print_line(console, line)
    table = table_of(["source", "found", "kept", "chosen"])
    for row in facts["sources"]:
        table.add_row(Text(row["source"]), *(f"{row[key]:,}" for key in ("found", "kept", "chosen")))
    print_table(console, table)
    for name, rows in facts["thresholds"].items():
        if rows:
            table = table_of([f"mine.{name}", *list(rows[0])[1:]])
            for row in rows:
                table.add_row(f"{row[name]:g}", *(words.share(value) for key, value in row.items() if key != name))
            print_table(console, table)
    for file in (folder / "negatives.html", folder / "candidates.parquet", *written):
        print_line(console, f"wrote {file}")
    print_line(console, f"review them: {review}")


def print_prepared(
    console: Console, folder: Path, counts: Mapping[str, Any], balance: Sequence[Mapping[str, Any]]
) -> None:
    """Print how alike the sides of a split are, what they share, and where the data is."""
    sides = [side for side in SIDES if balance and side in balance[0]]
    table = table_of(["feature", *sides, *(f"p, {side}" for side in sides[1:])])
    for row in balance:
        tests = [words.p_value(row["tests"][side]["p_value"]) for side in sides[1:]]
        table.add_row(Text(row["feature"]), *(Text(data_words.summary(row[side])) for side in sides), *tests)
    print_table(console, table)
    print_line(console, data_words.TESTED)
    for line in data_words.shared_between_sides(counts):
        print_line(console, line)
    print_line(console, f"prepared {folder}")
    print_line(console, f"page     {folder / 'data.html'}")


def print_encoded(console: Console, written: Sequence[Mapping[str, Any]]) -> None:
    """Print what `m3tune encode` left in each folder."""
    for part in written:
        shortened = f", {part['cut']:,} texts cut" if part["cut"] else ""
        print_line(
            console,
            f"{part['folder']}: {part['texts']:,} {part['kind']} ({part['tokens']:,} tokens{shortened}); "
            f"{', '.join(part['heads'])}; {part['bytes'] / 2**20:,.1f} MiB",
        )


def print_answers(console: Console, answers: Answers, explain: bool) -> None:
    """Print the passages found for a question, each with every head's score and the words that it shares."""
    console.print(Text(answers.question, style="bold"), soft_wrap=True)
    if explain and answers.words:
        words_of = ", ".join(f"{word} {weight:.3f}" for word, weight in answers.words[:_WORDS_SHOWN])
        print_line(console, f"  words: {words_of}")
    if not answers.hits:
        print_line(console, "  nothing found")
    for hit in answers.hits:
        scores = "  ".join(f"{head} {score:.4f}" for head, score in hit.scores.items())
        line = Text(f"{hit.rank:>3}  {answers.head} {hit.score:.4f}")
        line.append(f"  ({scores})" if len(hit.scores) > 1 else "", style="dim")
        console.print(line + Text(f"  {hit.passage_id}"), soft_wrap=True)
        title = f"{hit.title}: " if hit.title else ""
        print_line(console, "     " + words.cut(" ".join(f"{title}{hit.text}".split()), _EXCERPT_CHARACTERS))
        if explain and hit.shared:
            shared = ", ".join(f"{word.word} {word.product:.3f}" for word in hit.shared[:_WORDS_SHOWN])
            print_line(console, f"     shared: {shared}")
    print_line(console, "")


def print_plan(console: Console, plan: RunPlan) -> None:
    """Print what a run would take, part by part, and what was chosen for it."""
    memory = table_of(["memory of training", "GiB"])
    for name, gib in plan.gib.items():
        label = {"in_use": "in use before it: weights, data, Python", "peak": "peak", "limit": "may take"}
        memory.add_row(label.get(name, name.replace("_", " ")), f"{gib:.2f}", style="bold" if name == "peak" else "")
    duration = table_of(["time", "minutes"])
    for name, seconds in plan.seconds.items():
        duration.add_row(name, f"{seconds / 60:.1f}")
    duration.add_row("all", f"{sum(plan.seconds.values()) / 60:.1f}", style="bold")
    print_table(console, memory)
    print_table(console, duration)
    print_line(console, plan.train.in_words())


def _print_cells(console: Console, cells: Cells) -> None:
    """A table; headings of numbers stand in lines, so that names have room in a narrow terminal."""
    name, *numbers = cells.headings
    table = table_of([name, *(heading.replace(" ", "\n") for heading in numbers)])
    for row in cells.rows:
        table.add_row(*map(Text, row))
    print_table(console, table)


def _difference(value: float, ci95: Sequence[float]) -> Text:
    return Text(words.signed(value), style="green" if ci95[0] > 0 else "red" if ci95[1] < 0 else "")
