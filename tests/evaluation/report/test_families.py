from personalign.evaluation.report.families import families


def test_metrics_are_shown_by_family() -> None:
    found = families(
        ["bleu-1/coco", "c_score/max", "hits@1", "distinct-2/corpus@char", "length/tokens", "p_co/past"]
    )
    assert list(found) == [
        "Consistency with the persona",
        "Overlap with the gold reply",
        "Likelihood and ranking",
        "Diversity",
        "The person's past",
    ]


def test_both_scores_of_a_coherence_judge_are_about_consistency() -> None:
    assert families(["con/clv", "coh_con/clv"]) == {
        "Consistency with the persona": ["con/clv", "coh_con/clv"]
    }
