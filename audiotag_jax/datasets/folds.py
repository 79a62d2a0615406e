"""Cross-validation folds that depend on the clips and the seed alone."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from audiotag_jax.errors import UserError


def stratified_folds(
    ids: Sequence[str], labels: Sequence[str], verified: Sequence[bool], num_folds: int, seed: int
) -> dict[str, int]:
    """Fold 0 to num_folds - 1 of every id, stratified by label and verified.

    Each stratum is ordered by a hash of seed and id and dealt in turn, each deal going on where the last stratum's
    stopped: counts per fold differ by at most one within a stratum and in all. Neither the order of the arguments nor
    any library's random stream matters. Raises UserError for fewer than 2 folds or fewer clips than folds.
    """
    if num_folds < 2:
        raise UserError(f"num_folds is {num_folds}, a single fold or none; at least 2 folds are needed.")
    if len(ids) < num_folds:
        raise UserError(f"Too few training clips, {len(ids)}, for {num_folds} folds; see config.dataset.num_folds.")
    strata = defaultdict(list)
    for clip_id, label, is_verified in zip(ids, labels, verified, strict=True):
        strata[label, bool(is_verified)].append(clip_id)
    dealt = [clip_id for stratum in sorted(strata) for clip_id in sorted(strata[stratum], key=_hash_order(seed))]
    return {clip_id: position % num_folds for position, clip_id in enumerate(dealt)}


def _hash_order(seed: int):
    return lambda clip_id: (hashlib.sha256(f"{seed}:{clip_id}".encode(errors="surrogateescape")).digest(), clip_id)
