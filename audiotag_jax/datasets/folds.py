"""Cross-validation folds that depend on the clips and the seed alone."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from audiotag_jax.errors import UserError


def stratified_folds(
    ids: Sequence[str],
    labels: Sequence[str],
    verified: Sequence[bool],
    num_folds: int,
    seed: int,
    recordings: Sequence[str] = (),
) -> dict[str, int]:
    """Fold 0 to num_folds - 1 of every id, stratified by label and verified.

    Each stratum is ordered by a hash of seed and id and dealt in turn, each deal going on where the last stratum's
    stopped: counts per fold differ by at most one within a stratum and in all. Neither the order of the arguments nor
    any library's random stream matters.

    Clips of one of the `recordings` (one name a clip, "" where it stands alone) are dealt together, as the first of
    their ids; it is then recordings whose counts are even. Raises UserError for fewer than 2 folds, or fewer clips or
    recordings than folds.
    """
    if num_folds < 2:
        raise UserError(f"num_folds is {num_folds}, a single fold or none; at least 2 folds are needed.")
    if len(ids) < num_folds:
        raise UserError(f"Too few training clips, {len(ids)}, for {num_folds} folds; see config.dataset.num_folds.")
    given = zip(ids, recordings or [""] * len(ids), strict=True)
    whole = {clip_id: (recording, "" if recording else clip_id) for clip_id, recording in given}
    first: dict[tuple[str, str], str] = {}  # the clip that stands for a recording
    for clip_id in sorted(ids):
        first.setdefault(whole[clip_id], clip_id)
    if len(first) < num_folds and len(first) < len(set(ids)):
        raise UserError(f"Too few recordings, {len(first)}, for {num_folds} folds; see config.dataset.num_folds.")
    strata, chosen = defaultdict(list), set(first.values())
    for clip_id, label, is_verified in zip(ids, labels, verified, strict=True):
        if clip_id in chosen:
            strata[label, bool(is_verified)].append(clip_id)
    dealt = [clip_id for stratum in sorted(strata) for clip_id in sorted(strata[stratum], key=_hash_order(seed))]
    folds = {clip_id: position % num_folds for position, clip_id in enumerate(dealt)}
    return {clip_id: folds[first[whole[clip_id]]] for clip_id in ids}


def _hash_order(seed: int):
    return lambda clip_id: (hashlib.sha256(f"{seed}:{clip_id}".encode(errors="surrogateescape")).digest(), clip_id)
