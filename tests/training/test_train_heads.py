"""Training with several heads, teachers, frozen parts and adapters."""

import json
from pathlib import Path

import pytest
import torch

from m3tune import delivering, pipeline
from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.collection import Collection
from m3tune.data.similar import Similar
from m3tune.errors import RecipeError, TrainingError
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder, save_encoder
from m3tune.recipe import build_recipe
from m3tune.retrieval import corpus as corpus_module
from m3tune.retrieval.encode import encode_tokens, tokenize_passages, tokenize_queries
from m3tune.scoring import hybrid, multi_scores, sparse_scores
from m3tune.training.callbacks import LOG_FILE
from m3tune.training.objective import Known, Objective, unified
from m3tune.training.parts import training_parts
from m3tune.training.train import train
from m3tune.training.warm_start import warm_start_sparse
from m3tune.types import Judgment, Negative
from m3tune.vectors import split_at
from tiny import tiny_collection, write_llamaindex

METRIC = "nDCG@10"
TRAIN_QUERIES = tuple(f"q{i}" for i in range(40))
DEV_QUERIES = tuple(f"q{i}" for i in range(40, 60))
BASE = {"epochs": 8, "batch_queries": 8, "learning_rate": 5e-3, "precision": "float32", "logging_steps": 1}
UNIFIED = ["loss_dense", "loss_sparse", "loss_multi", "loss_hybrid"]
SELF = ["loss_self_dense", "loss_self_sparse", "loss_self_multi"]


@pytest.fixture
def encoder(tiny_folders):
    """A tiny BERT with two new heads."""
    return fresh(tiny_folders)


def fresh(tiny_folders, **settings):
    config = {"new_heads": ("sparse", "multi"), "multi_dim": 16} | settings
    return load_encoder(ModelConfig(path=str(tiny_folders["bert"]), **config))[0]


def scores_of_heads(encoder, collection, query_ids=DEV_QUERIES):
    """The (Q, P) scores of each head and of the hybrid over the whole collection."""
    queries = tokenize_queries(encoder, collection, query_ids)
    passages = tokenize_passages(encoder, collection, list(collection.passages))
    texts = [*(queries[i] for i in range(len(queries))), *(passages[i] for i in range(len(passages)))]
    with torch.no_grad():
        q, p = split_at(encoder.eval()(pack(texts)), len(queries))
    scores = {"dense": q.dense @ p.dense.T, "sparse": sparse_scores(q.sparse, p.sparse)}
    scores["multi"] = multi_scores(q.multi, p.multi)
    return scores | {"hybrid": hybrid(scores, {"dense": 1.0, "sparse": 0.3, "multi": 1.0})}


def found_first(scores, collection, query_ids=DEV_QUERIES):
    """Share of queries whose best passage is the relevant one."""
    passages = list(collection.passages)
    right = [passages[row] in collection.positives[q] for q, row in zip(query_ids, scores.argmax(dim=1), strict=True)]
    return sum(right) / len(right)


def first_by_hybrid(encoder, collection):
    return {METRIC: found_first(scores_of_heads(encoder, collection)["hybrid"], collection)}


def tuned(encoder, collection, folder, evaluate_dev=None, similar=None, **config):
    folder.mkdir(exist_ok=True)
    said = []
    result = train(
        encoder, collection, similar or Similar(), TRAIN_QUERIES, TrainConfig(**BASE | config), METRIC,
        evaluate_dev or (lambda current: first_by_hybrid(current, collection)),
        folder, said.append,
    )  # fmt: skip
    return result, said


def constant(_):
    return {METRIC: 0.5}


def weights_of(encoder):
    return {name: weight.clone() for name, weight in encoder.state_dict().items()}


def moved(before, after):
    """Names of the weights that changed."""
    return {name for name in before if not torch.equal(before[name], after[name])}


# --- it learns


