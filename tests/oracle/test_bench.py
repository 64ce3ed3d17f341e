"""The PyTorch peers of `certiconv bench` give the right results: both layouts, strides, groups, one axis, a step."""

from types import ModuleType

import pytest

from runtime.bench import prepared
from runtime.bench_cases import PARTS, Case, Convolution, LeNetStep, Part
from runtime.bench_data import arrays, truth
from runtime.bench_peers import PEERS, PYTORCH
from runtime.roofline import Roof

pytestmark = pytest.mark.oracle

STRIDED = Convolution(2, 4, 6, (9, 8), 3, stride=2, padding=1)
AUDIO = Convolution(2, 3, 4, (11,), 4, padding=2)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("work", [STRIDED, AUDIO], ids=["strided", "audio"])
def test_a_convolution_agrees(torch: ModuleType, work: Convolution, part: Part) -> None:
    case = Case("case", work, part)
    data = arrays(case)
    right = truth(case, data)
    built = {peer.name: peer.build(case, data) for peer in PEERS if peer.name in PYTORCH}
    assert (built[PYTORCH[1]] is None) == (work is AUDIO)
    for name, contestant in built.items():
        if contestant is not None:
            right.check(name, contestant.outcome())
            result = contestant.call()
            assert result.requires_grad is False
            if name == PYTORCH[1] and part == "forward":
                assert result.is_contiguous(memory_format=torch.channels_last)


def test_a_step_agrees_and_the_threads_are_put_back(torch: ModuleType) -> None:
    before = torch.get_num_threads()
    with prepared(rounds=1, threads=1, measure=lambda: Roof(1.0, 1.0)) as ready:
        assert torch.get_num_threads() == 1
        result = ready.run(Case("step-4", LeNetStep(4), "step"))
    assert torch.get_num_threads() == before
    assert result.samples is not None
    assert set(PYTORCH) <= set(result.samples.seconds)
    assert result.reference in PYTORCH
