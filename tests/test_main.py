"""What a person sees of every mistake of theirs: one or two lines that say what is wrong, and an exit status."""

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from fresh_flags import fresh_flags
from random_runs import make_sounds
from xla_flags import with_devices

import main
from audiotag_jax import cli, usage
from audiotag_jax.settings.variants import list_variants
from audiotag_jax.training import checkpoints
from configs.default import PRESET_LINES, PRESETS

ROOT = Path(__file__).parents[1]
DEMO = "--config=configs/log_db.py:demo"
FOLDER = "--config=configs/log_db.py:folder"


def run(*arguments, printed="", **environment) -> str:
    """What `main.py` says on standard error, which must be one or two lines; `printed` matches all else it says."""
    command = [sys.executable, "main.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | environment)
    assert done.returncode == 2, done
    assert re.fullmatch(printed, done.stdout)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert max(map(len, lines)) < 500
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode=doctor"], r"--config is missing\.\n.*such as --config=log_db:demo; --help lists both\.$"),
        (["--mode=train", "--workdir=runs/x"], r"--config is missing; a run is .*with the flags that it began with"),
        (["--mode=evaluate"], r"--workdir is missing: mode evaluate needs the folder of a trained run"),
        (["--mode=predict", "--audio=a.wav"], r"--workdir is missing: mode predict needs the folder of a trained run"),
        (
            ["--mode=predict", "--tagger=yamnet", "--workdir=x"],
            r"--tagger and --workdir both name .*\n.*--out",
        ),
        ([DEMO, "--mode=embed", "--tagger=yamnet"], r"--tagger and --config both name .*\n.*--out"),
        (["--config=log_dv:demo"], r"Unknown variant 'log_dv'; did you mean log_db\?$"),
        (["--config=hires_q5:demo"], r"did you mean hires_q1, hires_q2, hires_q4 or hires_q8\?$"),
        (["--config=spectrum"], r"Unknown variant 'spectrum'; choose from .*log_db"),
        (["--config=configs/nope.py"], r"no configuration file 'configs/nope.py'.*\n.*VARIANT one of .*log_db"),
        (["--config=configs/nope.py", "--config.seed=1"], r"no configuration file 'configs/nope.py'"),
        (["--config=configs"], r"no configuration file 'configs'"),
        (["--config=configs/log_db.py:nope"], r"Unknown preset 'nope'; choose from .*esc50.*demo"),
        (["--config", "configs/log_db.py:nope"], r"Unknown preset 'nope'; choose from .*esc50.*demo"),
        ([DEMO, "--config.nope=1"], r"config has no field 'nope'; choose from .*train"),
        ([DEMO, "--config.train.nope=1"], r"config\.train has no field 'nope'; choose from .*num_epochs"),
        ([DEMO, "--config.train.nope", "1"], r"config\.train has no field 'nope'; choose from .*num_epochs"),
        ([DEMO, "--config.seed.nope=1"], r"config\.seed is a value"),
        (
            [DEMO, "--config.train.num_epoch=1"],
            r"'num_epoch'; did you mean config\.train\.num_epochs\?",
        ),
        (
            [DEMO, "--config.num_epochs=1"],
            r"config has no field 'num_epochs'; did you mean config\.train\.num",
        ),
        ([DEMO, "--config.trian.seed=1"], r"config has no field 'trian'; did you mean config\.train\?"),
        ([DEMO, "--config.train.num_epochs=abc"], r"config\.train\.num_epochs is 'abc'; it must be a whole number\.$"),
        ([DEMO, "--config.train.num_epochs=1.5"], r"config\.train\.num_epochs is '1\.5'; it must be a whole number\.$"),
        ([DEMO, "--config.model.dropout=x"], r"config\.model\.dropout is 'x'; it must be a number\.$"),
        ([DEMO, "--config.dataset.download=perhaps"], r"download is 'perhaps'; it must be true or false\.$"),
        (
            [DEMO, "--config.train=3"],
            r"config\.train is a section; .*, such as --config\.train\.\w+=",
        ),
        ([DEMO, "--config.train.num_epochs"], r"Missing value for flag --config\.train\.num_epochs"),
        ([DEMO, "--mode=fly"], r"--mode=fly: .*train\|prepare\|evaluate"),
        ([DEMO, "--wrkdir=x"], r"Unknown command line flag 'wrkdir'. Did you mean: workdir"),
        ([DEMO, "nope"], r"Unknown argument 'nope'.*[Qq]uote"),
        (["--flagfile=/nowhere"], r"--flagfile needs a file of flags: .*'/nowhere'"),
        ([f"--flagfile={sys.executable}"], r"--flagfile needs a file of flags: .*can't decode"),
    ],
)
def test_command_line(arguments, said):
    assert re.search(said, run(*arguments))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("model.dropout=1.5", r"config\.model\.dropout is 1\.5; it must be .*below 1"),
        ("train.batch_size=0", r"config\.train\.batch_size is 0; it must be at least 1"),
        ("optimizer.learning_rate_high=nan", r"config\.optimizer\.learning_rate_high is nan; it must be above 0"),
        ("seed=-1", r"config\.seed is -1; it must be 0 "),
        ("dataset.fold_seed=-1", r"config\.dataset\.fold_seed is -1; it must be 0 "),
        ("dataset.duration_s=-2", r"duration_s is -2\.0; it must be above 0"),
        ("train.folds=first", r"config\.train\.folds is \('first',\); .*numbers"),
        ("spectral.channels=log_bark", r"unknown spectrogram channel 'log_bark'; choose from .*log_db"),
        ("spectral.fft_samples=512", r"fft_samples must be .*2048 or more"),
        ("model.name=resnet19", r"model\.name is 'resnet19'; choose from .*resnet18"),
        ("model.dtype=float16", r"model\.dtype is 'float16'; choose from .*bfloat16"),
        ("dataset.source=esc51", r"clip source 'esc51'; choose from .*esc50"),
        ("augment.time_masks=-1", r"config\.augment\.time_masks is -1"),
    ],
)
def test_values(field, said, tmp_path):
    assert re.search(said, run(DEMO, f"--config.{field}", f"--workdir={tmp_path}"))


