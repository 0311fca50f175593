"""What every callback must stand: no exceptions."""

import copy
import functools
import inspect
import pickle
from contextlib import nullcontext

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI

import lightning_trainingkit
from tests.contract.table import CALLBACKS, CASES, build, module_of, write_members
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer

every_case = pytest.mark.parametrize("case", CASES)
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # resumed on purpose


@pytest.fixture(autouse=True)
def _members(tmp_path, _own_folder):
    write_members(tmp_path)


def snapshot(module):
    """All that a user could find changed: weights and how they lie in memory, modes, gradients, patched attributes."""
    return {
        "weights": {name: (value.clone(), value.stride()) for name, value in module.state_dict().items()},
        "modes": {name: child.training for name, child in module.named_modules()},
        "requires_grad": {name: value.requires_grad for name, value in module.named_parameters()},
        "patches": {
            name: set(vars(child)) & {"forward", "setup", "configure_model", "training_step"}
            for name, child in module.named_modules()
        },
        "hooks": {
            name: len(child._forward_hooks) + len(child._forward_pre_hooks) for name, child in module.named_modules()
        },
    }


def assert_same(before, after):
    for name, (value, stride) in before["weights"].items():
        assert torch.equal(value, after["weights"][name][0]), name
        assert stride == after["weights"][name][1], name
    for key in before.keys() - {"weights"}:
        assert before[key] == after[key]


def test_the_table_holds_every_public_callback():
    public = {name: getattr(lightning_trainingkit, name) for name in lightning_trainingkit.__all__}
    callbacks = {name for name, value in public.items() if inspect.isclass(value) and issubclass(value, L.Callback)}
    assert callbacks == set(CALLBACKS)


def evaluated(stage, raises, callbacks, base):
    """What can be seen of a module before and after a stage, whose forward raises or not."""

    class Raising(base):
        def forward(self, x):
            if raises:
                raise ArithmeticError
            return super().forward(x)

    module = Raising()
    module.net[1].eval()
    module.net[0].requires_grad_(False)
    before = snapshot(module)
    options = {"dataloaders": toy_loaders()[1]} | ({} if stage == "predict" else {"verbose": False})
    with pytest.raises(ArithmeticError) if raises else nullcontext():
        getattr(toy_trainer(*callbacks), stage)(module, **options)
    return before, snapshot(module)


@functools.cache
def modes_without(stage, raises, base):
    """The modes in which Lightning alone leaves the module."""
    return evaluated(stage, raises, [], base)[1]["modes"]


@every_case
@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
@pytest.mark.parametrize("raises", [False, True])
def test_evaluation_leaves_the_module_as_found(case, stage, raises):
    before, after = evaluated(stage, raises, build(case), module_of(case))
    # Lightning itself leaves the modes of a module whose step raised in eval: the callback changes nothing about that
    assert_same(before | {"modes": modes_without(stage, raises, module_of(case))}, after)


@every_case
@pytest.mark.parametrize("hook", ["setup", "configure_model", "training_step", "validation_step"])
def test_a_fit_that_raises_leaves_no_patch_behind(case, hook):
    def fail(self, *args, **kwargs):
        raise ArithmeticError

    raising = type("Raising", (module_of(case),), {hook: fail})
    module = raising()
    before = snapshot(module)
    with pytest.raises(ArithmeticError):
        toy_trainer(*build(case)).fit(module, *toy_loaders())
    after = snapshot(module)
    assert after["patches"] == before["patches"]
    assert after["hooks"] == before["hooks"]
    assert {k: v[1] for k, v in after["weights"].items()} == {k: v[1] for k, v in before["weights"].items()}


def train(case, folder, epochs, ckpt_path=None, module=None, **options):
    L.seed_everything(0, verbose=False)
    module = module or module_of(case)()
    callback, *beside = build(case)
    seed = [] if case == "EpochSeed" else build("EpochSeed")
    save = ModelCheckpoint(folder / "neutral", save_top_k=-1, save_on_train_epoch_end=False)
    trainer = toy_trainer(callback, *beside, *seed, save, max_epochs=epochs, default_root_dir=folder, **options)
    trainer.fit(module, *toy_loaders(), ckpt_path=ckpt_path)
    return module, callback, trainer


