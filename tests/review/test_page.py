"""The page, asked as a browser asks it."""

import re

import pytest
from fastapi.testclient import TestClient

from m3tune.review.page import make_app
from m3tune.review.sitting import Sitting
from reviewing import HOSTILE, OVERRIDE

HOST = "127.0.0.1:8000"


@pytest.fixture
def client(sitting):
    return client_of(sitting)


def client_of(sitting):
    return TestClient(make_app(sitting, "token", {HOST}), base_url=f"http://{HOST}", follow_redirects=False)


def place_of(page):
    return int(re.search(r'name="place" value="(\d+)"', page)[1])


def say(client, key, place=None):
    place = place_of(client.get("/token/").text) if place is None else place
    return client.post("/token/verdict", data={"place": str(place), "key": key})


# --- what a person sees


def test_page_shows_pair_positive_scores_and_what_filters_did(project):
    client = client_of(Sitting(project, "anna", project.queue("kept")))
    page = client.get("/token/").text
    shown = [
        "<mark>number</mark> 3",
        "Title 11",
        "Title 3",
        "<dt>rank</dt><dd><bdi>9 by dense, bm25</bdi></dd>",
        "0.650, 35.0 % below the positive",
        "<bdi>3.000</bdi>",
        "teacher and model disagree",
        "chosen to train on",
        "0 of 72",
    ]
    for said in shown:
        assert said in page, said
    say(client, "n")
    assert "relevant among those shown: 0.0 % [0.0, 97.5]" in client.get("/token/").text
    client = client_of(Sitting(project, "anna", project.queue("removed")))
    assert "removed: above 0.95 x positive" in client.get("/token/").text


def test_chinese_is_marked_too(project):
    (pair,) = [c for c in project.candidates if (c.query_id, c.passage_id) == ("q0", "p2")]
    page = client_of(Sitting(project, "anna", (pair,))).get("/token/").text
    assert "<mark>蘋果是</mark>一種水果" in page
    assert "：<mark>蘋果是</mark>什麼" in page


def test_a_text_of_a_megabyte_is_folded_and_cut(project):
    (pair,) = [c for c in project.candidates if (c.query_id, c.passage_id) == ("q0", "p1")]
    page = client_of(Sitting(project, "anna", (pair,))).get("/token/").text
    assert len(page) < 60_000
    assert "18,800 characters more" in page
    assert f"{2**20 - 20_000:,} characters after that are not shown" in page


def test_text_of_the_data_is_never_markup_nor_turned_round(client):
    page = client.get("/token/").text
    assert HOSTILE not in page
    assert "&lt;<mark>script" not in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert OVERRIDE not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)
    assert 'invisible character">RLO</bdi>' in page
    assert page.count('dir="auto"') >= 5


