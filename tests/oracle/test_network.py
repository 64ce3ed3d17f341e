"""The emitted LeNet against PyTorch in float64: after five steps of SGD the parameters are PyTorch's.

PyTorch is asked through its layers, its automatic differentiation and its optimiser.
"""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from codegen.emit import emit
from codegen.loading import load
from derive.layers import lenet
from tests.codegen.small import numbers

pytestmark = pytest.mark.oracle

STEPS = 5
TOLERANCE = 1e-10


def torch_lenet(torch: ModuleType) -> Any:
    nn = torch.nn
    layers = (
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2)),
        *(nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10)),
    )
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize(("batch", "block"), [(8, 3), (32, 64), (1, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_five_steps_of_sgd(torch: ModuleType, batch: int, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    module = load(emit(lenet(), input_shape=(batch, 1, 28, 28), dtype="float64").source)
    params = {name: numbers(rng, shape, 2.0) for name, shape in module.PARAMETERS.items()}
    net = torch_lenet(torch)
    net.load_state_dict({name: torch.from_numpy(p.copy()) for name, p in params.items()})
    optimiser = torch.optim.SGD(net.parameters(), lr=0.5)
    work = module.Workspace(batch, np.float64, block=block)
    for _ in range(STEPS):
        x, y = rng.normal(size=(batch, 1, 28, 28)), rng.integers(0, 10, batch)
        optimiser.zero_grad()
        expected = torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y))
        expected.backward()
        optimiser.step()
        assert module.sgd_step(x, y, params, 0.5, work) == pytest.approx(expected.item(), rel=TOLERANCE)
    assert list(params) == list(net.state_dict())
    for name, tensor in net.state_dict().items():
        values = tensor.numpy()
        assert np.abs(params[name] - values).max() <= TOLERANCE * np.abs(values).max(), name
