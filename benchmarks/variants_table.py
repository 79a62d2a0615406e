"""Trains every variant under one budget and prints the README's table from their summaries.

    python benchmarks/variants_table.py --preset=esc10 --path=data/ESC-50 --runs=runs/esc10

Finished variants are not trained again, interrupted ones continue.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VARIANTS = (
    *("linear_linear", "linear_db", "log_linear", "log_db", "mel_linear", "mel_db"),
    *("hires_q1", "hires_q2", "hires_q4", "hires_q8"),
    *("mix_linear_mel_log", "mix_q1_q4_q8", "mix_q1_q8_log"),
    "waveform",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--path", required=True, help="folder of the recordings")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the work directories")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("overrides", nargs="*", help="more flags for main.py, after --")
    options = parser.parse_args()
    runs, path = options.runs.resolve(), Path(options.path).resolve()  # main.py runs in another folder
    for variant in options.variants:
        command = [sys.executable, "main.py", f"--config=configs/{variant}.py:{options.preset}"]
        command += [f"--workdir={runs / variant}", f"--config.dataset.path={path}", *options.overrides]
        subprocess.run(command, cwd=ROOT, check=True)
    summaries = {name: json.loads((options.runs / name / "summary.json").read_text()) for name in options.variants}
    print(table(summaries))


def table(summaries: dict[str, dict]) -> str:
    """Markdown: one row a variant, held-out clips of all folds, 95 % intervals over clips."""
    lines = ["| variant | top-3 error | accuracy | MAP@3 | accuracy by fold |", "| --- | --- | --- | --- | --- |"]
    for variant, summary in summaries.items():
        scores = summary["validation"]["all"]
        cells = [
            f"{scores[name]['value']:.3f} ({scores[name]['low']:.3f}–{scores[name]['high']:.3f})"
            for name in ("top3_error", "accuracy", "map_at_3")
        ]
        folds = " ".join(f"{fold['all']['accuracy']['value']:.2f}" for fold in summary["folds"])
        lines.append(f"| `{variant}` | {' | '.join(cells)} | {folds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