def test_new_heads_learn_and_every_part_of_the_loss_is_logged(encoder, collection, tmp_path):
    untrained = {name: found_first(s, collection) for name, s in scores_of_heads(encoder, collection).items()}
    result, said = tuned(encoder, collection, tmp_path, self_distill=True, self_distill_start=0.5)
    trained = {name: found_first(s, collection) for name, s in scores_of_heads(encoder, collection).items()}
    assert all(trained[name] > untrained[name] + 0.2 for name in ("dense", "multi", "hybrid")), (untrained, trained)
    assert trained["sparse"] >= 0.7, trained
    assert "starts from inverse document frequency" in said[0]
    lines = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == result.steps == 40
    for number, line in enumerate(steps):
        names = UNIFIED + (SELF if number >= 20 else [])
        assert [name for name in line if name.startswith("loss_")] == names, number
        base = (line["loss_dense"] + 0.1 * line["loss_sparse"] + line["loss_multi"] + line["loss_hybrid"]) / 4
        if number >= 20:
            taught = line["loss_self_dense"] + 0.1 * line["loss_self_sparse"] + line["loss_self_multi"]
            base = (base + taught / 3) / 2
        assert line["loss"] == pytest.approx(base, abs=1e-3)


def test_a_dense_model_logs_one_loss(tiny_folders, collection, tmp_path):
    encoder = fresh(tiny_folders, new_heads=(), multi_dim=None)
    result, said = tuned(encoder, collection, tmp_path, evaluate_dev=constant, max_steps=2)
    assert not any(name.startswith("loss_") for line in result.log for name in line)
    assert [line.partition(":")[0] for line in said] == ["plan"]


def test_heads_that_the_loss_does_not_look_at_stay_as_they_are(encoder, collection, tmp_path):
    before = weights_of(encoder)
    encoder.new_heads = ()
    tuned(encoder, collection, tmp_path, evaluate_dev=constant, max_steps=2, evaluations=1, loss_weights=[1, 0, 0, 0])
    changed = moved(before, weights_of(encoder))
    assert changed
    assert not any(name.startswith("heads.") for name in changed)


