"""Cross-validation folds that depend on the clips and the seed alone."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from audiotag_jax.runtime.errors import UserError


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

    Clips of one of the `recordings` (one name a clip, "" where it stands alone) stay together, in the stratum of the
    first of their ids: the largest first, each goes where its stratum has the fewest clips yet, then where there are
    fewest in all. Raises UserError for fewer than 2 folds, or fewer clips or recordings than folds.
    """
    if num_folds < 2:
        raise UserError(f"num_folds is {num_folds}, a single fold or none; at least 2 folds are needed.")
    if len(ids) < num_folds:
        raise UserError(f"Too few training clips, {len(ids)}, for {num_folds} folds; see config.dataset.num_folds.")
    strata = defaultdict(list)
    for clip_id, label, is_verified in zip(ids, labels, verified, strict=True):
        strata[label, bool(is_verified)].append(clip_id)
    if any(recordings):
        return _folds_of_recordings(strata, dict(zip(ids, recordings, strict=True)), num_folds, seed)
    dealt = [clip_id for stratum in sorted(strata) for clip_id in sorted(strata[stratum], key=_hash_order(seed))]
    return {clip_id: position % num_folds for position, clip_id in enumerate(dealt)}


def _folds_of_recordings(
    strata: Mapping[tuple[str, bool], Sequence[str]], recordings: Mapping[str, str], num_folds: int, seed: int
) -> dict[str, int]:
    """The folds of `stratified_folds` where clips have recordings, by clip id."""
    members = defaultdict(list)  # the clips of each recording, by it or by the clip that stands alone
    for clip_id in sorted(recordings):
        members[recordings[clip_id], "" if recordings[clip_id] else clip_id].append(clip_id)
    if len(members) < num_folds:
        raise UserError(f"Too few recordings, {len(members)}, for {num_folds} folds; see config.dataset.num_folds.")
    together = {clips[0]: clips for clips in members.values()}
    order, sizes = _hash_order(seed), [0] * num_folds
    folds: dict[str, int] = {}
    for stratum in sorted(strata):
        own = [0] * num_folds
        chosen = set(strata[stratum]) & together.keys()
        for first in sorted(chosen, key=lambda clip_id: (-len(together[clip_id]), order(clip_id))):
            fold = min(range(num_folds), key=lambda number: (own[number], sizes[number]))
            folds |= dict.fromkeys(together[first], fold)
            own[fold] += len(together[first])
            sizes[fold] += len(together[first])
    return folds


def _hash_order(seed: int):
    return lambda clip_id: (hashlib.sha256(f"{seed}:{clip_id}".encode(errors="surrogateescape")).digest(), clip_id)
