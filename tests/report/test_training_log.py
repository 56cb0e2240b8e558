"""Losses, scores and vectors of the training log in the report."""

from finished import Page, make_run

from m3tune.report.curves import small_multiples
from m3tune.report.gather import gather
from m3tune.report.html import write_report


def dense_health(step):
    return {
        "score_dense_positive": 0.7, "score_dense_positive_sd": 0.1, "score_dense_negative": 0.2 + step / 100,
        "score_dense_negative_sd": 0.05, "dense_norm": 1.0, "dense_norm_sd": 0.0, "dense_cosine": 0.2,
        "dense_uniformity": -3.0, "dense_rank": 20.0, "dense_rank_share": 0.6,
    }  # fmt: skip


def sick_health(step):
    heads = {f"loss_{name}": 1 / step for name in ("dense", "sparse", "hybrid", "self_sparse")}
    sparse = {"sparse_tokens_query": 3.0, "sparse_tokens_passage": 9.0, "sparse_empty": 0.2 if step > 1 else 0.0}
    lengths = {"dense_norm": 8.0, "dense_norm_sd": 1.0, "dense_cosine": 0.2 if step < 10 else 0.999}
    return dense_health(step) | heads | sparse | lengths | {"negatives_suspected": 0.03}


def test_curves_of_health_are_the_logs_own(tmp_path):
    training = gather(make_run(tmp_path / "run", health=sick_health))["training"]
    assert training["health"]["sparse_empty"] == [[1, 0.0], [5, 0.2], [10, 0.2]]
    assert training["health"]["loss_self_sparse"] == [[1, 1], [5, 0.2], [10, 0.1]]
    assert not {"loss", "learning_rate", "tokens_per_s", "train_loss"} & set(training["health"])


def test_each_illness_is_told_once_where_it_began(tmp_path):
    folder = make_run(tmp_path / "run", health=sick_health)
    findings = gather(folder)["training"]["findings"]
    assert [(finding["code"], finding["where"]) for finding in findings] == [
        ("sparse-vectors-die", "train, step 5"), ("dense-vectors-collapse", "train, step 10"),
    ]  # fmt: skip
    text = " ".join(Page(write_report(folder).read_text()).text.split())
    assert "train, step 5: 20% of the sparse vectors of a batch are empty" in text
    assert "their mean cosine is 0.999" in text


def test_groups_of_small_charts_show_what_the_log_has(tmp_path):
    def titles(training):
        return {heading: [c.title for c in group] for heading, group in small_multiples(training["health"]).items()}

    dense = gather(make_run(tmp_path / "dense", health=dense_health))["training"]
    vectors = ["Mean cosine of two passages", "Uniformity", "Effective rank"]
    assert titles(dense) == {"Scores of positives and negatives": ["Dense"], "Vectors": vectors}
    assert dense["findings"] == []
    everything = gather(make_run(tmp_path / "all", health=sick_health))["training"]
    assert titles(everything) == {
        "Losses": ["Dense", "Sparse", "Hybrid"],
        "Scores of positives and negatives": ["Dense"],
        "Vectors": [*vectors, "Length of dense vectors", "Sparse weights a text", "Empty sparse vectors",
                    "Suspected negatives"],
    }  # fmt: skip
    lines = {c.title: c.lines for c in small_multiples(everything["health"])["Losses"]}
    assert lines == {
        "Dense": ("contrastive",),
        "Sparse": ("contrastive", "from the hybrid"),
        "Hybrid": ("contrastive",),
    }
    page = Page(write_report(tmp_path / "all").read_text())
    assert page.unclosed == []
    assert sum(tag == "svg" for tag, _ in page.tags) == 4 + 3 + 1 + 7


def test_a_run_without_health_has_no_small_charts(better):
    assert gather(better)["training"]["health"] == {}
    page = write_report(better).read_text()
    assert "<h3>Losses</h3>" not in page
    assert "<h3>Vectors</h3>" not in page
