"""Tags sounds: `python main.py --config=configs/VARIANT.py[:PRESET] [--workdir=DIR] [--mode=MODE]`."""

if __name__ == "__main__":
    from audiotag_jax.start import run

    run()
else:
    from audiotag_jax.cli import main, parse_flags, run

    __all__ = ["main", "parse_flags", "run"]