def test_mixup_needs_pairs(tmp_path):
    arguments = [DEMO, "--config.augment.mixup_alpha=0.3", "--config.train.batch_size=8", f"--workdir={tmp_path}"]
    assert re.search(r"batch_size 8 gives a device 1 clips, an odd number", run(*arguments))


@pytest.fixture
def sounds(tmp_path) -> Path:
    """A folder of one recording, which tables name as often as they like."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.zeros(100), 8000)
    return folder


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("path,label\n", r"clips\.csv: empty table"),
        ("", r"clips\.csv lacks the columns? .*label"),
        ("path,label\na.wav,x\nb.wav,y\n./a.wav,x\n", r"duplicate clip id a\.wav"),
        ("path,label,split\na.wav,x,train\nb.wav,y,train\nc.wav,z,test\n", r"'c\.wav' has label 'z', .*\(x, y\)"),
        ("path,label\na.wav,x\n", r"Too few training clips, 1, for 2 folds"),
        ("path,label,fold\na.wav,x,0\nb.wav,y,1.5\n", r"clip 'b\.wav' has fold '1\.5'; a whole number"),
    ],
)
def test_tables(sounds, table, said):
    (sounds / "clips.csv").write_text(table)
    arguments = [FOLDER, f"--config.dataset.path={sounds}", "--config.dataset.table=clips.csv", "--mode=prepare"]
    assert re.search(said, run(*arguments, "--config.dataset.num_folds=2"))


def test_no_recording_can_be_read(sounds):
    (sounds / "a.wav").rename(sounds / "elsewhere.wav")
    (sounds / "clips.csv").write_text("path,label,fold\na.wav,x,0\nb.wav,y,1\n")
    arguments = [FOLDER, f"--config.dataset.path={sounds}", "--config.dataset.table=clips.csv", "--mode=prepare"]
    said = run(*arguments, f"--config.dataset.prepared_dir={sounds}/prepared", printed=r"preparing .*\n")
    assert re.search(r"None of the 2 training .*a\.wav: no such file.*\n.*config\.dataset\.path", said)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("folder", r"no folder .*/nowhere"),
        ("esc10", r"ESC-10 is missing: .*/nowhere/meta/esc10\.csv .*\n.*git clone"),
        ("fsdkaggle2018", r"FSDKaggle2018 is missing: there is no folder .*/nowhere"),
    ],
)
def test_missing_folder(config, said, tmp_path):
    arguments = [f"--config=configs/log_db.py:{config}", f"--config.dataset.path={tmp_path}/nowhere"]
    assert re.search(said, run(*arguments, "--config.dataset.download=false", f"--workdir={tmp_path}/run"))


def test_no_network(tmp_path):
    """A proxy that refuses stands for the missing network: the answer comes at once, and names the demo."""
    nobody = "http://127.0.0.1:9"
    config = "--config=configs/log_db.py"
    arguments = [config, f"--config.dataset.path={tmp_path}/data", f"--workdir={tmp_path}/run", "--mode=prepare"]
    proxies = {"HTTP_PROXY": nobody, "HTTPS_PROXY": nobody, "https_proxy": nobody, "NO_PROXY": "", "no_proxy": ""}
    said = run(*arguments, printed=r"downloading FSDKaggle2018\.meta\.zip\n", **proxies)
    assert re.search(r"FSDKaggle2018 could not be downloaded: .*10\.5281/zenodo\.2552860.*\n.*log_db\.py:demo", said)


def test_evaluate_without_a_run(tmp_path):
    for config in ([DEMO], []):
        said = run(*config, "--mode=evaluate", f"--workdir={tmp_path}/none")
        assert re.search(r"/none contains no run: .*\n.*--mode=train", said)
        assert not (tmp_path / "none").exists()


def test_work_directory_below_a_file(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert re.search(r"Not a directory: .*/file/run", run(DEMO, f"--workdir={tmp_path}/file/run"))
    assert re.search(r"--workdir .*/file is a file", run(DEMO, f"--workdir={tmp_path}/file"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_work_directory_where_none_can_be():
    assert re.search(r"No such file or directory: /proc/nowhere", run(DEMO, "--workdir=/proc/nowhere"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_read_only_work_directory(tmp_path):
    tmp_path.chmod(0o500)
    assert re.search(r"Permission denied: .*", run(DEMO, f"--workdir={tmp_path}"))
    assert re.search(r"Permission denied: .*", run(DEMO, f"--workdir={tmp_path}/run"))


def stopped(monkeypatch, capsys, error: BaseException, mode: str = "prepare") -> tuple[int, str]:
    """Exit status and standard error of a run in this process whose mode raises `error`."""

    def fail(config, workdir):
        raise error

    monkeypatch.setattr(f"{cli.MODES[mode]}.run", fail)
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(sys, "argv", ["main.py", DEMO, f"--mode={mode}"])
    main.parse_flags(sys.argv)
    with pytest.raises(SystemExit) as exit_status:
        main.main(sys.argv)
    return exit_status.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([DEMO, "--flagfile="], r"--flagfile is empty"),
        ([DEMO, "--workdir=", "--mode=doctor"], r"--workdir is empty; name a path"),
        ([FOLDER, "--config.dataset.path=", "--mode=doctor"], r"config\.dataset\.path is empty; name a path"),
        ([FOLDER, "--config.dataset.prepared_dir= ", "--mode=doctor"], r"prepared_dir is empty; name a path"),
        (["--workdir=runs/x", "--mode=predict", "--audio="], r"--audio is empty; name a path"),
        (["--workdir=runs/x", "--mode=predict", "--audio=a.wav", ""], r"--audio is empty; name a path"),
        (["--mode=compare", f"--runs={','.join(['a' * 30] * 10)}"], "There is no|contains no run|is missing"),
        (["--workdir=runs/x", "--mode=predict", "--out=", "--audio=a"], r"--out is empty; name a path"),
        ([FOLDER, "--config.dataset.path=gs://b/x"], r"path is gs://b/x, but only local paths work\.\n.*gcsfuse"),
        ([DEMO, "--workdir=s3://b/x", "--mode=inspect"], r"--workdir is s3://b/x, but only local paths work"),
        ([DEMO, f"--workdir=runs/{os.fsdecode(bytes([233]))}"], r"--workdir is in a folder whose name is not UTF-8"),
        ([DEMO, "--workdir=runs/a[1]"], r"runs/a\[1\]: checkpoints cannot be read back .*'\['.*\n.*another --workdir"),
        ([DEMO, "--mode=study", "--workdir=runs/a[1]"], r"runs/a\[1\]: checkpoints cannot be read back .*'\['"),
        ([DEMO, "--mode=prepare", "--coordinator=nowhere:1"], r"runs in one process: .*\n.*see docs/scaling\.md"),
    ],
)
def test_paths_that_are_empty_or_not_local(monkeypatch, capsys, arguments, said):
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main(main.parse_flags(sys.argv))
    text = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.search(said, text), text
    assert len(text.splitlines()) <= 2


FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, FULL, "/there/config.json"), rf"error: {FULL}: /there/config\.json\n.+\n"),
        (OSError(errno.ENOSPC, FULL), rf"error: {FULL}.*\n.+\n"),
        (RuntimeError(f"write() failed: {FULL}; writing x.array_record"), rf"error: {FULL}.*\n.+\n"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/there"), r"error: Read-only file system: /there\n.+\n"),
    ],
)
def test_full_disk(monkeypatch, capsys, error, said):
    status, text = stopped(monkeypatch, capsys, error)
    assert status == 2
    assert re.fullmatch(said, text)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")]
)
def test_out_of_memory(monkeypatch, capsys, error):
    advice = (("study", r"lower config\.train\.batch_size"), ("prepare", "end other programs that use the device"))
    for mode, words in advice:
        status, text = stopped(monkeypatch, capsys, error, mode)
        assert status == 2
        assert re.fullmatch(rf"error: Out of memory: {words}.*\n.+\n", text)


def test_a_clip_too_short_for_the_waveform_network(tmp_path):
    arguments = ["--config=configs/waveform.py:demo", "--config.dataset.duration_s=0.002", f"--workdir={tmp_path}/run"]
    assert re.search(r"config\.dataset\.duration_s is too short: .*64 samples or more", run(*arguments))


@pytest.mark.parametrize("argument", [DEMO, "--workdir=runs/moved"])  # of moved checkpoints no --config is asked
def test_inspect_leaves_the_accelerator_alone(argument):
    """It may belong to a training beside it: nothing may look for devices before inspect has chosen the CPU."""
    script = (
        "import sys, main\n"
        "from audiotag_jax.training import inspect_checkpoint\n"
        "from jax._src import xla_bridge\n"
        "inspect_checkpoint.run = lambda *_: print('initialized', xla_bridge.backends_are_initialized())\n"
        f"sys.argv = ['main.py', '{argument}', '--mode=inspect']\n"
        "main.main(main.parse_flags(sys.argv))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "initialized False\n", done


@pytest.mark.parametrize(("mode", "then"), [("prepare", "continues from what is complete"), ("doctor", "starts again")])
def test_interrupt(monkeypatch, capsys, mode, then):
    status, text = stopped(monkeypatch, capsys, KeyboardInterrupt(), mode)
    assert status == 130
    assert text == f"error: Interrupted. The same command {then}.\n"


def test_full_disk_in_a_mode_that_does_not_continue(monkeypatch, capsys):
    status, text = stopped(monkeypatch, capsys, OSError(errno.ENOSPC, FULL), "doctor")
    assert status == 2
    assert text == f"error: {FULL}\nFix that and run the same command: it starts again.\n"


def test_predict_states_that_it_ignores_the_configuration(monkeypatch, capsys):
    monkeypatch.setattr("audiotag_jax.inference.predict.run", lambda workdir, **options: None)
    monkeypatch.setattr(sys, "argv", ["main.py", DEMO, "--mode=predict", "--audio=a.wav", "--workdir=runs/mine"])
    main.main(main.parse_flags(sys.argv))
    out = "mode predict takes the settings of the run in runs/mine; those of --config are not used\n"
    assert capsys.readouterr().out == out


def call(*arguments, script="import runpy; runpy.run_path('main.py', run_name='__main__')", **options):
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = 'main.py'; {script}", *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, timeout=120, **options)


@pytest.mark.parametrize(("argument", "shown"), [("--help", "PRESET: data"), ("--helpfull", "--[no]alsologtostderr")])
def test_help_ends_with_0(argument, shown):
    done = call(argument, capture_output=True)
    assert done.returncode == 0
    assert "--mode" in done.stdout
    assert shown in done.stdout
    assert done.stderr == ""


def printed_at_the_end(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.parse_flags(["main.py", *arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_lists_modes_presets_variants_and_options(capsys):
    """A line each; and where the fields are."""
    text = printed_at_the_end(capsys, "--help")
    lines = dict(line.strip().split(maxsplit=1) for line in text.splitlines() if re.match(r"  [a-z-]\S+  +\S", line))
    for names in (cli.MODES, PRESETS, [f"--{flag}" for flag in ("audio", "config", "format", "overwrite", "workdir")]):
        assert all(len(lines[name]) > 5 for name in names)
    assert set(usage.MODE_LINES) == set(cli.MODES)
    assert set(PRESET_LINES) == set(PRESETS)
    assert all(name in text for name in list_variants())
    assert "configs/default.py" in text and "--config.FIELD=VALUE" in text
    assert max(map(len, text.splitlines())) <= 120


def test_without_arguments_it_names_commands_that_work(capsys, monkeypatch):
    """The three can be parsed as they are pasted."""
    text = printed_at_the_end(capsys)
    commands = re.findall(r"^  python main\.py (.*?)  +#", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        with fresh_flags():
            monkeypatch.setattr(sys, "argv", ["main.py", *shlex.split(command)])
            assert cli.parse_flags(sys.argv) == ["main.py"]
    assert usage.introduction("audiotag").count("\n  audiotag --") == 3


def test_a_missing_workdir_comes_with_the_latest_run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for seconds, name in enumerate(("a run", "old")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").touch()
        os.utime(tmp_path / "runs" / name / "config.json", (100 - seconds,) * 2)
    with pytest.raises(SystemExit):
        cli.parse_flags(["main.py", "--mode=export"])
    assert "mode export needs the folder of a trained run, such as --workdir='runs/a run'." in capsys.readouterr().err


def test_training_ends_with_what_to_try_next(monkeypatch, capsys):
    monkeypatch.setattr("audiotag_jax.training.train.run", lambda settings, workdir: None)
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(sys, "argv", ["main.py", DEMO, "--workdir=runs/a b"])
    main.main(main.parse_flags(sys.argv))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.strip() == ("python main.py --mode=predict --workdir='runs/a b' --audio=FILE_OR_FOLDER")


def test_a_list_that_is_given_twice_is_refused_and_a_number_is_the_last(monkeypatch, capsys):
    both = [f"--config.study.variants=('{name}',)" for name in ("mel_db", "hires_q1")]
    monkeypatch.setattr(sys, "argv", ["main.py", DEMO, *both])
    with pytest.raises(SystemExit):
        main.parse_flags(sys.argv)
    assert "--config.study.variants is given 2 times, and its values would be joined" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["main.py", DEMO, both[0], "--config.seed=1", "--config.seed=2"])
    main.parse_flags(sys.argv)
    assert cli._CONFIG.value.seed == 2


@pytest.mark.parametrize("given", [["--mode=doctor"], ["--mode", "doctor"]])
def test_after_an_audit_the_same_command_trains(given, tmp_path):
    arguments = ["--config=configs/log_db.py:folder", *given, "--config.dataset.path=a b"]
    text = usage.next_commands("doctor", "audiotag", tmp_path, arguments)
    assert text == "next: audiotag --config=configs/log_db.py:folder '--config.dataset.path=a b'"


def test_after_an_audit_of_what_cannot_be_trained_on_nothing_is_trained(tmp_path):
    arguments = ["--config=log_db:folder", "--mode=doctor", "--config.dataset.path=a b"]
    text = usage.next_commands("doctor", "audiotag", tmp_path, arguments, can_train=False)
    again = "audiotag --config=log_db:folder --mode=doctor '--config.dataset.path=a b'"
    assert text == f"next: put that right, and look again: {again}"


def test_after_a_report_the_run_tags(tmp_path):
    assert usage.next_commands("report", "audiotag", tmp_path, []).startswith(
        "next: audiotag --mode=predict --workdir="
    )
    assert usage.next_commands("predict", "audiotag", tmp_path, []) == ""


def test_an_interrupt_in_the_first_moments_has_no_traceback():
    """It arrives while the first of the large modules is imported."""
    script = (
        "import os, signal, builtins; load = builtins.__import__\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in the background it would be ignored
        "def loading(name, *rest):\n"
        "    if name.startswith('ml_collections'): os.kill(os.getpid(), signal.SIGINT)\n"
        "    return load(name, *rest)\n"
        "builtins.__import__ = loading; import runpy; runpy.run_path('main.py', run_name='__main__')"
    )
    done = call(DEMO, script=script, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


SHRUNK = {
    "dataset.table": "clips.csv",
    "dataset.sample_rate_hz": 4000,
    "dataset.duration_s": 0.3,
    "dataset.num_folds": 2,
    "spectral.num_frames": 32,
    "spectral.num_bins": 32,
    "spectral.window_samples": 256,
    "spectral.fft_samples": 256,
    "model.name": "resnet18",
    "train.folds": "(0,)",
    "train.batch_size": 3,
    "train.num_epochs": 100,
    "train.log_every_steps": 1,
    "train.checkpoint_every_epochs": 100,
    "augment.mixup_alpha": 0.0,
}
PLACES = {"path": "sounds", "prepared_dir": "prepared"}
QUICKLY_COMPILED = (
    "import runpy\n"
    "from audiotag_jax.models import resnet\n"
    "resnet.BODIES['resnet18'] = {'block': 'basic', 'stage_sizes': (), 'width': 2}\n"
    "runpy.run_path('main.py', run_name='__main__')"
)


def train(folder: Path, name: str) -> subprocess.Popen:
    """`main.py` with the least of networks, on one device: three hundred steps of a few milliseconds."""
    arguments = [FOLDER, f"--workdir={folder / name}"]
    arguments += [f"--config.dataset.{field}={folder / place}" for field, place in PLACES.items()]
    arguments += [f"--config.{field}={value}" for field, value in SHRUNK.items()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", QUICKLY_COMPILED, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": with_devices(1)}, **pipes)


def test_told_to_end_it_saves_says_so_and_continues(tmp_path):
    """SIGTERM in mid-training, long before the only checkpoint it would write; the end is that of a run left alone."""
    (tmp_path / "sounds").mkdir()
    make_sounds(tmp_path / "sounds")
    whole, run = train(tmp_path, "whole"), train(tmp_path, "run")
    metrics, deadline = tmp_path / "run/metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGTERM, errors
    message = r"error: SIGTERM received: fold 0 is saved at step (\d+)\. The same command continues\.\n"
    told = re.fullmatch(message, errors)
    assert told, errors
    assert checkpoints.kept_steps(tmp_path / "run/fold_0/checkpoints") == [int(told[1])]
    assert not (tmp_path / "run/summary.json").exists()
    run = train(tmp_path, "run")
    outputs = [process.communicate(timeout=120) for process in (whole, run)]
    assert [process.returncode for process in (whole, run)] == [0, 0], outputs
    assert f"fold 0: continuing at step {told[1]} of " in outputs[1][0]
    ends = [checkpoints.read_arrays(tmp_path / name / "fold_0/checkpoints") for name in ("whole", "run")]
    assert ends[0][0] > int(told[1])
    assert ends[0][0] == ends[1][0]
    jax.tree.map(np.testing.assert_array_equal, ends[0][1], ends[1][1])
    logits = [np.load(tmp_path / name / "fold_0/predictions.npz")["logits"] for name in ("whole", "run")]
    np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("a bug")])
def test_a_bug_keeps_its_traceback(monkeypatch, capsys, error):
    with pytest.raises(type(error), match="a bug"):
        stopped(monkeypatch, capsys, error)
