"""Compiled layers: the numbers of uncompiled ones, and as many graphs for many rows as for the first."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from skills_pipe.training.config.families import ARCHITECTURES
from skills_pipe.training.models import compiled
from skills_pipe.training.models.compiled import compile_layers
from skills_pipe.training.models.generate import Generation, Prompt
from skills_pipe.training.models.loss import SupervisedLoss
from skills_pipe.training.models.recompute import recompute_layers
from tests.training.exhaustive import mostly_exhaustive
from tests.training.models.test_attention import packed_row
from tests.training.tiny import tiny_model

pytestmark = pytest.mark.slow  # torch compiles

LIMIT = 2e-6
"""Rounding of fp32."""

FIRST = (20, 44)
ROWS = [FIRST, (32,), (3,), (1, 31), (9, 9, 9, 9, 9), (8, 56), (7, 1, 1, 60, 2), (130,)]
"""Lengths of documents; the tiny model is 32 wide."""

GRAPHS = 4
"""Of one kind of layer: two before attention and two behind it, as they are called from without and from within."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Loss and gradients of a row, and how many graphs have been compiled by then."""

    loss: float
    gradients: dict[str, torch.Tensor]
    graphs: int


def rows_through(architecture, *, rows=(FIRST,), compiling=True, recompute=None, **changes) -> list[Found]:
    model = tiny_model(architecture, **changes).train()
    if recompute:
        recompute_layers(model, recompute)
    if compiling:
        compile_layers(model)
    counters.clear()
    return [row_through(model, lengths) for lengths in rows]


def row_through(model, lengths) -> Found:
    ids, positions, documents = packed_row(lengths)
    model.zero_grad()
    torch.manual_seed(0)
    loss = SupervisedLoss(model)(ids, positions, ids.roll(-1, 1), documents, scale=1 / sum(lengths))
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return Found(loss=loss.item(), gradients=gradients, graphs=graphs())


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def furthest(found: Found, expected: Found) -> float:
    """The largest relative difference of the loss and of any gradient; small gradients beside a tenth of all."""
    assert found.gradients.keys() == expected.gradients.keys()
    least = 0.1 * torch.nn.utils.get_total_norm(expected.gradients.values())
    differences = [abs(found.loss - expected.loss) / expected.loss]
    for name, value in expected.gradients.items():
        differences.append(float((found.gradients[name] - value).norm() / torch.maximum(value.norm(), least)))
    return max(differences)


@pytest.mark.parametrize(
    "architecture",
    mostly_exhaustive(ARCHITECTURES, ["llama", "gpt_oss"]),
)
def test_rows_of_any_length_give_the_same_numbers_by_the_graphs_of_the_first(architecture):
    found = rows_through(architecture, rows=ROWS)
    expected = rows_through(architecture, rows=ROWS, compiling=False)

    assert max(furthest(*each) for each in zip(found, expected, strict=True)) <= LIMIT
    assert [each.graphs for each in found] == [GRAPHS] * len(ROWS)
    assert [each.graphs for each in expected] == [0] * len(ROWS)
    cuts = {reason.partition("\n")[0] for reason in counters["graph_break"]}
    assert cuts <= {"Skip calling `torch.compiler.disable()`d function"}


def test_a_thousandth_of_a_norm_would_be_noticed():
    found, expected = (rows_through("llama", compiling=False, rms_norm_eps=eps)[0] for eps in (1e-6, 1.1e-6))

    assert furthest(found, expected) > LIMIT


def test_graphs_for_lengths_that_never_change_would_be_noticed(monkeypatch):
    right = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: right(function, dynamic=False, backend="aot_eager"))
    monkeypatch.setattr(compiled, "_compiled", compiled._compiled.__wrapped__)

    counted = [each.graphs for each in rows_through("llama", rows=[(20, 44), (3,)])]
    assert counted[0] < counted[1]


