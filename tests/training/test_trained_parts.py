"""What learns: the heads alone, the encoder without its embeddings, adapters, heads apart from the encoder."""

import pytest
import torch
from heads import BASE, TRAIN_QUERIES, constant, found_first, fresh, moved, scores_of_heads, tuned, weights_of

from m3tune.config import ModelConfig, TrainConfig
from m3tune.errors import TrainingError
from m3tune.model.encoder import set_dropout
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder, save_encoder
from m3tune.retrieval.encode import tokenize_passages, tokenize_queries
from m3tune.training.objective import Known, Objective, unified
from m3tune.training.parts import training_parts
from m3tune.vectors import split_at


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


def test_a_frozen_encoder_can_still_be_taught_its_heads(tiny_folders, collection, tmp_path):
    encoder = fresh(tiny_folders)
    before = weights_of(encoder)
    result, _ = tuned(encoder, collection, tmp_path, train_part="heads", max_steps=20, evaluations=2)
    losses = [line["loss_multi"] for line in result.log if "loss_multi" in line]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(name.startswith("heads.") for name in moved(before, weights_of(encoder)))


@pytest.mark.parametrize("part", ["no embeddings", "heads", "adapters"])
def test_what_is_frozen_is_not_taken_backward_through_where_layers_are_recomputed(encoder, part):
    config = TrainConfig(lora_rank=2, lora_targets=("query",)) if part == "adapters" else TrainConfig(train_part=part)
    found, embedded = [], []
    set_dropout(encoder, 0.0)
    with training_parts(encoder, config):
        embeddings = encoder.backbone.get_input_embeddings()
        for recomputed in (False, True):
            encoder.recompute_layers(recomputed)
            encoder.train().zero_grad()
            handle = embeddings.register_forward_hook(lambda *seen: embedded.append(seen[2].requires_grad))
            vectors = encoder(pack([torch.arange(5, 12).numpy(), torch.arange(20, 25).numpy()]))
            (vectors.sparse.weights.sum() + vectors.multi.vectors[:, 0].sum()).backward()
            handle.remove()
            found.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
    assert embedded == [False, False]
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-7)
    assert any(gradient.abs().max() > 1e-4 for gradient in found[0].values())