def test_a_hostile_name_is_text(project):
    page = client_of(Sitting(project, HOSTILE, project.queue("all"))).get("/token/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_in_a_sample_what_mining_knows_is_folded(project):
    sample = project.draw(40, seed=0)
    client = client_of(Sitting(project, "anna", project.sampled(sample), sample))
    assert "look after you have made up your mind" in client.get("/token/").text
    assert "false negatives: not known yet" in client.get("/token/").text
    for _ in sample.sizes:
        say(client, "r")
    assert "false negatives among all kept: 100.0 %" in client.get("/token/").text


# --- verdicts


def test_verdict_then_next_pair_then_undo(client, sitting):
    ended = say(client, "r")
    assert (ended.status_code, ended.headers["location"]) == (303, "./")
    assert place_of(client.get("/token/").text) == 1
    assert [v.judged for v in sitting.project.store.standing()] == ["relevant"]
    assert client.post("/token/undo").status_code == 303
    assert place_of(client.get("/token/").text) == 0
    assert sitting.project.store.standing() == []
    assert client.post("/token/undo").status_code == 303


def test_a_form_sent_twice_counts_once_and_a_changed_mind_counts_last(client, sitting):
    for key in ("r", "r", "n"):
        say(client, key, place=4)
    (verdict,) = sitting.project.store.standing()
    assert verdict.judged == "not relevant"


def test_fifty_pairs_and_a_server_that_starts_again(project):
    for _ in range(2):
        client = client_of(Sitting(project, "anna", project.queue("all")))
        for _ in range(25):
            say(client, "n")
    assert "50 of 88" in client.get("/token/").text
    assert len(project.store.standing()) == 50


def test_two_reviewers_on_one_project(project):
    clients = {name: client_of(Sitting(project, name, project.queue("all"))) for name in ("anna", "ben")}
    for name, key in (("anna", "r"), ("ben", "n"), ("anna", "u"), ("ben", "u")):
        say(clients[name], key)
    assert [(v.reviewer, v.judged) for v in project.store.standing()] == [
        ("anna", "relevant"),
        ("ben", "not relevant"),
        ("anna", "unsure"),
        ("ben", "unsure"),
    ]
    assert "2 of 88" in clients["ben"].get("/token/").text


def test_the_end_says_what_comes_next(project):
    sitting = Sitting(project, "anna", project.queue("all")[:2])
    client = client_of(sitting)
    say(client, "r")
    say(client, "n")
    page = client.get("/token/").text
    assert "Every pair is judged" in page
    assert f"m3tune review {project.arguments[0]} --results" in page
    assert "50.0 % [1.3, 98.7]" in page
    client.post("/token/undo")
    assert place_of(client.get("/token/").text) == 1


def test_an_empty_queue_says_so(project):
    assert "There is nothing to review" in client_of(Sitting(project, "anna", ())).get("/token/").text


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"place": "0"},
        {"key": "r"},
        {"place": "88", "key": "r"},
        {"place": "-1", "key": "r"},
        {"place": "0", "key": "x"},
        {"place": "²", "key": "r"},
        {str(i): "x" for i in range(20)},
    ],
    ids=str,
)
def test_what_is_no_verdict_is_refused(client, sitting, data):
    assert client.post("/token/verdict", data=data).status_code == 400
    assert sitting.project.store.standing() == []


def test_a_long_form_is_refused(client):
    assert client.post("/token/verdict", content=b"a" * 5_000).status_code == 413


# --- who may look


@pytest.mark.parametrize(
    "path", ["/", "/tokem/", "/toke/", "/token2/", "/tokén/", "//token/", "/docs", "/openapi.json"]
)
def test_without_the_token_there_is_nothing(client, path):
    assert client.get(path).status_code == 404


def test_without_the_token_nothing_is_written(client, sitting):
    assert client.post("/other/verdict", data={"place": "0", "key": "r"}).status_code == 404
    assert client.post("/other/undo").status_code == 404
    assert sitting.project.store.standing() == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:9", "localhost.evil.example:8000", ""])
def test_another_host_name_is_refused(client, host):
    assert client.get("/token/", headers={"Host": host}).status_code == 403
    assert client.post("/token/verdict", data={"place": "0", "key": "r"}, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("path", ["/token/", "/token/review.css", "/nothing", "/token/nothing"])
def test_every_answer_carries_the_policy(client, path):
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'; script-src 'self';")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_nothing_is_loaded_from_elsewhere_or_written_inline(client):
    page = client.get("/token/").text
    assert sorted(re.findall(r'(?:src|href|action)="([^"]*)"', page)) == ["review.css", "review.js", "undo", "verdict"]
    assert not re.search(r"\son\w+=|style=|<style", re.sub(r"<(div|bdi|mark).*?</\1>", "", page, flags=re.DOTALL))
    css, js = (client.get(f"/token/{name}") for name in ("review.css", "review.js"))
    assert css.headers["content-type"].startswith("text/css")
    assert js.headers["content-type"].startswith("text/javascript")
    assert "url(" not in css.text
    assert "prefers-color-scheme: dark" in css.text


def test_every_key_has_a_button(client):
    page = client.get("/token/").text
    assert re.findall(r'data-key="(\w)"', page) == ["r", "n", "u", "z"]
