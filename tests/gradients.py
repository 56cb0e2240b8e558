"""What gradients of several trainings are compared by."""

import torch


def assert_same_steps(seen, plain):
    """`seen` maps a setting to the gradients (name -> tensor) of its two steps; all are those of `plain`."""
    assert {len(steps) for steps in seen.values()} == {2}
    for steps in seen.values():
        for step, expected in zip(steps, seen[plain], strict=True):
            assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
            for name, gradient in expected.items():
                torch.testing.assert_close(step[name], gradient, atol=2e-6, rtol=2e-4)
