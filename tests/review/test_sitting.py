from m3tune.negatives.estimate import Rate, exact_rate
from m3tune.review.sitting import Sitting
from m3tune.types import PairVerdict


def test_pairs_come_in_the_order_of_the_queue_and_undo_goes_back(sitting):
    assert [step(sitting, word) for word in ("relevant", "unsure", "not relevant")] == [0, 1, 2]
    assert sitting.next() == 3
    assert sitting.undo() == 2
    assert sitting.next() == 2
    assert [sitting.undo(), sitting.undo(), sitting.undo()] == [1, 0, None]
    assert sitting.next() == 0
    assert sitting.progress().done == 0


def step(sitting, word):
    place = sitting.next()
    sitting.judge(place, word)
    return place


def test_the_end_is_reached(sitting):
    for place in range(len(sitting.queue)):
        sitting.judge(place, "not relevant")
    assert sitting.next() is None
    assert sitting.progress().done == sitting.progress().total == len(sitting.queue) == 88


def test_reviewers_have_a_way_each_and_undo_is_ones_own(sitting, project):
    other = Sitting(project, "ben", sitting.queue)
    step(sitting, "relevant")
    assert other.next() == 0
    step(other, "not relevant")
    assert sitting.undo() == 0
    assert [v.reviewer for v in project.store.standing()] == ["ben"]


def test_undo_leaves_other_queues_alone(project):
    kept, removed = (Sitting(project, "anna", project.queue(shown)) for shown in ("kept", "removed"))
    step(kept, "relevant")
    step(removed, "relevant")
    assert kept.undo() == 0
    assert kept.undo() is None
    assert removed.progress().done == 1


def test_running_rate_is_of_what_was_shown_by_persons(sitting, project):
    assert sitting.progress().rate == Rate(None, 0.0, 1.0)
    for word in ("relevant", "not relevant", "unsure", "not relevant", "not relevant"):
        step(sitting, word)
    pair = sitting.queue[7]
    project.store.add(PairVerdict(pair.query_id, pair.passage_id, "relevant", "some model", "model"))
    progress = sitting.progress()
    assert not progress.is_estimate
    assert progress.rate == exact_rate(1, 4)


def test_running_rate_of_a_sample_is_the_estimate_for_all_kept(project):
    sample = project.draw(60, seed=0)
    sitting = Sitting(project, "anna", project.sampled(sample), sample)
    while (place := sitting.next()) is not None:
        sitting.judge(place, "relevant" if sitting.queue[place].removed else "not relevant")
    progress = sitting.progress()
    assert progress.is_estimate
    assert progress.rate.value == 0
    assert progress.rate.high < 0.2
