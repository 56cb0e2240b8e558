"""Models in the reviewer's place: a tiny cross-encoder, and an endpoint that is faked on loopback."""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from m3tune import cli
from m3tune.errors import M3TuneError, ModelError
from m3tune.negatives import chat
from m3tune.negatives.chat import ChatModel, word_of
from m3tune.negatives.cross_encoder import BATCH_PAIRS, load_cross_encoder
from m3tune.negatives.verdict_store import of_one
from m3tune.review.judging import judge_all, open_judge
from tiny import save_tiny_encoder, tiny_model, tiny_tokenizer


def save_cross_encoder(folder, outputs=1):
    config = tiny_model("bert").config.to_dict() | {"num_labels": outputs}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertForSequenceClassification(BertConfig(**config)).save_pretrained(folder)
    tiny_tokenizer("bert").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    return save_cross_encoder(tmp_path_factory.mktemp("cross") / "encoder")


# --- the cross-encoder

PAIRS = [(f"r{i:02d} c{i % 20:02d}", " ".join(f"c{j % 20:02d}" for j in range(i % 7 * 9 + 1))) for i in range(37)]


def test_scores_in_batches_are_those_of_single_pairs(cross_encoder):
    encoder = load_cross_encoder(cross_encoder, precision="float32")
    assert len(PAIRS) % BATCH_PAIRS
    together = list(encoder.scores(PAIRS))
    alone = [next(encoder.scores([pair])) for pair in PAIRS]
    assert together == pytest.approx(alone, abs=1e-5)
    assert max(together) - min(together) > 0.05
    assert list(encoder.scores([])) == []


def test_a_long_pair_is_cut_in_its_longer_text(cross_encoder):
    encoder = load_cross_encoder(cross_encoder)
    assert encoder.max_tokens == 48
    query, rest = "r00 r01", " ".join(["c01"] * 46)  # the tiny tokenizer adds nothing to a pair
    (cut,) = encoder.scores([(query, rest + " r05" * 500)])
    (fitting,) = encoder.scores([(query, rest)])
    assert cut == pytest.approx(fitting, abs=1e-6)


def test_what_is_no_cross_encoder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="a cross-encoder with 2 outputs, where one score is needed"):
        load_cross_encoder(save_cross_encoder(tmp_path / "two", outputs=2))
    plain = save_tiny_encoder(tmp_path / "plain", num_labels=1)
    with pytest.raises(ModelError, match="an encoder and no cross-encoder: classifier"):
        load_cross_encoder(str(plain))
    with pytest.raises(ModelError, match="the model does not exist"):
        load_cross_encoder(str(tmp_path / "nothing"))


def test_the_threshold_is_of_the_sigmoid_of_the_score(cross_encoder):
    scores = torch.tensor(list(load_cross_encoder(cross_encoder).scores(PAIRS))).sigmoid()
    threshold = float(scores.median()) + 1e-5
    words = list(open_judge(cross_encoder, threshold, None).words(PAIRS))
    assert words == ["relevant" if score >= threshold else "not relevant" for score in scores]
    assert len(set(words)) == 2
    for end, word in ((0.0, "relevant"), (1.0, "not relevant")):
        assert set(open_judge(cross_encoder, end, None).words(PAIRS)) == {word}


def test_every_pair_is_judged_once_and_a_cut_off_judge_goes_on(project, cross_encoder):
    judge, queue = open_judge(cross_encoder, 0.5, None), project.queue("kept")
    first = judge_all(project, queue[:20], judge)
    assert sum(first.values()) == 20
    assert first["skipped"] == 0
    second = judge_all(project, queue, judge)
    assert second["skipped"] == 20
    assert sum(second.values()) == len(queue)
    judged = of_one(project.store.standing(), f"{cross_encoder} at 0.5", "model")
    assert [(v.query_id, v.passage_id) for v in judged] == [(c.query_id, c.passage_id) for c in queue]
    assert judge_all(project, queue[:2], open_judge(cross_encoder, 0.6, None))["skipped"] == 0


# --- the endpoint


