"""The unified loss against FlagEmbedding's, and where FlagEmbedding's is not what it means to be."""

import json

import pytest
import torch

from flag import (
    assert_same_gradients,
    both_sides,
    flag_model,
    gradients_by_name,
    known_groups,
    padded,
    random_texts,
)
from m3tune.config import ModelConfig, TrainConfig
from m3tune.model.weights import load_encoder
from m3tune.scoring import hybrid
from m3tune.training.objective import Objective, head_scores, unified

pytestmark = pytest.mark.peers

GROUPS = [(4, 1), (3, 2), (5, 4)]  # (queries, passages of each)
M3 = Objective.of(TrainConfig(temperature=0.02))
IN_BATCH, OWN = {"no_in_batch_neg_flag": False}, {"no_in_batch_neg_flag": True}


def encoder_of(folder):
    return load_encoder(ModelConfig(path=str(folder)))[0]


def batch(num_queries, group, seed=0):
    """Queries and passages that need no padding, and teacher scores that fall within each group."""
    queries = random_texts(num_queries, 6, seed=seed)
    passages = random_texts(num_queries * group, 11, seed=seed + 1)
    teacher = torch.randn(num_queries, group, generator=torch.Generator().manual_seed(seed))
    return queries, passages, teacher.sort(dim=1, descending=True).values * 2


def flag_loss(model, queries, passages, teacher=None, **options):
    scores = None if teacher is None else teacher.flatten().tolist()
    return model(padded(queries), padded(passages), teacher_scores=scores, **options).loss


def our_loss(encoder, objective, queries, passages, known, self_distill):
    return unified(objective, *both_sides(encoder, queries, passages), known, self_distill=self_distill)[0]


@pytest.mark.parametrize("num_queries, group", GROUPS, ids=str)
@pytest.mark.parametrize("distill", ["none", "kl", "ordered"])
@pytest.mark.parametrize("self_distill", [False, True], ids=["", "self-distilled"])
def test_the_unified_loss_and_all_gradients_are_flagembeddings(m3_folder, num_queries, group, distill, self_distill):
    queries, passages, teacher = batch(num_queries, group)
    teacher = None if distill == "none" else teacher
    kind = "m3_kd_loss" if distill == "ordered" else "kl_div"
    model = flag_model(m3_folder, use_self_distill=self_distill, kd_loss_type=kind)
    theirs = flag_loss(model, queries, passages, teacher, **IN_BATCH)
    encoder = encoder_of(m3_folder)
    objective = Objective.of(TrainConfig(temperature=0.02, distill=distill))
    known = known_groups(num_queries, group, teacher)
    ours = our_loss(encoder, objective, queries, passages, known, self_distill)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert theirs > 1
    assert_same_gradients(gradients_by_name(ours, encoder), gradients_by_name(theirs, None, model))


def test_the_same_for_minilm_with_new_heads(minilm_m3_folder):
    queries = random_texts(3, 6, cls=101, end=102)
    passages = random_texts(6, 11, cls=101, end=102, seed=1)
    model = flag_model(minilm_m3_folder, use_self_distill=True, sentence_pooling_method="mean")
    theirs = flag_loss(model, queries, passages, **IN_BATCH)
    encoder = encoder_of(minilm_m3_folder)
    ours = our_loss(encoder, M3, queries, passages, known_groups(3, 2), True)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert theirs > 0.1
    assert_same_gradients(gradients_by_name(ours, encoder), gradients_by_name(theirs, None, model))


def test_what_the_parts_add_changes_the_loss(m3_folder):
    """The test above would prove little if self-distillation or a teacher changed nothing."""
    queries, passages, teacher = batch(5, 4)
    encoder = encoder_of(m3_folder)
    losses = {
        our_loss(encoder, Objective.of(TrainConfig(temperature=0.02, distill=distill)), queries, passages,
                 known_groups(5, 4, teacher), self_distill).item()
        for distill in ("none", "kl", "ordered") for self_distill in (False, True)
    }  # fmt: skip
    assert len({round(loss, 2) for loss in losses}) == 6


@pytest.mark.parametrize("distill", ["none", "kl"])
def test_each_heads_loss_without_in_batch_negatives_is_flagembeddings(m3_folder, distill):
    """Dense, sparse and multi-vector are right there, its hybrid is not. More queries than a group has crash it."""
    queries, passages, teacher = batch(4, 4)
    teacher = None if distill == "none" else teacher
    model = flag_model(m3_folder)
    theirs = flag_loss(model, queries, passages, teacher, **OWN)
    encoder = encoder_of(m3_folder)
    objective = Objective.of(TrainConfig(temperature=0.02, distill=distill))
    known = known_groups(4, 4, teacher, in_batch=False)
    _, parts, *_ = unified(objective, *both_sides(encoder, queries, passages), known, self_distill=False)
    heads_alone = (parts["dense"] + 0.1 * parts["sparse"] + parts["multi"]) / 4
    hybrid_of_theirs = theirs - heads_alone
    assert hybrid_of_theirs.item() == pytest.approx(0, abs=1e-4)
    assert parts["hybrid"] > 0.5