def test_more_graphs_than_torch_keeps_are_an_error_and_not_silence():
    model = tiny_model("llama").train()
    compile_layers(model)
    with torch._dynamo.config.patch(recompile_limit=1):
        row_through(model, FIRST)
        model.eval()
        with pytest.raises(FailOnRecompileLimitHit):
            row_through(model, FIRST)
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=False):
            row_through(model, FIRST)


def test_validation_has_graphs_of_its_own_once():
    model = tiny_model("llama")
    compile_layers(model)
    counters.clear()
    counted = []
    for _ in range(2):
        model.train()
        row_through(model, FIRST)
        model.eval()
        ids, positions, documents = packed_row((5, 70))
        with torch.no_grad():
            value = SupervisedLoss(model)(ids, positions, ids.roll(-1, 1), documents, scale=1.0)
            expected = SupervisedLoss(tiny_model("llama").eval())(ids, positions, ids.roll(-1, 1), documents, scale=1.0)
        assert value.item() == pytest.approx(expected.item(), rel=LIMIT)
        counted.append(graphs())

    assert counted == [2 * GRAPHS] * 2


def test_recomputed_layers_are_compiled_too():
    found, plain = rows_through("llama", recompute="full")[0], rows_through("llama", compiling=False)[0]

    assert found.graphs == GRAPHS
    assert furthest(found, plain) <= LIMIT


def kept(*, compiling=False, recompute=None) -> int:
    """Bytes that the forward pass of a row leaves behind, the second time."""
    model = tiny_model("llama").train()
    if recompute:
        recompute_layers(model, recompute)
    if compiling:
        compile_layers(model)
    row_through(model, FIRST)
    ids, positions, documents = packed_row(FIRST)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as forward:
        loss = SupervisedLoss(model)(ids, positions, ids.roll(-1, 1), documents, scale=1.0)
    found = sum(event.self_cpu_memory_usage for event in forward.key_averages())
    loss.backward()
    return found


def test_compiled_layers_keep_less():
    assert kept(compiling=True) < 0.9 * kept()


def test_selectively_recomputed_layers_would_not_keep_their_products():
    """Why the configuration refuses them."""
    assert kept(compiling=True, recompute="selective") < 0.8 * kept(recompute="selective")


def test_names_stay_and_layers_are_what_they_were():
    model = tiny_model("llama")
    names, layer = list(model.state_dict()), type(model.model.layers[0])
    compile_layers(model)
    classes = [type(each) for each in model.model.layers]
    compile_layers(model)

    assert [type(each) for each in model.model.layers] == classes
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()] == names
    assert all(isinstance(each, layer) for each in model.model.layers)


def test_attention_drops_what_it_drops_and_other_dropout_draws_other_numbers_the_same_each_time():
    dropped = {"attention_dropout": 0.3}
    found, expected = (rows_through("llama", compiling=compiling, **dropped)[0] for compiling in (True, False))
    assert furthest(found, expected) <= LIMIT
    assert furthest(rows_through("llama", compiling=False)[0], expected) > 1e-3

    dropped = {"resid_pdrop": 0.3}
    one, again, plain = (rows_through("gpt2", compiling=compiling, **dropped)[0] for compiling in (True, True, False))
    assert one.loss == again.loss
    assert all(torch.equal(value, again.gradients[name]) for name, value in one.gradients.items())
    assert one.loss != plain.loss


def test_answers_are_written_without_compiling():
    prompts = [Prompt(ids=(5, 6, 7), limit=6), Prompt(ids=(9, 10), limit=6)]
    how = Generation(stop_ids=(), pad_id=0, batch_size=2)
    model, plain = tiny_model("llama"), tiny_model("llama")
    compile_layers(model)
    counters.clear()
    with torch.no_grad():
        assert SupervisedLoss(model).generate(prompts, how) == SupervisedLoss(plain).generate(prompts, how)
    assert graphs() == 0
    assert row_through(model.train(), FIRST).graphs == GRAPHS
