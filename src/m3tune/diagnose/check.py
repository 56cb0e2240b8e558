"""`m3tune check`: read data whatever is wrong with it, and say what is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m3tune.config import ModelConfig
from m3tune.data.collection import Collection
from m3tune.data.intake import Intake
from m3tune.data.read import detect_format, read_collection
from m3tune.data.similar import Similar, find_similar
from m3tune.diagnose.context import Context, Rejected
from m3tune.diagnose.languages import script_shares
from m3tune.diagnose.registry import findings_of
from m3tune.diagnose.texts import covering_tokens
from m3tune.diagnose.wording import EXAMPLES
from m3tune.paths import resolve_path
from m3tune.types import Finding


@dataclass(frozen=True)
class Examination:
    """Data that was read as far as it can be, the account of the reading, and what is wrong."""

    format: str
    why: str
    intake: Intake
    collection: Collection
    context: Context
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything for programs."""
        return {
            "format": self.format,
            "account": self.intake.counts(),
            "sizes": sizes(self.collection),
            "scripts": script_shares(self.collection),
            "tokens": token_summary(self.context),
            "findings": [asdict(finding) for finding in self.findings],
        }


def examine(
    path: str, format: str = "auto", columns: Mapping[str, str] | None = None, model: ModelConfig | None = None
) -> Examination:
    """Read the data, leaving bad records out, and ask every rule.

    `model` is whose tokenizer counts, and where it cuts; without it nothing is said about lengths in tokens. Raises
    DataError where nothing can be read at all, and ModelError.
    """
    why = ""
    if format == "auto" and not columns:
        format, why = detect_format(resolve_path(path, "the data"))
    intake = Intake(skip_bad=True)
    collection, asked = read_collection(path, format, columns, intake)
    context = context_of(collection, intake, find_similar(collection), model)
    findings = findings_of(collection, context)
    return Examination("pairs" if columns else format, why or asked, intake, collection, context, findings)


def context_of(collection: Collection, intake: Intake, similar: Similar, model: ModelConfig | None = None) -> Context:
    """What the rules need beside the collection."""
    lengths = {}
    if model is not None:
        from m3tune.diagnose.tokens import token_lengths

        lengths = dict(token_lengths(collection, model))
    return Context(rejected_by_reason(intake), dict(intake.ignored), similar.queries, similar.passages, lengths)


def rejected_by_reason(intake: Intake) -> tuple[Rejected, ...]:
    """The rejected records, one entry a kind and reason, with the first of each as examples."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in _rejected_lines(intake):
        of_reason = lines.setdefault((line["kind"], line["reason"]), [])
        if len(of_reason) < EXAMPLES:
            of_reason.append(line)
    return tuple(
        Rejected(
            kind,
            reason,
            intake.rejected[kind][reason],
            of_reason[0]["fix"],
            tuple(f"{line['where']}: {line['what']}" for line in of_reason),
        )
        for (kind, reason), of_reason in lines.items()
    )


def _rejected_lines(intake: Intake) -> Iterator[dict[str, Any]]:
    """What the intake would write of the rejected records, line by line."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rejected.jsonl"
        if intake.save_rejected(file):
            with file.open(encoding="utf-8") as rejected:
                yield from map(json.loads, rejected)


def sizes(collection: Collection) -> dict[str, int]:
    """How much of everything there is."""
    return {
        "queries": len(collection.queries),
        "passages": len(collection.passages),
        "judgments": len(collection.judgments),
        "negatives": len(collection.negatives),
    } | {f"queries in {split}": len(members) for split, members in collection.splits.items()}


def token_summary(context: Context) -> dict[str, dict[str, Any]]:
    """Side -> the limit, the longest text, and the limits that leave 95 and 99 % of the texts whole."""
    return {
        side: {
            "max_tokens": lengths.max_tokens,
            "truncated": int((lengths.tokens > lengths.max_tokens).sum()),
            "longest": int(lengths.tokens.max()),
            "covering": {str(percent): tokens for percent, tokens in covering_tokens(lengths.tokens).items()},
            "model": lengths.model,
        }
        for side, lengths in context.lengths.items()
        if len(lengths.tokens)
    }
