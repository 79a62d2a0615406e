"""Labels of compared predictions, one a clip or any number: which of both they are, and their arrays."""

from collections.abc import Mapping, Sequence

import numpy as np

from audiotag_jax.evaluation.foreign import Label, Labels
from audiotag_jax.study.sources import Network

SEPARATOR = ";"  # between labels in a cell; beside it that of the runs' own tables


class LabelLists:
    """Tells labels from lists of labels: any number a clip where a run has that, or a cell has several classes."""

    def __init__(self, networks: Sequence[Network], table: Labels | None, classes: Sequence[str]):
        own = {network.settings.dataset.label_separator for network in networks if network.settings is not None}
        self._classes, self._separators = tuple(classes), [SEPARATOR, *sorted(own - {"", SEPARATOR})]
        labels = [label for network in networks for label in network.labels.values()]
        labels += table.labels.values() if table is not None else ()
        self.are_several = any(isinstance(label, tuple) or len(self._parts(label)) > 1 for label in set(labels))

    def _parts(self, label: str) -> list[str]:
        """Returns the classes that a cell lists; the cell itself where that is no list of classes."""
        if label in self._classes:
            return [label]
        for separator in self._separators:
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and all(part in self._classes for part in parts):
                return parts
        return [label]

    def parsed(self, labels: Mapping[str, Label]) -> dict[str, Label]:
        """Returns labels by clip; of any number a clip, tuples in the order of the classes, and "" for none known."""
        if not self.are_several:
            return dict(labels)
        return {clip: self._tuple(label) if label != "" else "" for clip, label in labels.items()}

    def _tuple(self, label: Label) -> tuple[str, ...]:
        given = label if isinstance(label, tuple) else tuple(self._parts(label))
        known = tuple(name for name in self._classes if name in given)
        return known + tuple(name for name in given if name not in self._classes)

    def array(self, labels: Sequence[Label]) -> np.ndarray:
        """Returns labels as `task` has them: `[n]`, or `[n, K]`; -1 for "", none known."""
        numbers = {name: number for number, name in enumerate(self._classes)} | {"": -1}
        if not self.are_several:
            return np.array([numbers[str(label)] for label in labels], np.int64)
        found = np.zeros((len(labels), len(self._classes)), np.int8)
        for row, label in zip(found, labels, strict=True):
            if label == "":
                row[:] = -1
            else:
                row[[numbers[name] for name in label]] = 1
        return found
