"""Stratified cross-validation folds, a function of the clips and the seed alone."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from audiotag_jax.runtime.errors import UserError


def number_folds(names: Mapping[str, str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Returns the number of the fold of every id, from its fold's name, and the names in the order of the numbers.

    They are sorted as people do: 2 before 10, and numbers before other names.
    """
    ordered = sorted(set(names.values()), key=_natural_order)
    numbers = {name: number for number, name in enumerate(ordered)}
    return {clip_id: numbers[name] for clip_id, name in names.items()}, tuple(ordered)


def _natural_order(name: str) -> tuple:
    parts = [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)]
    return not name.isdecimal(), parts, name


def stratified_folds(
    ids: Sequence[str],
    labels: Sequence[str],
    verified: Sequence[bool],
    num_folds: int,
    seed: int,
    recordings: Sequence[str] = (),
) -> dict[str, int]:
    """Returns the fold, 0 to num_folds - 1, of every id, stratified by label and verified.

    Each stratum is sorted by a hash of seed and id and assigned round-robin, continuing where the previous stratum
    ended: fold sizes differ by at most one within a stratum and in total. The result depends on neither the order of
    the arguments nor a library's random generator.

    Clips with the same name in `recordings` (one per clip, "" for none) get the same fold and count in the stratum of
    the first of their ids: the largest recording first, each goes to the fold with the fewest clips of its stratum,
    then in total. Raises UserError for fewer than 2 folds, or fewer clips or recordings than folds.
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
    ordered = [clip_id for stratum in sorted(strata) for clip_id in sorted(strata[stratum], key=_hash_order(seed))]
    return {clip_id: position % num_folds for position, clip_id in enumerate(ordered)}


def _folds_of_recordings(
    strata: Mapping[tuple[str, bool], Sequence[str]], recordings: Mapping[str, str], num_folds: int, seed: int
) -> dict[str, int]:
    """Returns the folds of `stratified_folds` by clip id if clips have recordings."""
    members = defaultdict(list)  # clip ids by recording, or by the id of a clip without one
    for clip_id in sorted(recordings):
        members[recordings[clip_id], "" if recordings[clip_id] else clip_id].append(clip_id)
    if len(members) < num_folds:
        raise UserError(f"Too few recordings, {len(members)}, for {num_folds} folds; see config.dataset.num_folds.")
    by_first = {clips[0]: clips for clips in members.values()}
    order, sizes = _hash_order(seed), [0] * num_folds
    folds: dict[str, int] = {}
    for stratum in sorted(strata):
        stratum_sizes = [0] * num_folds
        chosen = set(strata[stratum]) & by_first.keys()
        for first in sorted(chosen, key=lambda clip_id: (-len(by_first[clip_id]), order(clip_id))):
            fold = min(range(num_folds), key=lambda number: (stratum_sizes[number], sizes[number]))
            folds |= dict.fromkeys(by_first[first], fold)
            stratum_sizes[fold] += len(by_first[first])
            sizes[fold] += len(by_first[first])
    return folds


def multi_label_folds(
    ids: Sequence[str],
    labels: Sequence[Sequence[str]],
    num_folds: int,
    seed: int,
    recordings: Sequence[str] = (),
) -> dict[str, int]:
    """Returns the fold of every id such that each label is spread evenly: iterative stratification.

    The rarest label that is left is placed first: each of its clips goes to the fold that lacks most of that label,
    then to the smallest fold (Sechidis, Tsoumakas & Vlahavas, ECML 2011). Ties are broken by a hash of seed and id, and
    clips with the same name in `recordings` go together. Raises UserError as `stratified_folds` does.
    """
    if num_folds < 2:
        raise UserError(f"num_folds is {num_folds}, a single fold or none; at least 2 folds are needed.")
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, clip_id in enumerate(ids):
        name = recordings[i] if recordings else ""
        groups[name, "" if name else clip_id].append(i)
    if len(groups) < num_folds:
        what = "recordings" if any(recordings) else "training clips"
        raise UserError(f"Too few {what}, {len(groups)}, for {num_folds} folds; see config.dataset.num_folds.")
    order = _hash_order(seed)
    members = {min(ids[i] for i in clips): clips for clips in groups.values()}
    counts = {first: Counter(label for i in clips for label in labels[i]) for first, clips in members.items()}
    holders = defaultdict(list)
    for first, own in counts.items():
        for label in own:
            holders[label].append(first)
    left = Counter(label for own in labels for label in own)
    wanted = {label: [count / num_folds] * num_folds for label, count in left.items()}
    space = [len(ids) / num_folds] * num_folds
    unplaced = set(members)
    folds: dict[str, int] = {}
    while unplaced:
        rarest = min((label for label in left if left[label] > 0), key=lambda label: (left[label], label), default=None)
        chosen = unplaced.copy() if rarest is None else unplaced.intersection(holders[rarest])
        for first in sorted(chosen, key=lambda first: (-len(members[first]), order(first))):
            lacks = wanted[rarest] if rarest is not None else space
            room = [(round(lack, 9), round(left_over, 9)) for lack, left_over in zip(lacks, space, strict=True)]
            fold = room.index(max(room))
            space[fold] -= len(members[first])
            for label, count in counts[first].items():
                wanted[label][fold] -= count
                left[label] -= count
            folds |= dict.fromkeys((ids[i] for i in members[first]), fold)
            unplaced.remove(first)
    return folds


def _hash_order(seed: int):
    return lambda clip_id: (hashlib.sha256(f"{seed}:{clip_id}".encode(errors="surrogateescape")).digest(), clip_id)