def test_dense_alone_is_flagembeddings(m3_folder):
    queries, passages, _ = batch(5, 2)
    model = flag_model(m3_folder, unified_finetuning=False)
    theirs = flag_loss(model, queries, passages, **IN_BATCH)
    encoder = encoder_of(m3_folder)
    objective = Objective.of(TrainConfig(temperature=0.02, loss_weights=(1, 0, 0, 0)))
    assert objective.heads(("dense", "sparse", "multi")) == ("dense",)
    ours, parts, *_ = unified(
        objective, *both_sides(encoder, queries, passages), known_groups(5, 2), self_distill=False
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert list(parts) == ["dense"]


# --- where FlagEmbedding's result is not the intended one (docs/decisions/0007-flagembedding-differences.md)


def test_without_in_batch_negatives_flagembeddings_hybrid_loss_is_zero_and_its_teacher_constant(m3_folder):
    queries, passages, _ = batch(3, 3)
    model = flag_model(m3_folder, use_self_distill=True)
    targets = []
    model.distill_loss = lambda kind, target, scores, *_: targets.append(target) or scores.sum() * 0
    flag_loss(model, queries, passages, **OWN)
    assert all(torch.equal(target, torch.ones(3, 1)) for target in targets)  # one column: always certain
    assert len(targets) == 3

    encoder = encoder_of(m3_folder)
    ours = both_sides(encoder, queries, passages)
    known = known_groups(3, 3, in_batch=False)
    _, parts, *_ = unified(M3, *ours, known, self_distill=True)
    scores = {head: score.unflatten(1, (3, 3))[range(3), range(3)] for head, score in head_scores(*ours).items()}
    mixed = hybrid(scores, M3.hybrid_weights) / 0.02  # each query's own group: (3, 3)
    torch.testing.assert_close(
        parts["hybrid"],
        torch.nn.functional.cross_entropy(mixed, torch.zeros(3, dtype=torch.long)),
        atol=1e-4,
        rtol=1e-4,
    )
    student = (scores["dense"] / 0.02).log_softmax(dim=1)
    expected = -(mixed.softmax(dim=1) * student).sum(dim=1).mean()
    torch.testing.assert_close(parts["self_dense"], expected, atol=1e-4, rtol=1e-4)


def test_flagembedding_cannot_distil_an_order_without_in_batch_negatives(m3_folder):
    queries, passages, teacher = batch(4, 3)
    model = flag_model(m3_folder, kd_loss_type="m3_kd_loss")
    with pytest.raises(IndexError, match=r"Target .* is out of bounds"):
        flag_loss(model, queries, passages, teacher, **OWN)
    objective = Objective.of(TrainConfig(temperature=0.02, distill="ordered"))
    known = known_groups(4, 3, teacher, in_batch=False)
    loss = our_loss(encoder_of(m3_folder), objective, queries, passages, known, False)
    assert torch.isfinite(loss)


def test_flagembedding_takes_an_order_from_the_data_and_we_from_the_teacher(m3_folder):
    queries, passages, teacher = batch(4, 3)
    shuffled = teacher[:, [1, 2, 0]]
    model = flag_model(m3_folder, kd_loss_type="m3_kd_loss")
    theirs = flag_loss(model, queries, passages, shuffled, **IN_BATCH)
    objective = Objective.of(TrainConfig(temperature=0.02, distill="ordered"))
    encoder = encoder_of(m3_folder)
    ours = our_loss(encoder, objective, queries, passages, known_groups(4, 3, shuffled), False)
    assert abs(ours - theirs) > 0.01
    in_order = [passages[3 * i + j] for i in range(4) for j in (2, 0, 1)]
    assert flag_loss(model, queries, in_order, teacher, **IN_BATCH).item() == pytest.approx(ours.item(), rel=1e-5)


def test_over_two_processes_flagembeddings_gradient_is_half_of_the_true_one(m3_folder):
    """As DistributedDataParallel averages it, with the gathering done by hand in one process."""
    model = flag_model(m3_folder, unified_finetuning=False)
    parts = [batch(3, 2, seed=seed)[:2] for seed in (0, 10)]
    queries, passages = ([text for part in parts for text in part[side]] for side in (0, 1))
    whole = flag_loss(model, queries, passages, **IN_BATCH)
    true = gradients_by_name(whole, None, model)
    model.negatives_cross_device, model.world_size = True, 2
    ranks = []
    for rank in (0, 1):
        with torch.no_grad():
            others = [model.encode(padded(side))[0] for side in parts[1 - rank]]
        model.process_rank = rank
        model._dist_gather_tensor = lambda own, rank=rank, left=others: torch.cat(
            [own, left.pop(0)] if rank == 0 else [left.pop(0), own]
        )
        loss = flag_loss(model, *parts[rank], **IN_BATCH)
        torch.testing.assert_close(loss, whole)
        ranks.append(gradients_by_name(loss, None, model))
    averaged = {name: (ranks[0][name] + ranks[1][name]) / 2 for name in true}
    assert_same_gradients({name: 2 * gradient for name, gradient in averaged.items()}, true)


def test_without_an_instruction_flagembedding_puts_none_before_queries(m3_folder, tmp_path):
    pytest.importorskip("FlagEmbedding")
    from FlagEmbedding.abc.finetune.embedder import AbsEmbedderDataArguments, AbsEmbedderSameDatasetTrainDataset

    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"query": "c01", "pos": ["c02"], "neg": ["c03"]}) + "\n")
    arguments = AbsEmbedderDataArguments(train_data=[str(file)], train_group_size=2, cache_path=str(tmp_path / "cache"))
    rows = AbsEmbedderSameDatasetTrainDataset(arguments, 1, 0, None)
    assert rows[0][0] == ["Nonec01"]
    assert encoder_of(m3_folder).settings.query_prompt == ""
