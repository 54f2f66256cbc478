"""Rows of the report: what each side did, and whether the target was met."""

from dataclasses import dataclass, field
from typing import Any

from _work import Job, Measurement

LOG_PROB_TOLERANCE = 1e-4
NORM_TOLERANCE = 1e-4
WINDOW_TARGET = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """`ratio` is ours / peer. `target` is what must be met; None for rows that are shown without a verdict."""

    name: str
    ours: float
    peer: float
    ratio: float
    target: float | None
    ok: bool
    details: dict[str, Any] = field(default_factory=dict)


def target_of(job: Job) -> float:
    """The least ratio of examples per second."""
    if job.history == "window":
        return WINDOW_TARGET
    match job.size:
        case "10M":
            return 7.0 if job.bf16 else 8.0
        case "30M":
            return 6.0
        case _:
            return 5.0 if job.stage == "stage1" else 4.5


def _name(job: Job) -> str:
    return f"{job.size} {'bf16' if job.bf16 else 'fp32'} {job.history} {job.stage}"


def speed_row(
    job: Job, ours: Measurement, peer: Measurement, *, peak: float, peer_rates: dict[str, float]
) -> Row:
    """Examples per second, of the same examples on both sides."""
    ratio = ours.rate / peer.rate
    target = target_of(job)
    details = {
        "unit": "examples/s",
        "dialogues": job.dialogues,
        "examples": ours.examples,
        "peer_batch": job.micro_batch,
        "peer_batches_tried": peer_rates,
        **_side("ours", ours, peak),
        **_side("peer", peer, peak),
    }
    return Row(_name(job), ours.rate, peer.rate, ratio, target, ratio >= target, details)


def _side(name: str, measured: Measurement, peak: float) -> dict[str, float]:
    return {
        f"{name}_seconds": round(measured.seconds, 3),
        f"{name}_reference_seconds": round(measured.reference_seconds, 3),
        f"{name}_tokens": measured.tokens,
        f"{name}_memory_mib": round(measured.memory_bytes / 2**20),
        f"{name}_share_of_peak": round(measured.operations / measured.seconds / peak, 4),
        f"{name}_loss": round(measured.loss, 4),
    }


def agreement_rows(job: Job, answer: dict[str, float]) -> list[Row]:
    """Both sides' log-probabilities and gradient norms at equal weights; a verdict in fp32 alone."""
    judged = not job.bf16
    difference = answer["log_prob_difference"]
    ratio = answer["ours_norm"] / answer["peer_norm"]
    return [
        Row(
            f"{_name(job)} log-probabilities",
            answer["ours_mean"],
            answer["peer_mean"],
            answer["ours_mean"] / answer["peer_mean"],
            LOG_PROB_TOLERANCE if judged else None,
            not judged or difference <= LOG_PROB_TOLERANCE,
            {"unit": "mean per branch", "largest_difference": difference, "branches": answer["branches"]},
        ),
        Row(
            f"{_name(job)} gradient norm",
            answer["ours_norm"],
            answer["peer_norm"],
            ratio,
            NORM_TOLERANCE if judged else None,
            not judged or abs(ratio - 1) <= NORM_TOLERANCE,
            {"unit": "norm of one step's gradient", "relative_difference": abs(ratio - 1)},
        ),
    ]


def print_row(row: Row) -> None:
    verdict = "shown" if row.target is None else ("ok" if row.ok else "MISSED")
    if "dialogues" not in row.details:
        differs = row.details.get("largest_difference", row.details.get("relative_difference"))
        print(
            f"{row.name:42s} ours {row.ours:11.5f}  TRL {row.peer:11.5f}  differ by {differs:.1e}"
            f"{'' if row.target is None else f', at most {row.target:.0e}'}  {verdict}",
            flush=True,
        )
        return
    details = row.details
    print(
        f"{row.name:42s} ours {row.ours:7.2f}/s  TRL {row.peer:6.2f}/s (batch {details['peer_batch']})"
        f"  {row.ratio:5.2f}x{'' if row.target is None else f', at least {row.target:g}x'}  {verdict}\n"
        f"    {details['examples']} examples of {details['dialogues']} dialogues;"
        f" tokens {details['ours_tokens']:,} / {details['peer_tokens']:,};"
        f" memory {details['ours_memory_mib']:,} / {details['peer_memory_mib']:,} MiB;"
        f" share of peak {details['ours_share_of_peak']:.0%} / {details['peer_share_of_peak']:.0%}",
        flush=True,
    )
