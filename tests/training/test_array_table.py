"""Tables of arrays: numbers known in closed form, and a flag on whatever is not finite."""

import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.training.array_table import ArrayRow, describe_arrays, format_arrays, format_totals, format_verdict

TREE = {
    "body": {
        "conv1": {"kernel": np.array([[1, 3], [1, 3]], np.float32)},
        "norm": {"scale": np.array([np.nan, 2, np.inf, 4, -np.inf], np.float32)},
    },
    "head": {"bias": np.array([], np.float32)},
}
GROUPS = {"body": {"conv1": {"kernel": "early"}, "norm": {"scale": "early_norm"}}, "head": {"bias": "head"}}


def test_rows_hold_closed_form_statistics():
    kernel, scale, bias = describe_arrays(TREE, GROUPS)
    assert kernel == ArrayRow("body/conv1/kernel", (2, 2), "float32", "early", 2.0, 1.0, 0)
    assert scale == ArrayRow("body/norm/scale", (5,), "float32", "early_norm", 3.0, 1.0, 3)
    assert (bias.shape, bias.size, bias.num_bad) == ((0,), 0, 0)
    assert np.isnan([bias.mean, bias.std]).all()
    assert (kernel.size, scale.size) == (4, 5)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool, np.float16, jnp.bfloat16])
def test_every_dtype_has_statistics(dtype):
    [row] = describe_arrays({"x": np.array([0, 1, 1, 0], dtype)})
    assert row == ArrayRow("x", (4,), np.dtype(dtype).name, "", 0.5, 0.5, 0)


def test_statistics_do_not_overflow_or_drift():
    """Sums in float16 would overflow at 65,504; in float32 a million values of 1e8 + 1 would not be told apart."""
    large, near = describe_arrays({"a": np.full(100, 60000, np.float16), "b": np.float64(1e8) + np.arange(3)})
    assert (large.mean, large.std) == (60000, 0)
    assert near.mean == 1e8 + 1
    assert near.std == pytest.approx(np.sqrt(2 / 3))


def test_names_go_through_lists_and_scalars_have_a_shape():
    rows = describe_arrays({"opt": [{"count": np.int32(3)}, None, {"mu": np.zeros(2)}], "step": np.int32(7)})
    assert [(row.name, row.shape, row.size) for row in rows] == [
        ("opt/0/count", (), 1),
        ("opt/2/mu", (2,), 2),
        ("step", (), 1),
    ]


def test_groups_of_another_structure_raise():
    with pytest.raises(ValueError, match="shorter"):
        describe_arrays(TREE, {"body": "early"})


def test_table():
    assert format_arrays(describe_arrays(TREE, GROUPS)) == [
        "name               shape   dtype    group       mean  std  NaN/Inf",
        "body/conv1/kernel  (2, 2)  float32  early          2    1        0",
        "body/norm/scale    (5,)    float32  early_norm     3    1        3  <--",
        "head/bias          (0,)    float32  head         nan  nan        0",
    ]


def test_table_without_groups():
    assert format_arrays(describe_arrays({"x": np.array([1e-4, 3e-4])})) == [
        "name  shape  dtype      mean     std  NaN/Inf",
        "x     (2,)   float64  0.0002  0.0001        0",
    ]


def test_totals():
    more = describe_arrays({"x": np.full((40, 50), np.nan)}, {"x": "early"})
    assert format_totals([*describe_arrays(TREE, GROUPS), *more]) == [
        "group       arrays  values  NaN/Inf",
        "early            2   2,004    2,000",
        "early_norm       1       5        3",
        "head             1       0        0",
        "total            4   2,009    2,003",
    ]


def test_verdict_of_finite_state():
    rows = {"opt_state": describe_arrays(np.zeros(1200)), "params": describe_arrays({"x": np.zeros((2, 3))})}
    assert format_verdict("fold 0, step 9", rows) == ["fold 0, step 9: 6 parameters, 1,200 in opt_state; all finite"]


def test_verdict_names_what_is_not_finite():
    rows = {"params": describe_arrays(TREE), "opt_state": describe_arrays({"mu": np.array([np.nan, 0])})}
    assert " ".join(map(str.strip, format_verdict("step 9", rows))) == (
        "step 9: 9 parameters, 2 in opt_state; <-- NaN or Inf: 4, in params/body/norm/scale, opt_state/mu"
    )


def test_verdict_names_a_few_and_wraps():
    tree = {f"a-rather-long-name-of-an-array-{i}": np.array(np.inf) for i in range(9)}
    lines = format_verdict("step 9", {"params": describe_arrays(tree)})
    assert "<-- NaN or Inf: 9, in params/a-rather" in " ".join(lines)
    assert [f"array-{i}" in " ".join(lines) for i in range(9)] == [True] * 5 + [False] * 4
    assert lines[-1].endswith("and 4 more arrays")
    assert len(lines) > 1
    assert max(map(len, lines)) <= 120
