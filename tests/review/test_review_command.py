"""m3tune review: the server as a process of its own, the terminal, results, verdicts in and out."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import tty
import urllib.error
import urllib.parse
import urllib.request

import pytest

from m3tune import cli
from m3tune.negatives.table import write_candidates
from m3tune.negatives.verdict_store import VerdictStore
from m3tune.negatives.verdicts import read_verdicts
from m3tune.review.project import open_project
from m3tune.review.terminal import keys_of
from m3tune.types import PairVerdict
from reviewing import write_run

COMMAND = [sys.executable, "-c", "from m3tune.cli import main; main()", "review"]


class Server:
    """The command as a process, and its page."""

    def __init__(self, run, *options):
        arguments = [*COMMAND, str(run), "--json", *options]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.facts = json.loads(line)
        self.url = self.facts["url"]

    def get(self, path="", **headers):
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers)) as answer:
            return answer.read().decode()

    def say(self, key):
        """Answer the pair that the page shows; returns the next page."""
        place = re.search(r'name="place" value="(\d+)"', self.get())[1]
        form = urllib.parse.urlencode({"place": place, "key": key}).encode()
        with urllib.request.urlopen(self.url + "verdict", form) as answer:
            return answer.read().decode()

    def end(self, number):
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.fixture
def serve(run):
    servers = []

    def start(*options):
        servers.append(Server(run, *options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


def standing(run):
    return VerdictStore(run / "review" / "verdicts.sqlite").standing()


# --- the server


def test_a_killed_server_loses_nothing_and_two_reviewers_share_a_project(serve, run):
    anna, ben = serve("--reviewer", "anna"), serve("--reviewer", "ben")
    assert anna.facts["pairs"] == 72
    for _ in range(4):
        page = anna.say("n")
        ben.say("r")
    assert "4 of 72" in page
    assert anna.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert [v.reviewer for v in standing(run)] == ["anna", "ben"] * 4
    again = serve("--reviewer", "anna")
    assert again.url != anna.url
    assert "5 of 72" in again.say("u")
    assert "5 of 72" in ben.say("r")
    assert len(standing(run)) == 10


def test_ctrl_c_ends_well_and_the_page_answers_on_loopback_alone(serve):
    server = serve()
    parts = urllib.parse.urlsplit(server.url)
    assert parts.hostname == "127.0.0.1"
    assert len(parts.path) >= 32
    with pytest.raises(urllib.error.HTTPError, match="403"):
        server.get(Host="rebound.example")
    for other in {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
        if not other.startswith("127."):
            with pytest.raises(OSError), socket.create_connection((other, parts.port), timeout=5):
                pass
    assert server.end(signal.SIGINT) == (cli.FINE, "")


def test_a_taken_port_is_named(m3tune, run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = m3tune("review", run, "--port", port)
    assert code == cli.USER_ERROR
    assert f"127.0.0.1:{port}: cannot listen there" in err


def test_without_the_extra_the_command_says_what_to_install(m3tune, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "m3tune.review.page", raising=False)
    code, _, err = m3tune("review", run)
    assert code == cli.USER_ERROR
    assert "the review page needs fastapi" in err
    assert "pip install 'm3tune[review]'" in err


# --- the terminal


def at_terminal(m3tune, monkeypatch, run, lines, *options):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    return m3tune("review", run, "--terminal", "--reviewer", "anna", *options)


def test_terminal_takes_verdicts_from_a_pipe(m3tune, monkeypatch, run):
    code, out, err = at_terminal(m3tune, monkeypatch, run, ["r", "not relevant", "z", "x", "", "u", "m", "q"])
    assert (code, err) == (cli.FINE, "")
    assert [v.judged for v in standing(run)] == ["relevant", "unsure"]
    assert "taken back" in out
    assert "'x' is no key here" in out
    assert "2 of 72 judged; relevant among those shown: 100.0 % [2.5, 100.0]" in out
    assert f"m3tune review {run} --results" in out
    code, out, _ = at_terminal(m3tune, monkeypatch, run, ["n"])
    assert "3 of 72 judged" in out


def test_terminal_shows_hostile_text_as_text(m3tune, monkeypatch, run):
    _, out, _ = at_terminal(m3tune, monkeypatch, run, ["q"], "--show", "all")
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "<RLO>" in out
    assert "characters more" in out
    assert len(out) < 10_000
    _, out, _ = at_terminal(m3tune, monkeypatch, run, ["m", "q"], "--show", "all")
    assert out.count("x" * 18_000) == 1


def test_terminal_reaches_the_end(m3tune, monkeypatch, run):
    code, out, _ = at_terminal(m3tune, monkeypatch, run, ["n"] * 100, "--show", "removed")
    assert code == cli.FINE
    assert "16 of 16 judged; relevant among those shown: 0.0 % [0.0, 20.6]" in out


def test_single_keys_of_a_terminal_and_the_terminal_as_before(monkeypatch):
    keyboard, terminal = os.openpty()
    set_cbreak = tty.setcbreak

    def set_then_press(stream):
        set_cbreak(stream)  # which throws away what was typed before
        os.write(keyboard, b"rNz\x04")

    monkeypatch.setattr(tty, "setcbreak", set_then_press)
    with open(terminal, encoding="utf-8") as stream:
        before = termios.tcgetattr(stream)
        assert list(keys_of(stream)) == ["r", "n", "z"]
        with contextlib.closing(keys_of(stream)) as keys:
            assert next(keys) == "r"
            assert termios.tcgetattr(stream) != before
        assert termios.tcgetattr(stream) == before
    os.close(keyboard)


# --- results


def judge_sample(run, relevant, reviewer="anna", kind="person"):
    project = open_project(run)
    for candidate in project.sampled(project.sample()):
        word = "relevant" if relevant(candidate) else "not relevant"
        project.store.add(PairVerdict(candidate.query_id, candidate.passage_id, word, reviewer, kind))


def test_results_of_a_judged_sample(m3tune, monkeypatch, run):
    at_terminal(m3tune, monkeypatch, run, ["q"], "--estimate", "60")
    code, out, _ = m3tune("review", run, "--results")
    assert code == cli.FINE
    assert "no estimate" in out
    judge_sample(run, lambda candidate: candidate.removed)
    code, out, _ = m3tune("review", run, "--results")
    assert code == cli.FINE
    assert "72 candidates kept, 16 removed" in out
    assert "person anna: " in out
    assert re.search(r"relevant among those kept \(false negatives\): 0\.0 % \[0\.0, \d", out)
    assert "not relevant among those removed: 0.0 %" in out
    judge_sample(run, lambda candidate: candidate.rank < 6, "ben")
    found = json.loads(m3tune("review", run, "--results", "--json")[1])
    (shared,) = found["agreement"]
    assert shared["reviewers"] == ["anna", "ben"]
    assert 0 < shared["kappa"] < 1
    assert shared["pairs"] == found["sample"] == 60
    (of,) = found["estimates"].values()
    assert sum(band["unsure"] for band in of["bands"]) == round(60 * (1 - shared["observed"]))


def test_results_end_with_1_above_the_rate_that_is_let_pass(m3tune, monkeypatch, run):
    at_terminal(m3tune, monkeypatch, run, ["q"], "--estimate", "60")
    judge_sample(run, lambda candidate: candidate.rank < 6)
    code, out, _ = m3tune("review", run, "--results")
    assert code == cli.NOT_GOOD_ENOUGH
    assert "more than --at-most 0.05 of the negatives are false" in out
    assert m3tune("review", run, "--results", "--at-most", "0.9")[0] == cli.FINE


def test_a_models_verdicts_are_an_estimate_of_their_own(m3tune, monkeypatch, run):
    at_terminal(m3tune, monkeypatch, run, ["q"], "--estimate", "60")
    judge_sample(run, lambda candidate: True, "some model", "model")
    code, out, _ = m3tune("review", run, "--results", "--json")
    found = json.loads(out)
    assert code == cli.FINE, "only persons decide"
    assert list(found["estimates"]) == ["model some model"]
    assert found["estimates"]["model some model"]["after"][0] == 1
    judge_sample(run, lambda candidate: False)
    found = json.loads(m3tune("review", run, "--results", "--json")[1])
    assert found["estimates"]["persons"]["after"][0] == 0
    assert found["estimates"]["model some model"]["after"][0] == 1


# --- verdicts in and out, and what cannot be


def test_export_and_import(m3tune, monkeypatch, run, tmp_path):
    at_terminal(m3tune, monkeypatch, run, ["r", "n", "u"])
    code, out, _ = m3tune("review", run, "--export", tmp_path / "v.jsonl")
    assert (code, out) == (cli.FINE, "verdicts: 3 written\n")
    assert read_verdicts(tmp_path / "v.jsonl") == standing(run)
    other = write_run(tmp_path / "other")
    code, out, _ = m3tune("review", other, "--import", tmp_path / "v.jsonl", "--json")
    assert (code, json.loads(out)) == (cli.FINE, {"added": 3, "known": 0, "older": 0})
    assert standing(other) == standing(run)


def test_no_candidates_are_no_error_but_no_estimate_either(m3tune, monkeypatch, run):
    write_candidates([], run / "negatives")
    code, out, _ = at_terminal(m3tune, monkeypatch, run, ["r"])
    assert code == cli.FINE
    assert "0 of 0 judged" in out
    assert m3tune("review", run, "--results")[0] == cli.FINE
    code, _, err = m3tune("review", run, "--estimate", "10")
    assert code == cli.USER_ERROR
    assert "there are no candidates to draw from" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--terminal", "--results"), "--terminal and --results are different things to do"),
        (("--show", "chosen"), "--show: 'chosen' is none of kept, removed, all"),
        (("--estimate", "3", "--terminal"), "3 pairs cannot cover"),
        (("--reviewer", "a\nb"), "no name of a reviewer"),
        (("--reviewer", " "), "no name of a reviewer"),
        (("--import", "nowhere.jsonl"), "the file of verdicts does not exist"),
        (("--judge", "http://127.0.0.1:9/v1"), "--judge-model: an endpoint serves several models"),
        (("--data", "nowhere"), "nowhere: no data here"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(m3tune, run, options, said):
    code, out, err = m3tune("review", run, *options)
    assert (code, out) == (cli.USER_ERROR, "")
    assert said in err
    assert "fix: " in err
