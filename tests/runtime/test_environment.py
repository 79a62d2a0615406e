"""What a computation ran with, and what of it may change results."""

import importlib.metadata

import jax

import audiotag_jax
from audiotag_jax.runtime.environment import LIBRARIES, differences, environment


def test_an_environment_names_versions_code_machine_and_device():
    found = environment()
    assert found["audiotag_jax"] == audiotag_jax.__version__ and found["jax"] == jax.__version__
    assert found["soundfile"] == importlib.metadata.version("soundfile")
    assert found["device"] == "cpu" and len(found["code"]) == 16
    assert {*LIBRARIES, "python", "machine"} <= found.keys() and all(found.values())


def test_differences_are_those_that_change_numbers():
    then = environment()
    assert differences(then, environment()) == []
    now = then | {"jax": "99.0", "device": "gpu NVIDIA H100", "code": "edited", "machine": "another"}
    assert differences(then, now) == [f"jax {jax.__version__}, here 99.0", "device cpu, here gpu NVIDIA H100"]
    assert differences({"jax": "1"}, {}) == ["jax 1, here unknown"]  # a record of another release
    assert differences({}, now) == []