@every_case
def test_train_2_resume_train_2_equals_train_4(case, tmp_path):
    unbroken, _, trainer = train(case, tmp_path / "unbroken", 4)
    _, _, first = train(case, tmp_path / "resumed", 2)
    resumed, _, second = train(case, tmp_path / "resumed", 4, first.checkpoint_callbacks[-1].best_model_path)
    assert difference(unbroken.state_dict(), resumed.state_dict()) == 0
    state, state_too = [t.optimizers[0].state_dict()["state"] for t in (trainer, second)]
    assert all(torch.equal(state[i]["momentum_buffer"], state_too[i]["momentum_buffer"]) for i in state)
    assert (
        trainer.lr_scheduler_configs[0].scheduler.state_dict() == second.lr_scheduler_configs[0].scheduler.state_dict()
    )
    assert trainer.global_step == second.global_step


@every_case
def test_state_dict_round_trips_and_the_callback_pickles(case, tmp_path):
    _, callback, _ = train(case, tmp_path, 2)
    state = callback.state_dict()
    torch.save(state, tmp_path / "state.pt")
    restored = build(case)[0]
    if "dirpath" in state:
        restored.dirpath = state["dirpath"]
    if state:
        restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert repr(restored.state_dict() | {"current_score": None}) == repr(state | {"current_score": None})
    for original in (build(case)[0], callback):
        assert type(pickle.loads(pickle.dumps(original))) is type(original)
        assert copy.deepcopy(original).state_key == original.state_key


@every_case
def test_a_second_fit_works(case, tmp_path):
    callbacks = build(case)
    for fit in range(2):
        module = module_of(case)()
        trainer = toy_trainer(*callbacks, default_root_dir=tmp_path / str(fit))
        trainer.fit(module, *toy_loaders())
        assert trainer.global_step == 8
        assert not any(snapshot(module)["patches"].values())


@every_case
def test_the_sanity_check_changes_nothing(case, tmp_path):
    with_check, _, _ = train(case, tmp_path / "with", 2, num_sanity_val_steps=2)
    without, _, _ = train(case, tmp_path / "without", 2, num_sanity_val_steps=0)
    assert difference(with_check.state_dict(), without.state_dict()) == 0


@every_case
def test_it_is_built_from_a_yaml_file_with_the_names_that_python_uses(case, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])
    classes = CASES[case]
    callbacks = [{"class_path": f"lightning_trainingkit.{name}", "init_args": classes[name]} for name in classes]
    config = {"seed_everything": False, "trainer": {"callbacks": callbacks, "logger": False, "accelerator": "cpu"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    cli = LightningCLI(
        ToyModule, run=False, save_config_callback=None, args=["--config", str(tmp_path / "config.yaml")]
    )
    for callback, (name, arguments) in zip(build(case), classes.items(), strict=True):
        (built,) = [each for each in cli.trainer.callbacks if type(each).__name__ == name]
        for argument in arguments:
            assert repr(getattr(built, argument)) == repr(getattr(callback, argument))


SAVED = {
    "BatchAugmentation": {"policy": {"rotation": [-15.0, 15.0], "lens_k1": [-0.1, 0.1]}},
    "InitOverride": {"scheme": {"net.*": "zeros", "head": "normal(0.1)"}},
    "TestTimeAugmentation": {"views": ["flip", ["identity", "vflip"]]},
    "TransferLearning": {
        "phases": [{"train": "head"}, {"train": ["net.0", "head"], "start": 1, "lr_scale": {"net.0": 0.1}}]
    },
}


@pytest.mark.parametrize("name", SAVED)
def test_a_config_that_lightning_saves_can_be_run_again(name, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])
    callback = {"class_path": f"lightning_trainingkit.{name}", "init_args": SAVED[name]}
    trainer = {"callbacks": [callback], "logger": False, "accelerator": "cpu"}
    text = yaml.safe_dump({"seed_everything": False, "trainer": trainer}, sort_keys=False)
    for number in range(2):
        (tmp_path / f"{number}.yaml").write_text(text)
        arguments = ["--config", str(tmp_path / f"{number}.yaml")]
        cli = LightningCLI(ToyModule, run=False, save_config_callback=None, args=arguments)
        text = cli.parser.dump(cli.config, skip_none=False)
    (built,) = [each for each in cli.trainer.callbacks if type(each).__name__ == name]
    ((argument, value),) = SAVED[name].items()
    assert repr(getattr(built, argument)) == repr(value)


@pytest.mark.parametrize("name", CALLBACKS)
def test_every_argument_can_be_read_back(name):
    (callback,) = build(name)
    for argument in inspect.signature(type(callback).__init__).parameters.keys() - {"self"}:
        assert any(hasattr(callback, prefix + argument) for prefix in ("", "_"))
