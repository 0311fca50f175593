from lightning_trainingkit.dashboards.checks import checks_of, without_checks
from lightning_trainingkit.dashboards.page.page_data import page_data
from lightning_trainingkit.dashboards.panels import command_center
from tests.dashboards.made import grid, run

HEALTH = "fail. dead_units in net.1: All units are zero. Use LeakyReLU."


def test_verdicts_of_the_config_stand_beside_the_run_and_are_no_settings():
    runs = grid()[:3]
    for n, each in enumerate(runs):
        each.config |= {"check.health": HEALTH if n else "pass. Nothing wrong.", "check.val_every": n}
        each.config |= {"check.learning_rate": f"pass. {n}", "check.learning_rate.AdamW/pg1": n / 10}
    data = page_data(runs, command_center())
    assert data["settings"] == ["check.val_every", "lr", "optimizer", "weight_decay"]  # one is the user's own
    assert not [name for name in data["shared"] if name.startswith("check")]
    assert [each["checks"]["health"] for each in data["runs"]] == ["pass. Nothing wrong.", HEALTH, HEALTH]
    assert list(data["checks"].values())[-2:] == ["learning rate", "health"]
    assert runs[0].config["check.health"] == "pass. Nothing wrong."  # the records are left as they were


def test_verdicts_of_a_search_stand_in_the_section_of_hyperparameters():
    runs = grid()[:3]
    runs[0].config |= {"search.search": "warn. The best of 8 trials.", "search.edges": "pass. Inside."}
    for n, each in enumerate(runs[1:]):
        each.config |= {"trial.study": "coarse", "trial.ticket": n, "trial.seed": 7 * n, "trial.pruned": bool(n)}
        each.config |= {"trainer.seed": 7 * n, "callbacks.EpochSeed.seed": 7 * n, "seed": n}
    data = page_data(runs, command_center())
    assert data["searches"] == {"search": "search", "edges": "edge of the space"}
    assert data["runs"][0]["searches"]["edges"] == "pass. Inside."
    (section,) = [each for each in data["sections"] if each["title"] == "Hyperparameters"]
    assert section["panels"][0]["kind"] == "searches"
    # The number of a trial and the seed that is drawn for it are no settings. A hyperparameter `seed` is one.
    assert sorted(data["hyperparameters"]) == ["lr", "optimizer", "seed", "weight_decay"]
    assert "searches" not in [
        panel["kind"] for each in page_data(grid(), command_center())["sections"] for panel in each["panels"]
    ]


def test_the_record_of_a_search_is_no_run_and_the_newest_comes_last():
    runs = [run(n, config={"lr": 0.01 * n, "trial.study": "coarse"}) for n in (1, 2)]
    for started, name in enumerate(("refine", "coarse"), start=1):
        config = {"search.search": f"warn. The best of {name}. token=hunter2hunter2"}
        runs.append(run(9 + started, name=name, curves={}, summary={}, config=config, started=3.0 - started))
    data = page_data(runs, command_center())
    assert data["counted"] == "2 runs (2 finished)"
    assert len(data["runs"]) == 2
    assert data["trials"]
    assert [each["title"] for each in data["judged"]] == ["coarse", "refine"]
    assert data["searches"] == {"search": "search"}
    assert "hunter2" not in str(data["judged"])
    bare = page_data(grid(), command_center())
    assert (bare["trials"], bare["judged"]) == (False, [])


def test_a_run_without_checks_is_left_as_it_is():
    bare = run(1, curves={}, summary={})
    assert checks_of(bare) == {}
    assert without_checks(bare) is bare


def test_secrets_in_a_verdict_are_hidden():
    (found,) = page_data([run(1, config={"check.health": "fail. token=hunter2hunter2"})], command_center())["runs"]
    assert "hunter2" not in found["checks"]["health"]
