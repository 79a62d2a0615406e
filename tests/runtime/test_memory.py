"""Allocator settings are changed only on hosts that train on CPU."""

import ctypes

import pytest

from audiotag_jax.runtime import memory


@pytest.mark.parametrize(
    ("platforms", "device", "on_cpu"),
    [("", False, True), ("", True, False), ("cpu", True, True), ("cuda,cpu", False, False), ("tpu", False, False)],
)
def test_allocator_is_configured_only_without_an_accelerator(tmp_path, monkeypatch, platforms, device, on_cpu):
    calls = []

    class Library:
        def mallopt(self, *arguments):
            calls.append(arguments)

    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(memory, "ACCELERATORS", (str(tmp_path / "nvidia0"),) if device else (str(tmp_path / "none"),))
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    assert memory.trains_on_cpu() == on_cpu
    memory.keep_freed_memory()
    assert bool(calls) == on_cpu
