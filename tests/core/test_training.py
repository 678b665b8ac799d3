import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mofme.core import training
from mofme.core.training import Run, cosine, linear, part_of, save_checkpoint
from mofme.errors import Cancelled, ModelError, MofmeError


def fresh(size: int = 3, **others: Any) -> Run:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    given: dict[str, Any] = {"schedule": cosine(0.1), "warm_up": 5, "clip": 0.1, "average": average, **others}
    return Run(net, optimizer, **given)


def loss_at(net: nn.Module, step: int) -> Tensor:
    x_TD = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    return (net(x_TD)[:, 0] - x_TD.sum(1)).square().mean()


def one_weight(rate: float = 1.0, **others: Any) -> Run:
    """A net of the single weight 0, so that a step of plain descent is minus rate times gradient."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    return Run(net, torch.optim.SGD(net.parameters(), rate), **others)


def weight(run: Run) -> Tensor:
    return next(run.net.parameters())


def test_a_run_is_the_loop_that_everybody_writes() -> None:
    run = fresh(steps=20)
    losses = [run.learn(loss_at(run.net, step)) for step in run]
    other = fresh(steps=20)
    net, average = other.net, other.average
    optimizer = torch.optim.AdamW(net.parameters())
    for step in range(20):
        rate = 0.1 + 0.9 * (1 + math.cos(math.pi * step / 20)) / 2
        optimizer.param_groups[0]["lr"] = 0.01 * rate * min(1, (step + 1) / 5)
        optimizer.zero_grad()
        loss = loss_at(net, step)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        average.update_parameters(net)
        assert loss.item() == losses[step]
    torch.testing.assert_close(dict(run.net.state_dict()), dict(net.state_dict()))
    torch.testing.assert_close(dict(run.trained.state_dict()), dict(average.module.state_dict()))


def test_schedules_by_hand() -> None:
    assert [linear(done, 4) for done in range(4)] == [1, 0.75, 0.5, 0.25]
    # Half a cosine is (1 + cos 60 degrees) / 2 = 3/4 after a third of the way: 0.2 + 0.8 * 3/4.
    assert [cosine(0.2)(done, 3) for done in (0, 1, 3)] == pytest.approx([1, 0.8, 0.2])


def test_every_group_keeps_its_own_rate_and_rises_to_it() -> None:
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    net = nn.ParameterList([first, second])
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 10.0}], lr=1.0)
    run = Run(net, optimizer, steps=4, schedule=linear, warm_up=2)
    rates = []
    for _ in run:
        rates.append([group["lr"] for group in run.optimizer.param_groups])
        run.learn(first.sum() + second.sum())
    assert rates == [[0.5, 5], [0.75, 7.5], [0.5, 5], [0.25, 2.5]]
    assert (first.item(), second.item()) == (-2, -20)


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_step_that_is_not_finite_is_left_out(number: float) -> None:
    run = one_weight(steps=3)
    for step in run:
        run.learn(weight(run).sum() * (number if step == 1 else 1))
    assert (weight(run).item(), run.steps) == (-2, 3)


@pytest.mark.parametrize(("steps", "said"), [(50, "10 steps"), (3, "3 steps")])
def test_a_run_that_only_diverges_says_so(steps: int, said: str) -> None:
    run = one_weight(steps=steps)
    with pytest.raises(MofmeError, match=f"{said} in a row had no finite gradients: lower the learning rate"):
        for _ in run:
            run.learn(weight(run).sum() * math.nan)


def test_a_budget_of_seconds_counts_learning_and_no_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(training.time, "monotonic", lambda: clock)
    write = training.save_checkpoint

    def slow(*given: Any) -> None:
        nonlocal clock
        clock += 100
        write(*given)

    monkeypatch.setattr(training, "save_checkpoint", slow)
    run = one_weight(seconds=10.0, schedule=linear)
    run.resume(tmp_path / "state.pt")
    rates = []
    for _ in run:
        rates.append(run.optimizer.param_groups[0]["lr"])
        clock += 4
        run.learn(weight(run).sum())
        run.save()
    assert rates == pytest.approx([1, 0.6, 0.2])
    assert (run.steps, run.seconds, run.over) == (3, 12, True)


def test_what_is_due_is_so_at_the_end_too_and_it_stops_before_a_step_when_asked() -> None:
    run, seen = one_weight(steps=7), []
    for _ in run:
        run.learn(weight(run).sum())
        seen += [run.steps] * run.due(3)
    assert seen == [3, 6, 7]
    run = one_weight(steps=7)
    run.stopped = lambda: run.steps == 2
    with pytest.raises(Cancelled, match="after 2 of 7 steps"):
        for _ in run:
            run.learn(weight(run).sum())
    assert weight(run).item() == -2


def test_killed_while_it_writes_it_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, resumed, whole = (fresh(steps=30) for _ in range(3))
    killed.resume(tmp_path / "state.pt", {"seed": 0})

    def kill(_: int) -> None:
        if killed.steps == 20:  # what was written is not in its place yet
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mofme.files.os.fsync", kill)
        for step in killed:
            killed.learn(loss_at(killed.net, step))
            killed.save()
    assert resumed.resume(tmp_path / "state.pt", {"seed": 0}) and resumed.steps == 19
    for run in (resumed, whole):
        for step in run:
            run.learn(loss_at(run.net, step))
    for ours, theirs in zip(resumed.trained.parameters(), whole.trained.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def kept(path: Path, **others: Any) -> Run:
    run = fresh(steps=3, **others)
    run.resume(path, {"seed": 0})
    run.notes["curve"] = [1.5]
    for step in run:
        run.learn(loss_at(run.net, step))
    run.save()
    return run


def test_notes_and_other_parts_are_kept(tmp_path: Path) -> None:
    run = kept(tmp_path / "state.pt")
    again, other = fresh(steps=3), nn.Linear(1, 1)
    assert again.resume(tmp_path / "state.pt", {"seed": 0})
    assert (again.steps, again.seconds, again.notes) == (3, run.seconds, {"curve": [1.5]})
    assert list(again) == []
    with pytest.raises(ModelError, match="'other'"):
        again.resume(tmp_path / "state.pt", {"seed": 0}, other=other)
    again.save()  # now with it
    assert fresh(steps=3).resume(tmp_path / "state.pt", {"seed": 0}, other=other)


def test_the_state_of_another_run_a_damaged_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    kept(path)
    with pytest.raises(ModelError, match=r"state\.pt .*other settings \({'seed': 0}\)"):
        fresh(steps=3).resume(path, {"seed": 1})
    with pytest.raises(ModelError, match=r"state\.pt .*a net of another size"):
        fresh(4, steps=3).resume(path, {"seed": 0})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"state\.pt is damaged .*: delete it, or choose another folder"):
        fresh(steps=3).resume(path, {"seed": 0})
    path.rename(tmp_path / "card.json")
    with pytest.raises(ModelError, match="a new run would replace the model"):
        fresh(steps=3).resume(path)


def test_states_from_before_there_were_notes_are_read(tmp_path: Path) -> None:
    run = kept(tmp_path / "state.pt")
    parts = {"net": run.net, "optimizer": run.optimizer, "average": run.average}
    state = {name: part.state_dict() for name, part in parts.items()}
    save_checkpoint(tmp_path / "state.pt", {**state, "settings": {"seed": 0}, "step": 2, "seconds": 9.0})
    again = fresh(steps=3)
    assert again.resume(tmp_path / "state.pt", {"seed": 0})
    assert (again.steps, again.seconds, again.notes) == (2, 9.0, {})


def test_names_of_parts_do_not_run_into_each_other() -> None:
    state = {"a.x": torch.ones(1), "ab.x": torch.zeros(1)}
    assert part_of(state, "a").keys() == {"x"} and float(part_of(state, "a")["x"]) == 1
