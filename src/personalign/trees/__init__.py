"""Dialogue trees: the trunk computed once, every branch seeing the trunk up to its place and itself."""

from personalign.trees.packing import PackedBatch, batches_under, pack, separate
from personalign.trees.plan import PACKED, ScoringPlan
from personalign.trees.scoring import batch_of, score, token_log_probs
from personalign.trees.splitting import split
from personalign.trees.tree import Branch, DialogueTree

__all__ = [
    "PACKED",
    "Branch",
    "DialogueTree",
    "PackedBatch",
    "ScoringPlan",
    "batch_of",
    "batches_under",
    "pack",
    "score",
    "separate",
    "split",
    "token_log_probs",
]
