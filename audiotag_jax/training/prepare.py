"""Mode `prepare`: the datasets of a configuration, without training."""

from pathlib import Path

from ml_collections import ConfigDict

from audiotag_jax.training.config_check import check_config
from audiotag_jax.datasets.prepare import prepare, report_problems
from audiotag_jax.datasets.reader import read_metadata
from audiotag_jax.runtime.progress import log


def run(config: ConfigDict, workdir: Path) -> None:
    """Prepares what is missing and lists the recordings with problems; `workdir` is not used."""
    check_config(config)
    directory = prepare(config)
    report_problems(read_metadata(directory)["problems"], directory)
    log(f"dataset: {directory}")
