import io

import pytest
from rich.console import Console

from m3tune.progress import hidden, shown, track


def console():
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def text_of(screen):
    return screen.file.getvalue()


def test_without_shown_nothing_is_written(capsys):
    with track("encode", total=10) as advance:
        advance(4)
        advance(6, "done")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_bar_says_what_and_how_much_and_how_long():
    screen = console()
    with shown(screen), track("encode passages", total=200) as advance:
        advance(50)
        advance(100, note="loss 0.123")
    written = text_of(screen)
    assert "encode passages" in written
    assert "75%" in written
    assert "left" in written
    assert "loss 0.123" in written


def test_a_resumed_bar_begins_where_the_work_was_cut_off():
    screen = console()
    with shown(screen), track("train", total=10, done=4) as advance:
        advance(1)
    assert "50%" in text_of(screen)


def test_bars_stand_below_one_another_and_end_with_shown():
    screen = console()
    with shown(screen), track("train", total=10) as outer:
        outer(5)
        with track("encode dev queries", total=4) as inner:
            inner(4)
    before = text_of(screen)
    assert "train" in before
    assert "encode dev queries" in before
    with track("later", total=1) as advance:
        advance(1)
    assert text_of(screen) == before


def test_shown_ends_also_after_an_error():
    screen = console()
    with pytest.raises(KeyboardInterrupt), shown(screen), track("train", total=10):
        raise KeyboardInterrupt
    before = text_of(screen)
    with track("later", total=1) as advance:
        advance(1)
    assert text_of(screen) == before


@pytest.mark.parametrize("name", ["[red]", "[/]", "model [v2]"])
def test_brackets_in_a_name_are_shown_as_they_are(name):
    screen = console()
    with shown(screen), track(f"encode ({name})", total=1) as advance:
        advance(1, note=name)
    assert f"encode ({name})" in text_of(screen)


def test_what_is_hidden_has_no_bar_and_the_bar_around_it_goes_on():
    screen = console()
    with shown(screen), track("search", total=10) as outer:
        with hidden(), track("train", total=4) as inner:
            inner(4)
            outer(5, note="trial 3")
        with track("later", total=1) as advance:
            advance(1)
    assert "trial 3" in text_of(screen)
    assert "later" in text_of(screen)
    assert "train" not in text_of(screen)
