import copy
import io
import json
import logging
import pathlib
import pickle

import lightning as L
import pytest
import torch
import wandb
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import (
    BestCheckpoint,
    EnsembleAverage,
    ImageClassifier,
    MonteCarloDropout,
    TestTimeAugmentation,
)
from lightning_trainingkit.nn.averaging.member_files import find_members
from lightning_trainingkit.nn.weights.checkpoint import write_manifest
from tests import process
from tests.callbacks.averaging.artifact_server import serving
from tests.toy import ToyModule, toy_loaders, toy_trainer


class Spy(L.LightningModule):
    """A net of three classes whose steps note what they are given; it is built with what it saves."""

    def __init__(self, width: int = 4, activation: str = "ReLU", num_classes: int = 3, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), getattr(nn, activation)(), nn.Flatten()),
            *(nn.Dropout(0.5), nn.Linear(width * 4, num_classes)),
        )
        self.seen, self.crash = [], False

    def step(self, batch):
        logits = self.net(batch[0])
        self.seen.append(logits.clone())
        if self.crash:
            raise ArithmeticError
        return logits

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", cross_entropy(self.step(batch), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test/loss", cross_entropy(self.step(batch), batch[1]))

    def predict_step(self, batch, batch_idx):
        return self.step(batch).softmax(1)


class RunsCode:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("was_run"),)


def make(seed, **options):
    torch.manual_seed(seed)
    module = Spy(**options)
    module.net[1].running_mean.normal_()
    module.net[1].running_var.uniform_(0.5, 2)
    return module


