"""The three recipes that average at test time, as a user runs them: each trains and tests what it says."""

import json

import pytest

QUICK = ("--accelerator", "cpu")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory, run_recipe):
    folder = tmp_path_factory.mktemp("ensemble")
    run = run_recipe("ensemble.py", "--members", "2", "--epochs", "3", *QUICK, folder=folder)
    return folder, run.stdout, json.loads((folder / "runs/ensemble/results.json").read_text())


def test_the_callback_in_the_trainer_scores_what_the_average_of_all_members_scores(ensemble):
    _, out, found = ensemble
    assert [row["members"] for row in found["rows"]] == [1, 2]
    assert found["metrics"]["test/acc"] == pytest.approx(found["rows"][-1]["test/acc"])
    assert found["metrics"]["test/loss"] == pytest.approx(found["rows"][-1]["test/loss"], rel=1e-5)
    for row in found["rows"]:
        assert f"{row['test/acc']:.4g}" in out
        assert f"{row['acc gain']:+.4f} +-" in out
    alone = [each["test/acc"] for each in found["metrics"]["members"]]
    assert found["rows"][0]["test/acc"] == pytest.approx(sum(alone) / 2)
    assert found["rows"][0]["acc gain"] == 0


def test_the_runs_of_an_experiment_are_a_group(ensemble, grouped):
    folder, out, _ = ensemble
    names = {"train": ["seed=0", "seed=1"], "ensemble": ["members=1", "members=2"]}
    assert grouped(folder / "runs/ensemble", out) == names


def test_members_that_are_there_are_not_trained_again_and_missing_ones_are(ensemble, run_recipe, refused):
    folder, _, before = ensemble
    members = folder / "runs/ensemble/members"
    stamps = {path: path.stat().st_mtime_ns for path in members.glob("seed-*/*.ckpt")}
    run_recipe("ensemble.py", "--members", "3", "--epochs", "3", "--resume", *QUICK, folder=folder)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert (members / "seed-2/best.json").exists()
    after = json.loads((folder / "runs/ensemble/results.json").read_text())
    assert after["metrics"]["members"][:2] == before["metrics"]["members"]
    assert "the present options" in refused("ensemble.py", "--epochs", "4", "--resume", *QUICK, folder=folder)


def test_views_of_a_members_test_images(ensemble, run_recipe, grouped):
    folder, _, _ = ensemble
    views = ("--views", "shifts(1)", "--views", '["shifts(1)", "flip"]')
    run = run_recipe("test_time_augmentation.py", *views, *QUICK, folder=folder)
    results = json.loads((folder / "runs/test_time_augmentation/results.json").read_text())
    names = {"eval": ["one"], "tta": ["shifts(1)", "shifts(1) x flip"]}
    assert grouped(folder / "runs/test_time_augmentation", run.stdout) == names
    assert [(row["views"], row["passes"]) for row in results["rows"]] == [
        ("one", 1),
        ("shifts(1)", 5),
        ("shifts(1) x flip", 10),
    ]
    member = json.loads((folder / results["config"]["checkpoint"]).with_name("results.json").read_text())
    # the split of the training, so the score of the training
    assert results["metrics"]["test/acc"] == pytest.approx(member["metrics"]["test/acc"])
    for row in results["rows"][1:]:
        assert row["exit differs"] == 0
        assert 1 <= row["exit passes"] <= row["passes"]
        assert f"{row['test/acc']:.4g}" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--views", "flap"), "flap"),
        (("--checkpoint", "nowhere"), "nowhere"),
        (("--module", "no.Such"), "no.Such"),
        (("--module", "os.path.join"), "must be a LightningModule"),
        (("--target", "nope"), "--target must name a submodule, got nope. There are: model, model.stem"),
        (("--data", "fashion-mnist"), "what the checkpoint was trained on"),
    ],
)
def test_bad_input_is_one_line(ensemble, refused, arguments, said):
    folder, _, _ = ensemble
    assert said in refused("test_time_augmentation.py", *arguments, *QUICK, folder=folder).splitlines()[-1]


def test_the_lectures_claim_in_small(tmp_path, run_recipe, grouped):
    small = ("--data", "digits", "--members", "2", "--size", "2", "--groups", "5", "--epochs", "2", "--images", "64")
    run = run_recipe("reproduce/ensembles_and_tta.py", *small, *QUICK, folder=tmp_path)
    folder = tmp_path / "runs/ensembles_and_tta"
    found = json.loads((folder / "results.json").read_text())
    methods = ["one view", "shifts(1)", "ensemble of 2", "ensemble of 2 x shifts(1)"]
    assert [row["method"] for row in found["rows"]] == methods
    assert found["rows"][0]["acc gain"] == found["rows"][0]["acc +-"] == 0
    for row in found["rows"][1:]:
        assert row["acc gain"] == pytest.approx(row["test/acc"] - found["rows"][0]["test/acc"])
        assert f"digits, {row['method']}: accuracy" in run.stdout
    ensembles, views = found["figures"]
    assert (ensembles["figure"], views["figure"]) == (5, 8)
    for claim, row in ((ensembles, found["rows"][2]), (views, found["rows"][1])):
        assert f"digits, {row['method']} {100 * row['acc gain']:+.1f} +- {100 * row['acc +-']:.1f}" in claim["measured"]
    assert (views["verdict"] == "holds") == (found["rows"][1]["acc gain"] > found["rows"][1]["acc +-"])
    assert grouped(folder, run.stdout) == {
        "train": ["seed=0", "seed=1"],
        "eval": ["digits: one view"],
        "tta": ["digits: shifts(1)"],
        "ensemble": ["digits: ensemble of 2", "digits: ensemble of 2 x shifts(1)"],
    }
    assert (folder / "ensembles_and_tta.png").stat().st_size > 10_000
    again = run_recipe("reproduce/ensembles_and_tta.py", *small, "--resume", *QUICK, folder=tmp_path)
    assert "Epoch" not in again.stdout
    assert json.loads((folder / "results.json").read_text())["rows"] == found["rows"]


@pytest.mark.parametrize("name", ["ensemble.py", "test_time_augmentation.py", "reproduce/ensembles_and_tta.py"])
def test_help(name, tmp_path, run_recipe):
    assert f"python recipes/{name}" in run_recipe(name, "--help", folder=tmp_path).stdout
