"""Findings of a check as a table for a terminal, then each with its fix, examples and page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from m3tune.report.tables import print_line
from m3tune.types import Finding

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_TABLE_WIDTH = 140
_WIDE = 110  # columns from which `where` has one of its own
_PAGES = "docs/findings/{code}.md"  # where the page of a code is


def print_check(
    console: Console, account: Iterable[str], facts: Mapping[str, Any], findings: Sequence[Finding]
) -> None:
    """Print the account of the reading, what is in the data, and its findings. `facts` is `Examination.as_json`."""
    for line in (*account, *_facts(facts)):
        print_line(console, line)
    print_told(console, findings)


def print_told(console: Console, findings: Sequence[Finding], pages: str = _PAGES) -> None:
    """Print a table of the findings, then each with its fix, examples and page, and how many there are."""
    print_findings(console, findings)
    for finding in findings:
        print_line(console, "")
        heading = Text(finding.code, style=_STYLES[finding.severity])
        console.print(heading.append(f" ({finding.where}): {finding.what}", style="not bold default"), soft_wrap=True)
        print_line(console, f"  fix: {finding.fix}")
        for example in finding.examples:
            print_line(console, f"  - {example}")
        print_line(console, f"  more: {pages.format(code=finding.code)}")
    print_line(console, "")
    print_line(console, summary(findings))


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print one row a finding."""
    if not findings:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=min(console.width, _TABLE_WIDTH))
    is_wide = console.width >= _WIDE
    for column in ("severity", "code", "count", *(["where"] * is_wide), "what"):
        is_name = column in ("severity", "code")
        table.add_column(column, no_wrap=is_name, overflow="fold", justify="right" if column == "count" else "left")
    for finding in findings:
        told = (finding.where, finding.what) if is_wide else (f"{finding.where}: {finding.what}",)
        cells = (finding.severity, finding.code, f"{finding.evidence['count']:,}", *told)
        table.add_row(*map(Text, cells), style=_STYLES[finding.severity])
    console.print(table)


def print_fixed(console: Console, fixed: Mapping[str, Any], remaining: Sequence[Finding], lost: Iterable[str]) -> None:
    """Print what became of every record, and what is still wrong. `fixed` is `Fixed.as_json`."""
    print_line(console, "")
    print_line(console, "repaired")
    for kind, counts in fixed["account"].items():
        removed = "".join(f" + {n:,} {reason}" for reason, n in counts.items() if reason not in ("in", "out"))
        print_line(console, f"  {kind}: {counts['in']:,} in = {counts['out']:,} out{removed}")
    for line in lost:
        print_line(console, line)
    if fixed["rejected"]:
        print_line(console, f"records that could not be read: {fixed['rejected']}")
    print_line(console, "")
    print_line(console, f"in the copy: {summary(remaining)}")
    print_findings(console, remaining)


def summary(findings: Iterable[Finding]) -> str:
    """How many findings of each severity, in a sentence."""
    counts = Counter(finding.severity for finding in findings)
    parts = [f"{n:,} {severity}{'s' * (n != 1)}" for severity in _STYLES if (n := counts[severity])]  # type: ignore[index]
    return ", ".join(parts) if parts else "nothing is wrong"


def _facts(facts: Mapping[str, Any]) -> list[str]:
    sizes = ", ".join(f"{count:,} {name}" for name, count in facts["sizes"].items() if count)
    lines = [f"in it: {sizes or 'nothing'}"]
    scripts = [f"{side} {_shares(shares)}" for side, shares in facts["scripts"].items() if shares]
    lines += [f"scripts: {'; '.join(scripts)}"] * bool(scripts)
    for side, tokens in facts["tokens"].items():
        covering = ", ".join(f"{percent} % are within {limit:,}" for percent, limit in tokens["covering"].items())
        lines.append(
            f"{side} tokens: {covering}, the longest has {tokens['longest']:,}; "
            f"{tokens['truncated']:,} are cut at {tokens['max_tokens']:,}"
        )
    return lines


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{script} {part:.0%}" for script, part in shares.items() if part >= 0.005)
