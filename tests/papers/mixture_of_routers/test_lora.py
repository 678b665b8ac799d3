from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.moe import parameters
from mofme.core.routers import ROUTERS
from mofme.errors import ModelError
from mofme.language.minilm import MiniLM, read_tokens
from mofme.papers.mixture_of_routers.lora import (
    LAST,
    MIXTURE,
    SINGLE,
    WIDE,
    WINDOW,
    Classifier,
    LoraBank,
    Recipe,
    adapter_state,
    lowest_block,
    make_router,
    wrap,
)

if TYPE_CHECKING:
    from mofme.language.pretrained import PretrainedLM


def test_it_adds_the_chosen_adapters_to_the_frozen_layer() -> None:
    # Each expert's own matrix B_e A_e * alpha / r, weighed by the router, beside W x + b: in float64, one by one.
    torch.manual_seed(0)
    bank = LoraBank(nn.Linear(6, 5), Recipe((), rank=3, alpha=6.0, experts=4)).eval().double()
    bank.mixture.experts.up_ERF.data.normal_()  # type: ignore[union-attr, operator]
    x_BTD = torch.randn(2, 3, 6, dtype=torch.float64)
    down_ERD, up_ERF = bank.mixture.experts.down_ERD, bank.mixture.experts.up_ERF
    expected = []
    for x_D in x_BTD.flatten(0, 1):
        weights_E = bank.mixture.router(x_D[None]).weights_TE[0]
        y_F = bank.frozen.weight @ x_D + bank.frozen.bias
        for weight, down_RD, up_RF in zip(weights_E, down_ERD, up_ERF, strict=True):  # type: ignore[arg-type]
            y_F = y_F + weight * (up_RF.T @ down_RD) @ x_D * 2
        expected.append(y_F)
    torch.testing.assert_close(bank(x_BTD), torch.stack(expected).unflatten(0, (2, 3)))


@pytest.mark.parametrize(("dim", "sub_routers"), [(384, 2), (1536, 4)])
def test_the_wide_router_has_as_many_parameters(dim: int, sub_routers: int) -> None:
    # A mixture of S has S (8 D) + S D of them; the wide one rounds up by less than one more feature, D + 8.
    mixture, wide = (parameters(make_router(dim, Recipe((), kind, sub_routers))) for kind in (MIXTURE, WIDE))
    assert mixture == sub_routers * 9 * dim
    assert mixture <= wide < mixture + dim + 8


def test_the_wide_router_by_hand() -> None:
    # x = (1, -1): features relu(x) = (1, 0), scores log (2, 1, 1) times 1: (1/2, 1/4, 1/4), of two equal ones the
    # first stays: 2/3 and 1/3.
    router = make_router(2, Recipe((), WIDE, 1, experts=3))
    router.widen = nn.Linear(2, 2, bias=False)
    router.widen.weight.data = torch.eye(2)
    router.score.score.weight.data = torch.tensor([[2.0, 9], [1, 9], [1, 9]]).log()  # type: ignore[union-attr]
    weights = router(torch.tensor([[1.0, -1]])).weights_TE
    torch.testing.assert_close(weights, torch.tensor([[2 / 3, 1 / 3, 0]]))


@pytest.mark.parametrize("router", [SINGLE, WIDE, MIXTURE])
def test_a_recipe_changes_nothing_but_the_router(router: str) -> None:
    def built(kind: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        wrap(model, Recipe(("0", "1"), kind))
        return {name: tensor for name, tensor in model.state_dict().items() if ".router." not in name}

    ours, others = built(router), built(SINGLE)
    assert ours.keys() == others.keys()
    assert all(torch.equal(ours[name], others[name]) for name in ours)


def test_linear_layers_of_a_language_model_by_name(tiny_pretrained: "Callable[..., PretrainedLM]") -> None:
    model = tiny_pretrained().model
    ids = torch.tensor([[5, 9, 1, 30, 2]])
    before = model(ids).logits
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped = [f"{layer}.{part}" for layer in range(3) for part in ("self_attn.q_proj", "self_attn.v_proj")]
    wrapped.insert(4, "1.mlp.down_proj")
    banks = wrap(model, Recipe(("self_attn.q_proj", "self_attn.v_proj", "1.mlp.down_proj")))
    assert list(banks) == [f"model.layers.{name}" for name in wrapped]
    assert torch.equal(model(ids).logits, before)  # B begins at zero
    model(ids, labels=ids).loss.backward()
    torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad]).step()
    assert not torch.equal(model(ids).logits, before)
    after = model.state_dict()
    for name, tensor in frozen.items():
        parent, _, kind = name.rpartition(".")
        assert torch.equal(after[f"{parent}.frozen.{kind}" if parent in banks else name], tensor)
    assert all(".mixture." in name for name in adapter_state(model))


def test_endings_are_whole_parts_of_names() -> None:
    model = nn.ModuleDict({"0": nn.Linear(2, 2), "10": nn.Linear(2, 2)})
    assert list(wrap(model, Recipe(("0",)))) == ["0"]
    with pytest.raises(ModelError, match="no linear layer called q_proj or v_proj"):
        wrap(model, Recipe(("q_proj", "v_proj")))


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_of_the_core_can_choose_among_banks(name: str) -> None:
    torch.manual_seed(0)
    bank = LoraBank(nn.Linear(6, 5), Recipe((), name, experts=4, top_k=2))
    assert type(bank.mixture.router) is ROUTERS[name]  # type: ignore[index]
    bank(torch.randn(3, 6)).sum().backward()
    assert bank.mixture.router.num_experts == 4
    with pytest.raises(ValueError, match=r"'none' is no router: .*attention"):
        make_router(4, Recipe((), "none"))


TEXTS = ["What is the capital of France?", "hi", "Write a function that reverses a linked list, please."]


def test_gradients_reach_the_banks_and_nothing_else_and_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    classifier = Classifier(MiniLM.pretrained(), Recipe(("blocks.10.value", *LAST)), 3).eval()
    for bank in classifier.banks.values():
        bank.mixture.experts.up_ERF.data.normal_(std=0.01)  # type: ignore[union-attr, operator]
    ids = [read_tokens(text, WINDOW)[0] for text in TEXTS]

    def scores(rows: list[list[int]]) -> Tensor:
        x_BTD, seen_BT = classifier.encoder.embed(rows)
        result: Tensor = classifier(classifier.encoder.run(x_BTD, seen_BT, stop=classifier.first), seen_BT)
        return result

    torch.testing.assert_close(scores(ids), torch.cat([scores([row]) for row in ids]), rtol=1e-4, atol=1e-4)
    F.cross_entropy(scores(ids), torch.tensor([0, 1, 2])).backward()
    reached = {name for name, parameter in classifier.named_parameters() if parameter.grad is not None}
    assert all("mixture" in name or name.startswith("head.") for name in reached)
    assert {name for name, parameter in classifier.named_parameters() if parameter.requires_grad} == reached
    assert all(classifier.get_parameter(name).grad.any() for name in reached)  # type: ignore[union-attr]
    assert len(classifier.banks) == 3


def test_layers_need_a_blocks_number() -> None:
    assert lowest_block(Recipe(("blocks.11.widen", "blocks.8.query"))) == 8
    with pytest.raises(ModelError, match=r"as blocks\.11\.widen does"):
        lowest_block(Recipe(("widen",)))