class Endpoint(ThreadingHTTPServer):
    """Answers each request with the next of `answers`: a status, or the text of a completion. Keeps what was asked."""

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked = list(answers), []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1/"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, json.loads(body), self.headers.get("Authorization")))
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        content = json.dumps({"choices": [{"message": {"content": answer}}]}) if isinstance(answer, str) else "no"
        self.send_response(200 if isinstance(answer, (str, bytes)) else answer)
        if answer == 302:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else content.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    servers, pauses = [], []
    monkeypatch.setattr(chat.time, "sleep", pauses.append)

    def start(*answers):
        server = Endpoint(answers)
        server.pauses = pauses
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_endpoint_is_asked_as_openai_describes_it(endpoint):
    server = endpoint("Not relevant.")
    model = ChatModel(server.url, "judge-1", "secret")
    assert model.judge("what? \ud800", "x" * 9_000) == "not relevant"
    ((path, asked, authorization),) = server.asked
    assert (path, authorization) == ("/v1/chat/completions", "Bearer secret")
    assert (asked["model"], asked["temperature"]) == ("judge-1", 0)
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert "what? \ud800" in asked["messages"][1]["content"]
    assert asked["messages"][1]["content"].count("x") == 8_000
    assert "secret" not in repr(model)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("relevant", "relevant"),
        ("**Relevant**", "relevant"),
        ("Not relevant.", "not relevant"),
        ("not_relevant", "not relevant"),
        ("Irrelevant", "not relevant"),
        ("unsure", "unsure"),
        ("<think>It is relevant, is it?</think>\nnot relevant", "not relevant"),
        ("I would say: relevant", "relevant"),
        ("yes", "unsure"),
        ("", "unsure"),
    ],
)
def test_answers_as_models_write_them(answer, word):
    assert word_of(answer) == word


def test_a_busy_endpoint_is_asked_again(endpoint):
    server = endpoint(503, 429, b"", "relevant")
    with pytest.raises(M3TuneError, match="no chat completion"):
        ChatModel(server.url, "m").judge("q", "p")
    assert server.pauses == [0.0, 1.0, 4.0]
    assert ChatModel(server.url, "m").judge("q", "p") == "relevant"
    assert len(server.asked) == 4


@pytest.mark.parametrize(("status", "tries"), [(401, 1), (400, 1), (302, 1), (500, 4)])
def test_an_endpoint_that_refuses_is_named(endpoint, status, tries):
    server = endpoint(status)
    with pytest.raises(M3TuneError, match=f"the judge does not answer .HTTP {status}: 'no'"):
        ChatModel(server.url, "m", "secret").judge("q", "p")
    assert len(server.asked) == tries


def test_nobody_at_the_address_is_said_after_four_tries(endpoint):
    server = endpoint("relevant")
    url, pauses = server.url, server.pauses
    server.shutdown()
    server.server_close()
    with pytest.raises(M3TuneError, match="the judge does not answer"):
        ChatModel(url, "m").judge("q", "p")
    assert len(pauses) == 4


def test_a_slow_endpoint_times_out(endpoint, monkeypatch):
    asked = []

    def slow(*_, timeout):
        asked.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", slow)
    with pytest.raises(M3TuneError, match="timed out"):
        ChatModel("http://127.0.0.1:9", "m").judge("q", "p")
    assert asked == [60.0] * 4


@pytest.mark.parametrize("url", ["ftp://host/v1", "file:///etc/passwd", "http://", "localhost:8000"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(M3TuneError, match="no address of an endpoint"):
        ChatModel(url, "m")


def test_a_key_never_travels_in_the_clear():
    with pytest.raises(M3TuneError, match="unencrypted") as error:
        ChatModel("http://judge.example/v1", "m", "secret")
    assert "secret" not in str(error.value)
    ChatModel("https://judge.example/v1", "m", "secret")
    ChatModel("http://judge.example/v1", "m")


def test_the_command_judges_a_sample_and_goes_on_after_a_failure(m3tune, run, endpoint, monkeypatch):
    monkeypatch.setenv("M3TUNE_JUDGE_KEY", "secret")
    server = endpoint("relevant", "not relevant", "unsure", 401)
    arguments = ("review", run, "--judge", server.url, "--judge-model", "judge-1", "--estimate", "30")
    code, out, err = m3tune(*arguments)
    assert (code, out) == (cli.USER_ERROR, "")
    assert "HTTP 401" in err
    assert "goes on where it stopped" in err
    server.answers = ["not relevant"]
    code, out, _ = m3tune(*arguments, "--json")
    assert (code, json.loads(out)) == (cli.FINE, {"skipped": 3, "not relevant": 27})
    found = json.loads(m3tune("review", run, "--results", "--json")[1])
    assert list(found["estimates"]) == ["model judge-1"]
    assert found["reviewers"] == [
        {"reviewer": "judge-1", "kind": "model", "relevant": 1, "not relevant": 28, "unsure": 1}
    ]
    assert {authorization for *_, authorization in server.asked} == {"Bearer secret"}


def test_the_command_judges_by_a_cross_encoder(m3tune, run, cross_encoder):
    code, out, _ = m3tune("review", run, "--judge", cross_encoder, "--show", "all", "--json")
    assert code == cli.FINE
    assert sum(json.loads(out).values()) == 88