def test_an_interrupted_run_goes_on_with_its_heads_and_its_self_distillation(tiny_folders, collection, tmp_path):
    config = {"max_steps": 8, "evaluations": 4, "self_distill": True, "self_distill_start": 0.5}
    whole = fresh(tiny_folders)
    expected, _ = tuned(whole, collection, tmp_path / "whole", evaluate_dev=constant, **config)

    calls = []

    def failing(_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {METRIC: 0.5}

    with pytest.raises(KeyboardInterrupt):
        tuned(fresh(tiny_folders), collection, tmp_path / "cut", evaluate_dev=failing, **config)
    again = fresh(tiny_folders)
    result, said = tuned(again, collection, tmp_path / "cut", evaluate_dev=constant, **config)
    assert said[0] == "going on from checkpoint-2"
    assert not any("inverse document frequency" in line for line in said), "the warm start is not done again"
    losses = [[{k: v for k, v in line.items() if "loss" in k and k != "train_loss"} for line in r.log if "loss" in line]
              for r in (result, expected)]  # fmt: skip
    assert losses[0] == losses[1]
    assert ["loss_self_dense" in line for line in losses[0]] == [False] * 4 + [True] * 4
    assert moved(weights_of(again), weights_of(whole)) == set()


# --- teachers


@pytest.fixture(scope="module")
def taught():
    """The tiny collection with a negative a query, and a teacher's score for every given pair."""
    plain = tiny_collection()
    passages = list(plain.passages)
    judgments = tuple(Judgment(j.query_id, j.passage_id, 1, 4.0) for j in plain.judgments)
    negatives = tuple(
        Negative(j.query_id, passages[(i + 1) % len(passages)], score=-2.0) for i, j in enumerate(plain.judgments)
    )
    return Collection(plain.queries, plain.passages, judgments, negatives)


@pytest.mark.parametrize("distill", ["kl", "ordered", "margin"])
def test_a_teachers_scores_reach_the_loss(tiny_folders, taught, tmp_path, distill):
    losses = {}
    for kind in ("none", distill):
        config = {"max_steps": 1, "negatives_per_query": 1, "distill": kind}
        result, _ = tuned(fresh(tiny_folders), taught, tmp_path / kind, evaluate_dev=constant, **config)
        losses[kind] = next(line["loss"] for line in result.log if "loss" in line)
        assert result.counts.get("queries_with_teacher_scores") == (None if kind == "none" else 40)
    assert abs(losses[distill] - losses["none"]) > 1e-3


def test_distillation_without_scores_says_what_is_missing(encoder, collection, tmp_path):
    with pytest.raises(TrainingError, match="the data brings no teacher scores") as caught:
        tuned(encoder, collection, tmp_path, distill="kl")
    assert "pos_scores" in caught.value.fix


# --- parts


@pytest.mark.parametrize("part", ["all", "no embeddings", "heads"])
def test_only_the_part_that_is_named_learns(encoder, collection, tmp_path, part):
    encoder.new_heads = ()
    before = weights_of(encoder)
    tuned(encoder, collection, tmp_path, evaluate_dev=constant, max_steps=2, evaluations=1, train_part=part)
    changed = moved(before, weights_of(encoder))
    heads = {name for name in before if name.startswith("heads.")}
    tables = {name for name in before if name.endswith("_embeddings.weight")}
    assert len(tables) == 3
    assert heads <= changed
    assert (changed == heads) == (part == "heads")
    assert bool(changed & tables) == (part == "all")


def test_heads_learn_at_their_own_rate(encoder, collection, tmp_path):
    encoder.new_heads = ()
    before = weights_of(encoder)
    rates = {"learning_rate": 1e-9, "head_learning_rate": 1e-2, "schedule": "constant", "warmup": 0}
    tuned(encoder, collection, tmp_path, evaluate_dev=constant, max_steps=2, evaluations=1, **rates)
    step = {name: (weight - before[name]).abs().max().item() for name, weight in encoder.state_dict().items()}
    assert all(value > 5e-3 for name, value in step.items() if name.startswith("heads.") and name.endswith("weight"))
    assert all(value < 1e-7 for name, value in step.items() if name.startswith("backbone."))


@pytest.mark.parametrize("apart", [True, False])
def test_heads_that_learn_apart_leave_the_dense_head_as_if_it_were_alone(tiny_folders, collection, tmp_path, apart):
    grads = {}
    for name, heads in (("alone", ()), ("beside", ("sparse", "multi"))):
        encoder = fresh(tiny_folders, new_heads=heads, multi_dim=None)
        config = TrainConfig(**BASE, heads_apart=apart and name == "beside")
        with training_parts(encoder, config):
            loss = loss_of(encoder, collection, config)
            loss.backward()
        assert not encoder.heads_apart, "an encoder as before"
        assert all(weight.grad.abs().max() > 0 for weight in encoder.heads.parameters()), "they learn all the same"
        # Else that of a hybrid too, and the sum is divided by how many there are.
        losses = 1 if apart else 1 + len(heads) + bool(heads)
        grads[name] = torch.cat(
            [w.grad.flatten() * losses for w in encoder.backbone.parameters() if w.grad is not None]
        )
    off = (grads["beside"] - grads["alone"]).norm() / grads["alone"].norm()
    assert (off < 1e-5) == apart
    assert apart or off > 0.1


@pytest.mark.parametrize("apart", [True, False])
def test_training_apart_moves_the_encoder_as_training_dense_alone_does(tiny_folders, collection, tmp_path, apart):
    """Clipping too, which is at work in every step here."""
    ended = {}
    for name, heads in (("alone", ()), ("beside", ("sparse", "multi"))):
        encoder = fresh(tiny_folders, new_heads=heads, multi_dim=None)
        settings = {"max_steps": 6, "evaluations": 1, "max_grad_norm": 0.05, "heads_apart": apart and bool(heads)}
        tuned(encoder, collection, tmp_path / name, evaluate_dev=constant, **settings)
        ended[name] = torch.cat([weight.flatten() for weight in encoder.backbone.parameters()])
    assert ((ended["beside"] - ended["alone"]).abs().max() < 1e-5) == apart


def loss_of(encoder, collection, config):
    """The unified loss of the training queries with a passage each."""
    query_ids = TRAIN_QUERIES[:8]
    queries = tokenize_queries(encoder, collection, query_ids)
    passages = tokenize_passages(encoder, collection, [collection.positives[q][0] for q in query_ids])
    texts = [*(queries[i] for i in range(len(queries))), *(passages[i] for i in range(len(passages)))]
    positive = torch.eye(len(queries), dtype=torch.bool)
    known = Known(positive, ~positive, torch.zeros_like(positive), torch.full(positive.shape, torch.nan))
    return unified(Objective.of(config), *split_at(encoder(pack(texts)), len(queries)), known, self_distill=False).loss


@pytest.mark.parametrize("targets", [(), ("query", "value")], ids=str)
def test_adapters_are_merged_into_an_encoder_as_before(tiny_folders, collection, tmp_path, targets):
    pytest.importorskip("peft")
    encoder = fresh(tiny_folders)
    before = weights_of(encoder)
    config = {"lora_rank": 4, "lora_targets": targets, "max_steps": 8, "evaluations": 2, "learning_rate": 2e-2}
    result, _ = tuned(encoder, collection, tmp_path / "run", **config)
    after = weights_of(encoder)
    assert set(after) == set(before)
    changed = {name for name in moved(before, after) if name.startswith("backbone.")}
    assert changed
    if targets:
        assert {name.split(".")[-2] for name in changed} == set(targets)
    assert not any("embeddings" in name or "LayerNorm" in name or name.endswith("bias") for name in changed)
    scores = scores_of_heads(encoder, collection)["hybrid"]
    assert found_first(scores, collection) == result.best_metric, "what was measured is what was merged"
    save_encoder(encoder, tmp_path / "model")
    loaded, _ = load_encoder(ModelConfig(path=str(tmp_path / "model")))
    torch.testing.assert_close(scores_of_heads(loaded, collection)["hybrid"], scores, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("heads", "config", "match"),
    [
        ((), {"train_part": "heads"}, "only the heads are to learn, but this encoder has no head"),
        ((), {"self_distill": True}, "needs two heads"),
        (("sparse",), {"self_distill": True, "hybrid_weights": [1, 0, 1]}, "needs two heads"),
        ((), {"loss_weights": [0, 1, 1, 1]}, r"every loss of this model's heads \(dense\) weighs nothing"),
        ((), {"matryoshka_dims": [16, 32]}, "32 is not shorter than this encoder's 32 dimensions"),
        ((), {"lora_rank": 4, "lora_targets": ["nothing"]}, "no adapters: .*nothing"),
        (("sparse",), {"lora_rank": 4, "train_part": "heads"}, "adapters are asked for, but only the heads"),
        (("sparse",), {"heads_apart": True, "loss_weights": [0, 1, 1, 1]}, "learns from the dense head alone"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_way_out(tiny_folders, collection, tmp_path, heads, config, match):
    encoder = fresh(tiny_folders, new_heads=heads, multi_dim=None)
    with pytest.raises(TrainingError, match=match) as caught:
        tuned(encoder, collection, tmp_path, evaluate_dev=constant, max_steps=1, **config)
    assert caught.value.fix
    assert caught.value.where.startswith("train.")


def test_matryoshka_makes_short_vectors_better(tiny_folders, collection, tmp_path):
    first = {}
    for dims in ((), (4,)):
        encoder = fresh(tiny_folders, new_heads=(), multi_dim=None)
        tuned(
            encoder, collection, tmp_path / str(len(dims)), evaluate_dev=constant, evaluations=1, matryoshka_dims=dims
        )
        tokens = (
            tokenize_queries(encoder, collection, TRAIN_QUERIES),
            tokenize_passages(encoder, collection, list(collection.passages)),
        )
        queries, passages = (encode_tokens(encoder, texts, torch.float32).dense for texts in tokens)
        short = [torch.nn.functional.normalize(torch.from_numpy(v)[:, :4], dim=1) for v in (queries, passages)]
        first[dims] = found_first(short[0] @ short[1].T, collection, TRAIN_QUERIES)
    assert first[(4,)] > first[()] + 0.1


# --- the warm start


def test_the_warm_start_weighs_rare_words_more_and_ranks_before_any_training(tiny_folders, collection):
    encoder = fresh(tiny_folders)
    passages = tokenize_passages(encoder, collection, list(collection.passages))
    before = found_first(scores_of_heads(encoder, collection)["sparse"], collection)
    explained = warm_start_sparse(encoder, passages, torch.float32)
    assert explained > 0.4
    after = found_first(scores_of_heads(encoder, collection)["sparse"], collection)
    assert after > before + 0.3
    with torch.no_grad():
        sparse = encoder(pack([passages[i] for i in range(len(passages))]), heads=("sparse",)).sparse
    words = encoder.tokenizer.convert_ids_to_tokens(sparse.token_ids.tolist())
    rare = torch.tensor([word.startswith("r") for word in words])
    assert sparse.weights[rare].mean() > 1.4 * sparse.weights[~rare].mean()
    self_scores = sparse_scores(sparse, sparse).diagonal()
    assert self_scores.mean().item() == pytest.approx(1, abs=0.25)


def test_the_warm_start_is_the_ridge_regression(tiny_folders, collection, monkeypatch):
    """Against torch's least squares on all token states at once, with a row for each penalised weight.

    A layer norm's states add up to nothing, so without a ridge of some size the solution would be one of many.
    """
    from m3tune.model.backbone import run_packed
    from m3tune.training import warm_start

    encoder = fresh(tiny_folders)
    monkeypatch.setattr(warm_start, "_RIDGE", 1e-5)
    monkeypatch.setattr(warm_start, "_BUDGET_TOKENS", 100)
    passages = tokenize_passages(encoder, collection, list(collection.passages))
    warm_start.warm_start_sparse(encoder, passages, torch.float32)
    packed = pack([passages[i] for i in range(len(passages))])
    kept = torch.isin(packed.input_ids, encoder.weightless, invert=True)
    with torch.no_grad():
        states = run_packed(encoder.backbone, packed)[kept].double()
    texts_with = torch.zeros(64)
    for i in range(len(passages)):
        texts_with[sorted(set(passages[i].tolist()))] += 1
    idf = torch.log1p((len(passages) - texts_with + 0.5) / (texts_with + 0.5)).double()
    square = sum(idf[[t for t in set(passages[i].tolist()) if t > 3]].square().sum() for i in range(len(passages)))
    target = idf[packed.input_ids[kept]] / (square / len(passages)).sqrt()
    inputs = torch.cat([states, torch.ones(len(states), 1)], dim=1)
    penalty = torch.eye(inputs.shape[1]).double() * (1e-5 * states.square().sum(dim=0).mean()).sqrt()
    penalty[-1] = 0  # of the bias
    rows, towards = torch.cat([inputs, penalty]), torch.cat([target, torch.zeros(len(penalty)).double()])
    expected = torch.linalg.lstsq(rows, towards[:, None], driver="gelsd").solution.squeeze(1)
    head = encoder.linear("sparse")
    ours = torch.cat([head.weight[0], head.bias]).double()
    torch.testing.assert_close(inputs @ ours, inputs @ expected, atol=1e-3, rtol=0)
    assert target.std() > 0.05


def test_a_frozen_encoder_can_still_be_taught_its_heads(tiny_folders, collection, tmp_path):
    encoder = fresh(tiny_folders)
    before = weights_of(encoder)
    result, _ = tuned(encoder, collection, tmp_path, train_part="heads", max_steps=20, evaluations=2)
    losses = [line["loss_multi"] for line in result.log if "loss_multi" in line]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(name.startswith("heads.") for name in moved(before, weights_of(encoder)))


def run_with_heads(folder, output, collection, **evaluate):
    recipe = build_recipe({
        "output": str(output),
        "data": {"path": str(write_llamaindex(output.parent / "data.json", collection))},
        "model": {"path": str(folder), "new_heads": ["sparse", "multi"], "multi_dim": 16},
        "train": {**BASE, "epochs": 4, "self_distill": True, "head_learning_rate": 1e-2},
        "evaluate": {"resamples": 100, **evaluate},
        "select": {"alphas": []},
    })  # fmt: skip
    return recipe, pipeline.run(recipe)


@pytest.fixture(scope="module")
def whole_run(tiny_folders, collection, tmp_path_factory):
    """(recipe, verdict) of a whole run that starts two heads. Never written to."""
    return run_with_heads(tiny_folders["bert"], tmp_path_factory.mktemp("whole") / "run", collection)


def read(output, *names):
    return json.loads(output.joinpath(*names).read_text())


def test_a_whole_run_delivers_the_heads_it_taught(whole_run, tiny_folders):
    output = Path(whole_run[0].output)
    assert read(output, "verdict.json")["delivered"] == "tuned"
    delivered, _ = load_encoder(ModelConfig(path=str(output / "model")))
    assert delivered.settings.heads == ("dense", "sparse", "multi")
    assert delivered.linear("multi").weight.shape == (16, 32)
    start = fresh(tiny_folders)
    assert not torch.equal(delivered.linear("multi").weight, start.linear("multi").weight)


def test_a_whole_run_measures_every_head_and_decides_by_the_hybrid(whole_run):
    output, result = Path(whole_run[0].output), whole_run[1]
    assert list(read(output, "base", "metrics.json")) == ["dense"], "nobody has taught the base its new heads"
    tuned = read(output, "tuned", "metrics.json")
    assert list(tuned) == ["dense", "sparse", "multi", "hybrid", "rrf"]
    assert result.head == "hybrid"
    assert result.tuned == pytest.approx(tuned["hybrid"][METRIC], abs=1e-6)
    assert result.base == pytest.approx(read(output, "base", "metrics.json")["dense"][METRIC], abs=1e-6)
    assert set(read(output, "tuned", "search.json")) == set(tuned)
    selection = read(output, "train", "selection.json")
    assert (selection["base_head"], selection["head"]) == ("dense", "hybrid")
    logged = [json.loads(line) for line in (output / "train" / LOG_FILE).read_text().splitlines()]
    at_best = next(line for line in logged if line.get("step") == result.checkpoint and f"eval_{METRIC}" in line)
    assert at_best[f"eval_{METRIC}"] == pytest.approx(selection["best_checkpoint"])
    assert f"eval_{METRIC} sparse" in at_best
    assert not (output / "vectors").exists()


def test_weights_are_tuned_on_development_data_and_go_with_the_model(whole_run):
    output = Path(whole_run[0].output)
    tuning = read(output, "select", "tuned", "hybrid.json")
    assert tuning == read(output, "train", "hybrid.json"), "the checkpoint's, tuned twice"
    best = max([tuning["default"], *tuning["grid"]], key=lambda point: point["value"])
    assert tuning["best"]["value"] == best["value"] == pytest.approx(read(output, "train", "selection.json")["tuned"])
    assert read(output, "model", "m3tune.json")["hybrid_weights"] == tuning["best"]["weights"]
    loaded, _ = load_encoder(ModelConfig(path=str(output / "model")))
    assert loaded.settings.hybrid_weights == tuning["best"]["weights"]


def test_heads_are_compared_in_pairs_and_stand_in_the_report(whole_run):
    output = Path(whole_run[0].output)
    compared = read(output, "heads.json")
    pairs = {(of["first"]["name"], of["first"]["head"], of["second"]["head"]) for of in compared}
    assert {("tuned", "dense", "hybrid"), ("bm25", "bm25", "hybrid"), ("base", "dense", "dense")} <= pairs
    tuned = read(output, "tuned", "metrics.json")
    for of in compared:
        row = next(row for row in of["metrics"] if row["metric"] == METRIC)
        assert row["ci95"][0] <= row["difference"] <= row["ci95"][1]
        assert row["tuned"] == pytest.approx(tuned[of["second"]["head"]][METRIC], abs=1e-6)
    page = (output / "report.html").read_text()
    assert "the base model by dense, the tuned one by hybrid" in page
    assert page.count("share of the") >= 3


def test_a_run_whose_vectors_go_to_disk_finds_the_same(whole_run, tiny_folders, collection, tmp_path, monkeypatch):
    stored = []
    store = corpus_module.store_vectors
    monkeypatch.setattr(corpus_module, "_MEMORY_BYTES", 0)
    monkeypatch.setattr(corpus_module, "store_vectors", lambda *a, **k: (stored.append(a[3].name), store(*a, **k))[1])
    run_with_heads(tiny_folders["bert"], tmp_path / "run", collection)
    assert set(stored) == {"base", "dev", "select", "tuned"}
    assert not (tmp_path / "run" / "vectors").exists()
    for stage in ("base", "tuned"):
        expected = read(Path(whole_run[0].output), stage, "metrics.json")
        for head, metrics in read(tmp_path / "run", stage, "metrics.json").items():
            assert metrics == pytest.approx(expected[head], abs=0.1), "multi-vectors are float16 there"
            if head == "dense":
                assert metrics == expected[head]


def test_a_verdict_by_another_head_and_untuned_weights(tiny_folders, collection, tmp_path):
    _, result = run_with_heads(tiny_folders["bert"], tmp_path / "run", collection, head="multi", tune_weights=False)
    assert result.head == "multi"
    assert result.tuned == pytest.approx(read(tmp_path / "run", "tuned", "metrics.json")["multi"][METRIC], abs=1e-6)
    assert not (tmp_path / "run" / "train" / "hybrid.json").exists()
    weights = read(tmp_path / "run", "model", "m3tune.json")["hybrid_weights"]
    assert weights == {"dense": 1.0, "sparse": 0.3, "multi": 1.0}


def test_heads_that_nobody_taught_are_not_delivered(tiny_folders, collection, tmp_path, monkeypatch):
    monkeypatch.setattr(delivering, "verdict", lambda *_: "worse")
    _, result = run_with_heads(tiny_folders["bert"], tmp_path / "run", collection)
    assert result.delivered == "base"
    assert read(tmp_path / "run", "model", "m3tune.json")["heads"] == ["dense"]
    assert not list((tmp_path / "run" / "model").glob("*_linear.pt"))


def test_a_base_with_heads_is_measured_and_delivered_by_its_own_hybrid(m3_folder, collection, tmp_path):
    recipe = build_recipe({
        "output": str(tmp_path / "run"),
        "data": {"path": str(write_llamaindex(tmp_path / "data.json", collection))},
        "model": {"path": str(m3_folder)},
        "train": {**BASE, "max_steps": 1, "learning_rate": 1e-9},
        "evaluate": {"resamples": 100},
    })  # fmt: skip
    result = pipeline.run(recipe)
    assert (result.head, result.difference, result.delivered) == ("hybrid", 0.0, "base")
    weights = read(tmp_path / "run", "base", "hybrid.json")["best"]["weights"]
    assert read(tmp_path / "run", "model", "m3tune.json")["hybrid_weights"] == weights


def test_a_head_that_nothing_gives_cannot_decide(tiny_folders, collection, tmp_path):
    recipe = build_recipe({
        "output": str(tmp_path / "run"),
        "data": {"path": str(write_llamaindex(tmp_path / "data.json", collection))},
        "model": {"path": str(tiny_folders["bert"])},
        "evaluate": {"head": "hybrid"},
    })  # fmt: skip
    with pytest.raises(RecipeError, match="'hybrid' decides, but this model has dense only") as caught:
        pipeline.run(recipe)
    assert caught.value.where == "evaluate.head"


# --- health

HEALTH = {
    "sparse_tokens_query", "sparse_tokens_passage", "sparse_empty", "dense_norm", "dense_norm_sd", "dense_cosine",
    "dense_uniformity", "dense_rank", "dense_rank_share",
    *(f"score_{head}_{kind}{sd}" for head in ("dense", "sparse", "multi", "hybrid")
      for kind in ("positive", "negative") for sd in ("", "_sd")),
}  # fmt: skip


def health_of(line):
    return {name for name in line if name.startswith(("score_", "sparse_", "dense_"))}


def test_every_logged_step_has_its_health_and_a_margin_the_share_of_suspects(encoder, collection, tmp_path):
    result, said = tuned(
        encoder, collection, tmp_path, evaluate_dev=constant, epochs=1.4, evaluations=1, logging_steps=3,
        false_negative_margin=0.0,
    )  # fmt: skip
    lines = [line for line in result.log if "loss" in line]
    assert [line["step"] for line in lines] == [1, 3, 6]
    assert all(health_of(line) == HEALTH for line in lines)
    assert all(0 <= line["negatives_suspected"] < 1 for line in lines)
    assert any(line["negatives_suspected"] for line in lines)
    assert not any(line.startswith("warning") for line in said)
    dense_only = {name for name in HEALTH if name.startswith(("score_dense", "dense"))}
    result, _ = tuned(
        encoder, collection, tmp_path / "dense", evaluate_dev=constant, max_steps=1, loss_weights=[1, 0, 0, 0]
    )
    assert health_of(result.log[0]) == dense_only
    assert "negatives_suspected" not in result.log[0]


def test_illness_is_said_once_and_stands_in_every_line_that_shows_it(encoder, collection, tmp_path):
    encoder.new_heads = ()  # so that the head is not warm-started
    with torch.no_grad():
        encoder.linear("sparse").weight.zero_()
        encoder.linear("sparse").bias.fill_(-1)
    result, said = tuned(encoder, collection, tmp_path, evaluate_dev=constant, max_steps=3, evaluations=1)
    lines = [line for line in result.log if "loss" in line]
    assert [line["sparse_empty"] for line in lines] == [1, 1, 1], "no gradient reaches it"
    assert [line["warning_sparse-vectors-die"] for line in lines] == [1, 1, 1]
    _plan, warning = said
    assert warning.startswith("warning: train, step 1: 100% of the sparse vectors of a batch are empty")
    written = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert sum("warning_sparse-vectors-die" in line for line in written) == 3
