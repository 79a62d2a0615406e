"""The stages of a body in order of depth, by which training divides its parameters into an early and a late group."""

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Stages(NamedTuple):
    """Paths of a body's parts, names joined by "/", in order of depth: those that learn least, and those after them."""

    early: tuple[str, ...]
    late: tuple[str, ...]


# Of the bodies with torchvision's names. The late stages begin where the features are 1/16 of the image's size.
RESIDUAL = Stages(("conv1", "bn1", "layer1", "layer2"), ("layer3", "layer4"))


def late_paths(paths: Collection[tuple[str, ...]], bodies: Sequence[Stages]) -> set[tuple[str, ...]]:
    """Returns those of a body's parameter `paths` that lie in late stages; one of `bodies` must cover all paths.

    Raises ValueError, naming a parameter that belongs to no stage.
    """
    outside: list[str] = []
    for stages in bodies:
        late = {path for path in paths if _is_in(path, stages.late)}
        rest = sorted("/".join(path) for path in set(paths) - late if not _is_in(path, stages.early))
        if not rest:
            return late
        outside = rest if not outside or len(rest) < len(outside) else outside
    raise ValueError(f"Parameter body/{outside[0]} belongs to no stage; list the body's stages in models/build.py.")


def _is_in(path: tuple[str, ...], stages: tuple[str, ...]) -> bool:
    return any("/".join(path[:depth]) in stages for depth in range(1, len(path)))
