"""The same review without a browser: single keys in a terminal, or a line each from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from typing import TextIO

from rich.console import Console
from rich.text import Text

from m3tune.report.marks import Part, Shown
from m3tune.report.tables import print_line
from m3tune.review.pair import PairView, PassageView, view
from m3tune.review.sitting import KEYS, LEAVE, UNDO, Sitting
from m3tune.review.wording import next_commands, rate_in_words

_MORE = "m"
_STYLES = {"plain": "", "shared": "bold underline", "sign": "reverse"}


def review_in_terminal(sitting: Sitting, console: Console, keys: Iterator[str]) -> None:
    """Show pairs and take verdicts until the queue, the keys or the reviewer's patience end."""
    while (place := sitting.next()) is not None:
        pair, progress = view(sitting.project, sitting.queue[place]), sitting.progress()
        print_line(console, f"\n{progress.done:,} of {progress.total:,} · {rate_in_words(progress)}")
        _print_pair(console, pair, whole=False)
        if not _take_key(sitting, console, place, pair, keys):
            break
    progress = sitting.progress()
    print_line(console, f"\n{progress.done:,} of {progress.total:,} judged; {rate_in_words(progress)}")
    for command in next_commands(sitting.project):
        print_line(console, command)


def keys_of(stream: TextIO) -> Generator[str]:
    """Keys as they are pressed in a terminal, which is as before when this is closed; else each line's first letter."""
    if stream.isatty() and sys.platform != "win32":
        yield from _pressed(stream)
    else:
        for line in stream:
            yield line.strip().lower()[:1]


def _pressed(stream: TextIO) -> Generator[str]:
    import termios
    import tty

    before = termios.tcgetattr(stream)
    try:
        tty.setcbreak(stream)
        while (key := stream.read(1)) not in ("", "\x04"):  # until it is closed, or Ctrl-D
            yield key.lower()
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)


def _take_key(sitting: Sitting, console: Console, place: int, pair: PairView, keys: Iterator[str]) -> bool:
    """Act on keys until there is a verdict, or one is taken back; False where the reviewer leaves."""
    names = KEYS | {UNDO: "undo", _MORE: "more", LEAVE: "leave"}
    print_line(console, ", ".join(f"[{key}] {name}" for key, name in names.items()))
    for key in keys:
        if key in KEYS:
            sitting.judge(place, KEYS[key])
            print_line(console, KEYS[key])
            return True
        if key == UNDO:
            undone = sitting.undo()
            print_line(console, "nothing to take back" if undone is None else "taken back")
            return True
        if key == _MORE:
            _print_pair(console, pair, whole=True)
        elif key == LEAVE:
            return False
        elif key:
            print_line(console, f"{key!r} is no key here")
    return False


def _print_pair(console: Console, pair: PairView, *, whole: bool) -> None:
    console.print(Text("query  ", "dim") + _text(pair.query, whole), soft_wrap=True)
    for number, positive in enumerate(pair.positives, start=1):
        console.print(Text(f"known answer {number}  ", "green") + _passage(positive, whole), soft_wrap=True)
    if pair.positives_left_out:
        print_line(console, f"and {pair.positives_left_out} more known answers")
    console.print(Text("candidate  ", "bold yellow") + _passage(pair.candidate, whole), soft_wrap=True)
    print_line(console, "; ".join(f"{name} {value}" for name, value in pair.facts))


def _passage(passage: PassageView, whole: bool) -> Text:
    title = _text(passage.title, whole)
    return title + Text(": ") + _text(passage.text, whole) if title else _text(passage.text, whole)


def _text(shown: Shown, whole: bool) -> Text:
    """The text as rich prints it: no part of it is markup, and no character of it a command to the terminal."""
    text = Text().join(map(_part, shown.start + (shown.rest if whole else [])))
    hidden = shown.left_out + (0 if whole else shown.folded)
    return text.append(f" … {hidden:,} characters more", "dim") if hidden else text


def _part(part: Part) -> Text:
    return Text(f"<{part.text}>" if part.kind == "sign" else part.text, _STYLES[part.kind])