def save(module, path, **content):
    """As Lightning saves it."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "callbacks": {}} | content
    torch.save(content, path)
    return path


@pytest.fixture
def trained():
    """Three members of one architecture, and their files members/9.ckpt, 10.ckpt, 11.ckpt."""
    modules = [make(seed) for seed in (9, 10, 11)]
    for seed, module in zip((9, 10, 11), modules, strict=True):
        save(module, f"members/{seed}.ckpt")
    return modules


def data(n=21):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, 1, 4, 4, generator=generator), torch.randint(3, (n,), generator=generator))


def loader(n=21):
    return DataLoader(data(n), 8)


def explicit(modules, x=None, weights=None):
    x = data().tensors[0] if x is None else x
    with torch.no_grad():
        each = torch.stack([module.eval().net(x).softmax(1) for module in modules])
    weights = torch.tensor(weights) if weights else torch.full((len(modules),), 1 / len(modules))
    return (each * weights[:, None, None]).sum(0)


def run(callbacks, module=None, stage="test", batches=None, **options):
    """What the steps of a module were given, as probabilities."""
    module = make(0) if module is None else module
    module.seen.clear()
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    quiet = {} if stage == "predict" else {"verbose": False}
    getattr(toy_trainer(*callbacks, **options), stage)(module, batches or loader(), **quiet)
    return torch.cat(module.seen).exp()


def close(found, expected):
    return torch.allclose(found.float(), expected, atol=1e-6, rtol=0)


def state(module):
    return {
        "values": {name: value.clone() for name, value in module.state_dict().items()},
        "places": {name: (id(value), value.data_ptr()) for name, value in module.named_parameters()},
        "modes": [each.training for each in module.modules()],
        "grads": [value.requires_grad for value in module.parameters()],
        "patches": [set(vars(each)) & {"forward", "_compiled_call_impl"} for each in module.modules()],
    }


def same(one, other):
    values = all(torch.equal(value, other["values"][name]) for name, value in one["values"].items())
    return values and all(one[key] == other[key] for key in ("places", "modes", "grads", "patches"))


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_steps_see_the_average_of_the_members_and_the_module_is_left_as_found(trained, stage):
    module = make(0)
    module.net[3].eval()
    before = state(module)
    assert close(run(EnsembleAverage("members/*.ckpt", target="net", stages=stage), module, stage), explicit(trained))
    assert same(before, state(module))
    assert close(run([], module, stage).softmax(1), run([], make(0), stage).softmax(1))


def test_the_order_of_the_files_is_that_of_their_numbers_and_weights_follow_it(trained):
    callback = EnsembleAverage("members/*.ckpt", target="net", weights=[0.7, 0.3, 0.0])
    assert close(run(callback), explicit(trained[:2], weights=[0.7, 0.3]))


def test_a_folder_of_best_checkpoint_is_all_that_its_manifest_names_the_best_first(trained):
    folder = pathlib.Path("members").absolute()
    scores = {str(folder / "9.ckpt"): torch.tensor(0.5), str(folder / "11.ckpt"): torch.tensor(0.9)}
    write_manifest(str(folder), "val/acc", "max", scores, {path: [1, 10] for path in scores})
    callback = EnsembleAverage("members", target="net", weights=[0.8, 0.2])
    assert close(run(callback), explicit([trained[2], trained[0]], weights=[0.8, 0.2]))
    listed = [path.name for path in find_members(["members", "members/10.ckpt"])]
    assert listed == ["11.ckpt", "9.ckpt", "10.ckpt"]
    assert [path.name for path in find_members("mem*s")] == ["11.ckpt", "9.ckpt"]  # a folder that a pattern matches


def test_the_snapshots_of_real_trainings():
    folders = []
    for seed in (1, 2):
        L.seed_everything(seed, verbose=False)
        best = BestCheckpoint("val/loss", "min", dirpath=f"runs/{seed}", save_top_k=2)
        toy_trainer(best, max_epochs=3).fit(ToyModule(), *toy_loaders())
        folders.append(best.dirpath)
    files = [path for folder in folders for path in find_members(folder)]
    assert len(files) == 4
    modules = [ToyModule.load_from_checkpoint(path).eval() for path in files]
    x = toy_loaders()[1].dataset.tensors[0]
    expected = explicit(modules, x)
    found = toy_trainer(EnsembleAverage("runs/*")).predict(ToyModule(), toy_loaders()[1])
    assert close(torch.cat(found).exp(), expected)


def test_weights_saved_by_torch_of_the_target_or_of_the_whole(trained):
    torch.save(trained[0].net.state_dict(), "net.pt")
    torch.save(trained[1].state_dict(), "module.pt")
    callback = EnsembleAverage(["net.pt", "module.pt", trained[2]], target="net")
    assert close(run(callback), explicit(trained))
    nested = nn.ModuleDict({"net": copy.deepcopy(trained[0].net)})  # the target has a child of the target's name
    torch.save(nested.state_dict(), "nested.pt")

    class Nested(Spy):
        def __init__(self):
            super().__init__()
            inner = self.net
            self.net = nn.Identity()
            self.net.net = inner
            self.net.forward = inner.forward

    assert close(run(EnsembleAverage("nested.pt", target="net"), Nested()), explicit(trained[:1]))


def test_other_architectures_are_built_from_what_their_files_hold(trained, caplog):
    wide = make(20, width=8)
    save(wide, "wide.ckpt")
    module = make(0)
    torch.manual_seed(5)
    run(EnsembleAverage("members/9.ckpt", target="net"), module)
    state_without = torch.get_rng_state()
    torch.manual_seed(5)
    with caplog.at_level(logging.INFO):
        found = run(EnsembleAverage(["members/9.ckpt", "wide.ckpt"], target="net"), module)
    assert "Ensemble of 2: 1 sets of weights for the target, 1 other modules" in caplog.text
    assert close(found, explicit([trained[0], wide]))
    assert torch.equal(torch.get_rng_state(), state_without)
    classifiers = [ImageClassifier(name, 3, model_options=options) for name, options in NAMED]
    paths = [save(each, f"{k}.ckpt") for k, each in enumerate(classifiers)]
    x = torch.rand(4, 3, 32, 32)
    batches = DataLoader(TensorDataset(x, torch.zeros(4, dtype=torch.long)), 4)
    trainer = toy_trainer(EnsembleAverage([str(path) for path in paths], target="model"))
    (found,) = trainer.predict(ImageClassifier("small_resnet", 3, model_options=NAMED[0][1]), batches)
    with torch.no_grad():
        expected = sum(each.eval()(x).softmax(1) for each in classifiers) / 2
    assert close(found, expected)


NAMED = [("small_resnet", {"in_channels": 3}), ("resnet18", None)]


def test_equal_shapes_that_compute_something_else_are_built_and_equal_functions_are_not(trained, caplog):
    tanh, slow = make(20, activation="Tanh"), make(21, lr=0.01)
    save(tanh, "tanh.ckpt")
    save(slow, "slow.ckpt")
    with caplog.at_level(logging.INFO):
        assert close(run(EnsembleAverage(["tanh.ckpt", "slow.ckpt"], target="net")), explicit([tanh, slow]))
    assert "1 sets of weights for the target, 1 other modules" in caplog.text


def test_modules_in_memory_give_their_target_and_come_back_in_their_modes(trained):
    plain = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 3))
    lightning = make(20, width=8)
    before = [state(lightning), state(plain)]
    found = run(EnsembleAverage([lightning, plain], target="net"))
    assert same(before[0], state(lightning))
    assert same(before[1], state(plain))
    assert lightning.training
    with torch.no_grad():
        expected = (explicit([lightning]) + plain.eval()(data().tensors[0]).softmax(1)) / 2
    assert close(found, expected)
    with pytest.raises(ValueError, match="`target` must name a submodule of ToyModule, got 'body'"):
        run(EnsembleAverage([ToyModule()], target="body"), named(make(0)))


def named(module):
    module.body = module.net
    return module


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("average", ["probabilities", "logits", "votes"])
def test_three_members_times_flips_are_the_same_in_both_orders(trained, order, average):
    ensemble = EnsembleAverage("members/*.ckpt", target="net", average=average)
    callbacks = [ensemble, TestTimeAugmentation("flip", target="net", average=average)][::order]
    batches = DataLoader(data(40), 8)
    module = make(0)
    before = state(module)
    found = run(callbacks, module, batches=batches)
    assert same(before, state(module))
    x = data(40).tensors[0]
    with torch.no_grad():
        passes = torch.stack([each.eval().net(view).log_softmax(1) for each in trained for view in (x, x.flip(-1))])
    if average == "votes":
        expected = nn.functional.one_hot(passes.argmax(2), 3).float().mean(0)
    else:
        expected = passes.mean(0).softmax(1) if average == "logits" else passes.exp().mean(0)
    assert close(found, expected)
    assert ensemble.passes_per_sample == 6


def test_an_early_exit_keeps_every_argmax(trained):
    sharp = [make(seed) for seed in range(9, 16)]
    for module in sharp:
        module.net[5].weight.data.mul_(20)
        module.net[5].bias.data[0] += 25
    callback = EnsembleAverage(sharp, target="net", early_exit=True)
    found = run(callback)
    assert torch.equal(found.argmax(1), explicit(sharp).argmax(1))
    assert callback.passes_per_sample < 7


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(trained, precision):
    another = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    dtype = another[1].weight.dtype
    module = make(0)
    found = run(
        EnsembleAverage(["members/9.ckpt", "members/10.ckpt", another], target="net"), module, precision=precision
    )
    assert another[1].weight.dtype == dtype
    kind = torch.bfloat16 if "bf16" in precision else torch.float64
    x = data().tensors[0]
    members = [copy.deepcopy(each.eval().net) for each in trained[:2]] + [another.eval()]
    if precision.endswith("true"):
        members, x = [copy.deepcopy(each).to(kind) for each in members], x.to(kind)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        parts = [x[:8], x[8:16], x[16:]]
        expected = torch.stack([torch.cat([net(part).float().softmax(1) for part in parts]) for net in members]).mean(0)
    assert close(found, expected)


@pytest.mark.parametrize("whole", [False, True])
def test_a_compiled_module_stays_compiled(trained, whole):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    module = make(0)
    if whole:
        module = torch.compile(module, backend=backend)
    else:
        module.net.compile(backend=backend)
    found = run(EnsembleAverage("members/*.ckpt", target="net"), module, batches=DataLoader(data(24), 8))
    assert close(found, explicit(trained, data(24).tensors[0]))
    assert graphs


@pytest.mark.parametrize("crash", ["step", "net"])
def test_a_step_that_raises_leaves_all_as_found(trained, crash):
    module, another = make(0), make(20, width=8)
    if crash == "step":
        module.crash = True
    else:
        module.net[0].register_forward_pre_hook(lambda *_: 1 / 0)
    for each in module.modules():
        each.training = False  # Lightning itself leaves the modes in eval
    before = [state(module), state(another)]
    callback = EnsembleAverage(["members/9.ckpt", another], target="net")
    with pytest.raises(ArithmeticError):
        run(callback, module)
    assert same(before[0], state(module))
    assert same(before[1], state(another))


def test_layers_that_are_made_late_and_weights_of_the_module_that_is_tested(trained):
    class Late(Spy):
        def __init__(self):
            super().__init__()
            self.net = None

        def configure_model(self):
            if self.net is None:
                self.net = make(0).net

    assert close(run(EnsembleAverage("members/*.ckpt", target="net"), Late()), explicit(trained))
    content = {"state_dict": trained[0].state_dict(), "pytorch-lightning_version": L.__version__}
    torch.save(content, "tested.ckpt")
    module = make(0)
    module.seen.clear()
    toy_trainer(
        EnsembleAverage([str(path) for path in sorted(pathlib.Path("members").glob("1*.ckpt"))], target="net")
    ).test(module, loader(), ckpt_path="tested.ckpt", verbose=False)
    assert close(torch.cat(module.seen).exp(), explicit(trained[1:]))


def test_a_module_that_saves_only_a_part_of_itself(trained):
    class Partial(Spy):
        strict_loading = False

    for path, module in zip(("a.ckpt", "b.ckpt"), trained, strict=False):
        torch.save({"state_dict": {"net.5.weight": module.net[5].weight.data}}, path)
    torch.manual_seed(0)
    tested = Partial()
    members = [copy.deepcopy(tested) for _ in range(2)]
    for member, module in zip(members, trained, strict=False):
        member.net[5].weight = module.net[5].weight
    assert close(run(EnsembleAverage(["a.ckpt", "b.ckpt"], target="net"), tested), explicit(members))


def test_nothing_in_a_fit_and_no_files_are_needed(trained):
    class Fitted(ToyModule):
        def validation_step(self, batch, batch_idx):
            assert "forward" not in vars(self)
            super().validation_step(batch, batch_idx)

    toy_trainer(EnsembleAverage("nowhere/*.ckpt"), max_epochs=1).fit(Fitted(), *toy_loaders())
    with pytest.raises(FileNotFoundError, match=r"`members` must match a checkpoint, got nowhere"):
        toy_trainer(EnsembleAverage("nowhere/*.ckpt", stages=["validate"])).fit(ToyModule(), *toy_loaders())


def test_what_is_not_found_is_an_error_that_says_what_is_there(trained):
    cases = {
        "membres/*.ckpt": r"`members` must match a checkpoint, got membres/\*.ckpt. In .* there is: members",
        "members/*.pth": r"got members/\*.pth. In .*members there is: 10.ckpt, 11.ckpt, 9.ckpt",
        "members/12.ckpt": r"got members/12.ckpt. In .*members there is",
        "members": r"must be a folder with a best.json.*For all checkpoints in it give members/\*.ckpt",
    }
    for members, text in cases.items():
        with pytest.raises(FileNotFoundError, match=text):
            run(EnsembleAverage(members, target="net"))
    content = {"best": "9.ckpt", "top_k": [{"path": "9.ckpt"}, {"path": "8.ckpt"}]}
    pathlib.Path("members/best.json").write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r"members/8.ckpt`, which best.json names, must exist. In .* there is"):
        run(EnsembleAverage("members", target="net"))


def test_bad_files_are_errors_before_the_test(trained):
    content = pathlib.Path("members/9.ckpt").read_bytes()
    pathlib.Path("cut.ckpt").write_bytes(content[: len(content) // 2])
    torch.save({"state_dict": trained[0].state_dict(), "extra": RunsCode()}, "unsafe.ckpt")
    torch.save({"epoch": 3}, "empty.ckpt")
    torch.save([1, 2], "list.ckpt")
    pathlib.Path("copy.ckpt").write_bytes(content)
    cases = {
        "cut.ckpt": "cut.ckpt` must be .*truncated",
        "unsafe.ckpt": "would run code",
        "empty.ckpt": "must hold the weights of a model, alone or under `state_dict`, got none",
        "list.ckpt": "must hold the weights of a model",
        "members/9.ckpt": "got members/9.ckpt and members/9.ckpt, which are one file",
        "copy.ckpt": r"got the same weights from members/9.ckpt and copy.ckpt. Is one a copy, as `last.ckpt`",
    }
    for name, text in cases.items():
        module = make(0)
        with pytest.raises(ValueError, match=text):
            run(EnsembleAverage(["members/9.ckpt", name], target="net"), module)
        assert module.seen == []
    assert not pathlib.Path("was_run").exists()
    with pytest.raises(ValueError, match="`members` must differ, got a Spy twice"):
        run(EnsembleAverage([trained[0], trained[0]], target="net"))


def test_members_that_fit_nowhere_are_errors_that_say_why(trained):
    save(make(20, num_classes=5), "classes.ckpt")
    with pytest.raises(ValueError, match=r"must have the same classes, got 5 in classes.ckpt and 3 in the tested"):
        run(EnsembleAverage(["classes.ckpt"], target="net"))
    save(make(20, width=8), "bare.ckpt", hyper_parameters=None)
    text = (
        r"must be of the architecture of Spy.net, or be built by Spy with the hyperparameters that they hold, got "
        r"bare.ckpt: 0.weight is \(8, 1, 3, 3\) and not \(4, 1, 3, 3\), .*; it holds no hyperparameters. Pass the built"
    )
    with pytest.raises(ValueError, match=text):
        run(EnsembleAverage("bare.ckpt", target="net"))
    save(make(20, width=8), "odd.ckpt", hyper_parameters={"activation": "Swoosh"})
    with pytest.raises(ValueError, match=r"Spy can't be built with its hyperparameters \(AttributeError: .*Swoosh"):
        run(EnsembleAverage("odd.ckpt", target="net"))
    save(ToyModule(), "toy.ckpt")
    with pytest.raises(ValueError, match=r"5.weight is \(2, 16\) and not \(3, 16\).*size mismatch for net.5.weight"):
        run(EnsembleAverage("toy.ckpt", target="net"))
    with pytest.raises(ValueError, match=r"`members` must have the same classes, got 2 from member 1 \(ToyModule\)"):
        run(EnsembleAverage([trained[0], ToyModule()], target="net"))


@pytest.mark.filterwarnings("ignore:Attribute 'body' is an instance of `nn.Module`")  # of the toy's own hyperparameters
def test_what_can_not_be_built_but_fits_is_taken_for_weights(trained):
    class Given(Spy):
        def __init__(self, body, lr):
            super().__init__()
            self.hparams.clear()
            self.save_hyperparameters(ignore=["body"])
            self.net = body

    modules = [Given(each.net, lr) for lr, each in enumerate(trained)]
    paths = [str(save(each, f"{k}.ckpt")) for k, each in enumerate(modules)]
    assert close(run(EnsembleAverage(paths, target="net"), Given(make(0).net, 7)), explicit(trained))


def test_wrong_arguments(trained):
    for arguments, text in (
        ({"weights": "best"}, "`weights` must be 'uniform', 'greedy' or numbers, got 'best'"),
        ({"weights": [0.5, 0.6]}, "`weights` must be .* sum to 1"),
        ({"weights": [1.5, -0.5]}, "`weights` must be positive"),
        ({"members": []}, "`members` must name at least one member"),
        ({"members": ""}, "`members` must name at least one member"),
        ({"early_exit": True, "average": "logits"}, "`early_exit` must be False"),
        ({"stages": "fit"}, "`stages` must be some of"),
    ):
        with pytest.raises(ValueError, match=text):
            EnsembleAverage(**{"members": "members/*.ckpt"} | arguments)
    with pytest.raises(TypeError, match="must be names of checkpoints or modules, got dict"):
        EnsembleAverage([{}])
    with pytest.raises(ValueError, match=r"`weights` must be 3 numbers, .* got 2"):
        run(EnsembleAverage("members/*.ckpt", target="net", weights=[0.5, 0.5]))
    for name in ("wandb:model:v0", "wandb:a/b/model", "wandb:a//model:v0"):
        with pytest.raises(ValueError, match="must name an artifact as wandb:ENTITY/PROJECT/NAME:VERSION, got"):
            run(EnsembleAverage(name, target="net"))


def test_it_pickles_and_runs_again(trained):
    callback = EnsembleAverage("members/*.ckpt", target="net")
    first = run(callback)
    assert torch.equal(run(pickle.loads(pickle.dumps(callback))), first)
    assert torch.equal(run(copy.deepcopy(callback), stage="predict"), first)
    assert torch.equal(run(callback), first)


@pytest.mark.parametrize("options", [{}, {"vectorize": True}, {"offload": True}])
def test_three_tests_over_batches_of_changing_sizes_are_equal_to_the_last_bit(trained, options):
    x, y = data().tensors
    batches = DataLoader([[x[:8], y[:8]], [x[:3], y[:3]], [x[3:21], y[3:21]], [x[:8], y[:8]]], batch_size=None)
    callback, module = EnsembleAverage("members/*.ckpt", target="net", **options), make(0)
    before = state(module)
    runs = [run(callback, module, batches=batches) for _ in range(3)]
    assert all(torch.equal(each, runs[0]) for each in runs)
    assert torch.equal(runs[0][:8], runs[0][-8:])
    assert close(runs[0][:3], explicit(trained, x[:3]))
    assert same(before, state(module))


def test_modules_in_memory_run_as_one_forward_or_in_turn_and_come_back(trained):
    expected = explicit(trained)
    for options in ({"vectorize": True}, {"offload": True}):
        before = [state(each.train()) for each in trained]
        found = run(EnsembleAverage(trained, target="net", **options), precision="64-true")
        assert close(found, expected)
        assert all(same(one, state(each)) for one, each in zip(before, trained, strict=True))


def test_one_forward_is_refused_where_members_must_run_one_by_one(trained):
    for options, text in (
        ({"early_exit": True}, "early_exit"),
        ({"max_batch": 4}, "max_batch"),
        ({"offload": True}, "offload"),
    ):
        with pytest.raises(ValueError, match=f"`vectorize` must be False beside {text}, got True"):
            EnsembleAverage("members/*.ckpt", vectorize=True, **options)
    ensemble = EnsembleAverage("members/*.ckpt", target="net", vectorize=True)
    for other, text in (
        (TestTimeAugmentation("flip", target="net", early_exit=True), "early_exit"),
        (TestTimeAugmentation("flip", target="net", max_batch=4), "max_batch"),
        (MonteCarloDropout(2, target="net"), "random masks"),
    ):
        for callbacks in ([ensemble, other], [other, ensemble]):
            module = make(0)
            with pytest.raises(ValueError, match=f"`vectorize` must be False beside {text}, got True"):
                run(callbacks, module)
            assert module.seen == []
            assert "forward" not in vars(module.net)
    views = TestTimeAugmentation("flip", target="net")
    x = data().tensors[0]
    assert close(run([views, ensemble]), (explicit(trained) + explicit(trained, x.flip(-1))) / 2)


def test_greedy_weights_are_chosen_in_a_loop_and_used_in_one_forward():
    members = good_and_bad()
    loop, together = (EnsembleAverage(members, target="net", weights="greedy", vectorize=v) for v in (False, True))
    for callback in (loop, together):
        run(callback, stage="validate")
    assert loop.selected_weights == together.selected_weights
    assert close(run(together), run(loop))


# Greedy weights


def good_and_bad():
    """A member that knows every label by heart, in two halves, and one that knows nothing."""
    nets = []
    x, y = data().tensors
    for half in (0, 1):
        module = make(half)
        rows = torch.arange(len(y)) % 2 == half
        solution = torch.linalg.lstsq(features(module, x[rows]), 9 * nn.functional.one_hot(y[rows], 3).float()).solution
        with torch.no_grad():
            module.net[5].weight.copy_(solution.T)
            module.net[5].bias.zero_()
        nets.append(module)
    return [*nets, make(2)]


def features(module, x):
    with torch.no_grad():
        return module.eval().net[:5](x)


def test_greedy_weights_are_chosen_in_validation_and_used_in_the_test(caplog):
    members, y = good_and_bad(), data().tensors[1]
    members[2].net[5].bias.data += torch.tensor([30.0, 0.0, 0.0])
    callback = EnsembleAverage(members, target="net", weights="greedy")
    with pytest.raises(ValueError, match=r"Run `trainer.validate` with this callback before `trainer.test`"):
        run(callback)
    with caplog.at_level(logging.INFO):
        assert close(run(callback, stage="validate"), explicit(members))  # its scores are those of the equal average
    weights = callback.selected_weights
    assert sum(weights) == pytest.approx(1)
    assert weights[2] == 0
    assert f"{weights[0]:.3f}  member 0 (Spy)" in caplog.text
    target = torch.arange(len(y))

    def loss(probabilities):
        return -probabilities[target, y].log().mean()

    chosen = explicit(members[:2], weights=weights[:2])
    assert loss(chosen) <= min(loss(explicit([member])) for member in members)
    hook = members[2].net[0].register_forward_pre_hook(lambda *_: 1 / 0)  # is not run any more
    assert close(run(callback), chosen)
    hook.remove()  # a lambda does not pickle
    assert close(run(pickle.loads(pickle.dumps(callback)), stage="predict"), chosen)
    assert callback.weights == "greedy"


def test_greedy_weights_with_parts_of_batches_and_targets_anywhere():
    members, (x, y) = good_and_bad(), data().tensors
    expected = EnsembleAverage(members, target="net", weights="greedy")
    run(expected, stage="validate")

    class Nested(Spy):
        def step(self, batch):
            return super().step([batch["x"]["image"], batch["y"][0]])

        def validation_step(self, batch, batch_idx):
            self.step(batch)

    batches = [{"x": {"image": x[i : i + 7]}, "y": [y[i : i + 7].int(), {"w": torch.rand(7)}]} for i in (0, 7, 14)]
    callback = EnsembleAverage(members, target="net", weights="greedy", max_batch=3, early_exit=True)
    torch.manual_seed(0)
    run(callback, Nested(), "validate", DataLoader(batches, batch_size=None))
    assert callback.selected_weights == expected.selected_weights


def test_greedy_weights_need_targets_that_can_be_told():
    x, y = data(8).tensors
    for batch, text in (
        ([x, y, torch.arange(8)], "got 2 in"),
        ([x, y.float()], "got 0 in"),
        ([x, y[:4]], r" of 8 integers, .* got 0 in: \(8, 1, 4, 4\) of torch.float32, \(4,\) of torch.int64"),
    ):

        class Unlogged(Spy):
            def validation_step(self, batch, batch_idx):
                self.step(batch)

        module = Unlogged()
        before = state(module)
        with pytest.raises(ValueError, match=r"must find the targets as the batch's only tensor.*" + text):
            run(
                EnsembleAverage(good_and_bad(), target="net", weights="greedy"),
                module,
                "validate",
                DataLoader([batch], batch_size=None),
            )
        assert before["patches"] == state(module)["patches"]


def test_greedy_weights_are_refused_beside_other_passes_and_left_alone_in_a_fit(trained):
    callback = EnsembleAverage("members/*.ckpt", target="net", weights="greedy")
    views = TestTimeAugmentation("flip", target="net", stages=["validate", "test"])
    with pytest.raises(ValueError, match=r"without other passes, got views on the same target"):
        run([callback, views], stage="validate")
    fitted = EnsembleAverage("nowhere", target="net", weights="greedy", stages=["validate", "test"])
    toy_trainer(fitted, max_epochs=1).fit(ToyModule(), *toy_loaders())
    assert fitted.selected_weights is None
    run(callback, stage="validate")
    found = run([TestTimeAugmentation("flip", target="net"), callback])
    x = data().tensors[0]
    weights = callback.selected_weights
    assert close(found, (explicit(trained, x, weights) + explicit(trained, x.flip(-1), weights)) / 2)


@pytest.mark.parametrize("masks_first", [True, False])
def test_greedy_weights_are_refused_around_masks(trained, masks_first):
    masks = MonteCarloDropout(2, target="net.4", stages="validate")
    callbacks = [masks, EnsembleAverage("members/*.ckpt", target="net", weights="greedy")]
    with pytest.raises(ValueError, match=r"same for MonteCarloDropout and members, got 'net\.4'"):
        run(callbacks[:: 1 if masks_first else -1], stage="validate")


def test_greedy_weights_of_two_ranks_are_those_of_one(tmp_path):
    process.run_ranks(pathlib.Path(__file__).with_name("greedy_ranks.py"), tmp_path, folder=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    callback = EnsembleAverage(good_and_bad(), target="net", weights="greedy")
    run(callback, stage="validate")
    assert found == [callback.selected_weights] * 2


# W&B


@pytest.fixture
def own_account(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # with no login of the user's
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()
    yield
    wandb.teardown()


def test_an_artifact_is_downloaded_by_the_real_client(trained, own_account, monkeypatch):
    files = {}
    for name, module in zip(("model-9.ckpt", "model-10.ckpt"), trained, strict=False):
        file = io.BytesIO()
        torch.save({"state_dict": module.state_dict()}, file)
        files[name] = file.getvalue()
    with serving(files | {"notes.txt": b"text"}) as (url, asked):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        found = run(EnsembleAverage(["wandb:entity/project/model:v0", "members/11.ckpt"], target="net"))
        assert close(found, explicit(trained))
        assert "GetArtifactMembershipFileUrls" in asked
        with pytest.raises(
            ConnectionError, match=r"got wandb:entity/project/model:v1, which W&B did not give .*not found"
        ):
            run(EnsembleAverage("wandb:entity/project/model:v1", target="net"))
    with serving({"notes.txt": b"text"}) as (url, _):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        wandb.teardown()
        with pytest.raises(FileNotFoundError, match=r"must hold checkpoints .* with: notes.txt"):
            run(EnsembleAverage("wandb:entity/project/model:v0", target="net"))


def test_an_artifact_without_a_login_is_an_error_that_says_so(own_account):
    module = make(0)
    with pytest.raises(ConnectionError, match=r"No API key configured.* Log in by `wandb login`"):
        run(EnsembleAverage("wandb:entity/project/model:v0", target="net"), module)
    assert module.seen == []


def test_a_list_of_modules_may_be_one_of_torch(trained):
    found = run(EnsembleAverage(nn.ModuleList([each.net for each in trained]), target="net"))
    assert close(found, explicit(trained))
