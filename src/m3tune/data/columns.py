"""What the columns of pairs hold: a column's name says it, or the person does; nothing is known by its place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from m3tune.errors import DataError, listed, nearest

_ONE_NEGATIVE = ("negative", "neg", "hard_negative", "hard_neg")
# Role -> the names that are known for it, whatever their case; `-` and blanks count as `_`.
NAMES: Mapping[str, tuple[str, ...]] = {
    "query": ("query", "question", "anchor"),
    "positive": ("positive", "pos", "passage", "answer", "context", "document"),
    "negative": (*_ONE_NEGATIVE, "negatives", "hard_negatives"),
    "query_id": ("query_id", "question_id", "qid"),
    "prompt": ("prompt", "instruction"),
    "positive_id": ("positive_id", "passage_id", "document_id", "doc_id", "corpus_id", "pid"),
    "title": ("title", "positive_title", "passage_title", "document_title"),
    "positive_score": ("positive_score", "pos_score", "pos_scores"),
    "negative_id": tuple(f"{name}_id" for name in _ONE_NEGATIVE),
    "negative_title": tuple(f"{name}_title" for name in _ONE_NEGATIVE),
    "negative_score": tuple(f"{name}_{score}" for name in _ONE_NEGATIVE for score in ("score", "scores")),
}
IGNORE = "ignore"

_ROLE_OF_NAME = {name: role for role, names in NAMES.items() for name in names}
_NEGATIVE = "negative"  # how those roles begin of which there may be several, told apart by a number
_NUMBERED = re.compile(r"(.*?)_?([0-9]+)")
# Role of a column -> the part of a passage that it is.
_POSITIVE_PARTS = {"positive": "text", "positive_id": "id", "title": "title", "positive_score": "score"}
_NEGATIVE_PARTS = {"negative": "text", "negative_id": "id", "negative_title": "title", "negative_score": "score"}


class Columns(NamedTuple):
    """The columns of a row. Of a passage: which part of it (text, id, title, score) -> column."""

    query: str
    query_id: str | None
    prompt: str | None
    positive: Mapping[str, str]
    negatives: tuple[Mapping[str, str], ...]


def parse_columns(options: Iterable[str]) -> dict[str, str]:
    """Column -> role from options like `positive=body`. Raises DataError."""
    columns: dict[str, str] = {}
    for option in options:
        role, equals, name = option.partition("=")
        if not equals:
            raise DataError(f"{option!r} has no '='", where="--column", fix="write ROLE=NAME, as in positive=body")
        if columns.setdefault(name, role) != role:
            raise DataError(f"{name!r} is both {columns[name]} and {role}", where="--column", fix="say one of them")
    return columns


def check_roles(columns: Mapping[str, str]) -> None:
    """Raises DataError where a column is said to have a role that there is not."""
    for role in columns.values():
        if role not in (*NAMES, IGNORE):
            close = nearest(role, (*NAMES, IGNORE))
            hint = f"did you mean {close!r}? " if close else ""
            raise DataError(
                f"unknown role {role!r}", where="--column", fix=f"{hint}roles: {', '.join(NAMES)}, {IGNORE}"
            )


def fits(names: Iterable[str]) -> bool:
    """Whether there is a name for a query and one for a positive among these."""
    return {"query", "positive"} <= {_known_role(name) for name in names}


def columns_of(names: tuple[str, ...], given: Mapping[str, str], where: str) -> Columns:
    """What the named columns hold; `given` says it for some, as column -> role.

    Raises DataError where there is no query or no positive, where a name is not known, and where two columns hold one
    thing.
    """
    roles = {name: given.get(name) or _known_role(name) for name in names}
    of_role = {role: [name for name in names if roles[name] == role] for role in NAMES}
    _check_roles(of_role, names, [name for name in names if roles[name] is None], where)
    first = {role: found[0] for role, found in of_role.items() if found}
    return Columns(
        first["query"],
        first.get("query_id"),
        first.get("prompt"),
        {part: first[role] for role, part in _POSITIVE_PARTS.items() if role in first},
        _negatives(of_role, where),
    )


def _check_roles(of_role: Mapping[str, list[str]], names: Sequence[str], unknown: Sequence[str], where: str) -> None:
    """Raises DataError where a role is missing or taken twice, or a name is `unknown`."""
    for role in ("query", "positive"):
        if not of_role[role]:
            guess = unknown[0] if unknown else "NAME"
            raise DataError(
                f"no column is the {role}; here are {listed(names)}",
                where=where,
                fix=f"name it {NAMES[role][0]}, or {_say(f'{role}={guess}')}",
                reason="columns",
            )
    for role, found in of_role.items():
        if len(found) > 1 and not role.startswith(_NEGATIVE):
            others = [f"{IGNORE}={name}" for name in found[1:]]
            raise DataError(
                f"several columns are the {role}: {listed(found)}", where=where, fix=_say(*others), reason="columns"
            )
    if unknown:
        raise DataError(
            f"no known name for a column: {listed(unknown)}",
            where=where,
            fix=f"{_say(f'{IGNORE}={unknown[0]}')}, or ROLE={unknown[0]}; roles: {', '.join(NAMES)}",
            reason="columns",
        )


def _negatives(of_role: Mapping[str, list[str]], where: str) -> tuple[Mapping[str, str], ...]:
    """The columns of each negative: its text's, and those of the same number that say more of it."""
    groups = [{"text": name} for name in of_role["negative"]]
    for role, part in _NEGATIVE_PARTS.items():
        for name in of_role[role] if part != "text" else ():
            mates = [group for group in groups if _number(group["text"]) == _number(name)]
            if len(mates) != 1 or part in mates[0]:
                raise DataError(
                    f"{name!r} belongs to no negative, or to several; the columns of negatives are "
                    f"{listed(of_role['negative'])}",
                    where=where,
                    fix=f"number them alike, such as negative_1 and {role}_1, or {_say(f'{IGNORE}={name}')}",
                    reason="columns",
                )
            mates[0][part] = name
    return tuple(groups)


def _known_role(name: str) -> str | None:
    plain = _plain(name)
    role = _ROLE_OF_NAME.get(plain)
    numbered = _NUMBERED.fullmatch(plain)
    if role or not numbered:
        return role
    role = _ROLE_OF_NAME.get(numbered[1])
    return role if role and role.startswith(_NEGATIVE) else None


def _number(name: str) -> str:
    """The number at the end of a name, without zeros in front; empty where there is none."""
    numbered = _NUMBERED.fullmatch(_plain(name))
    return numbered[2].lstrip("0") or "0" if numbered else ""


def _plain(name: str) -> str:
    return re.sub(r"[-\s]+", "_", name.strip().lower())


def _say(*options: str) -> str:
    return "say " + " ".join(f"--column {shlex.quote(option)}" for option in options)
