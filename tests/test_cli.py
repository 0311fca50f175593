from lightning_trainingkit.cli import main
from tests.toy import ToyModule, toy_loaders, toy_trainer


def test_dashboard_writes_the_page_of_a_folder(tmp_path, capsys):
    from lightning.pytorch.loggers import CSVLogger

    toy_trainer(logger=CSVLogger(tmp_path, name="toys")).fit(ToyModule(), *toy_loaders())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.csv").write_text("")
    assert main(["dashboard", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert f"{tmp_path / 'dashboard.html'}: 1 runs" in said.out
    assert "broken/metrics.csv: it is empty." in said.err
    page = (tmp_path / "dashboard.html").read_text(encoding="utf-8")
    assert "toys/version_0" in page
    assert main(["dashboard", str(tmp_path), "--output", str(tmp_path / "other" / "page.html")]) == 0
    assert (tmp_path / "other" / "page.html").is_file()
    capsys.readouterr()
    assert main(["dashboard", str(tmp_path), "--better", "max"]) == 0
    assert "--better max is taken, although the name val/loss says the opposite" in capsys.readouterr().err


def test_what_is_wrong_is_said_in_a_line(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    for arguments, words in (
        (["dashboard"], "`DIR` must be a folder with runs, got none"),
        (["dashboard", str(tmp_path / "none")], "which does not exist"),
        (["dashboard", "--online", "a/b"], "`--output` must be given"),
        (["dashboard", str(tmp_path), "--output", str(tmp_path)], "The page must be a file, got the folder"),
        (["dashboard", str(tmp_path), "--port", "99999"], "`--port` must be from 0 to 65535"),
        (["dashboard", str(tmp_path), "--target", "width"], "`--better` must be min or max"),
        (["dashboard", str(tmp_path / "file")], "which is a file"),
        (["dashboard", str(tmp_path), "--online", "a"], "`--online` must be ENTITY/PROJECT, got 'a'"),
    ):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_a_link_in_the_place_of_the_page_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "runs" / "version_0").mkdir(parents=True)
    (tmp_path / "runs" / "version_0" / "metrics.csv").write_text("epoch,step,val/loss\n0,0,0.5\n1,9,0.4\n")
    (tmp_path / "thesis.txt").write_text("precious")
    page = tmp_path / "runs" / "dashboard.html"
    page.symlink_to(tmp_path / "thesis.txt")
    assert main(["dashboard", str(tmp_path / "runs")]) == 0
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    assert not page.is_symlink()
    assert "version_0" in page.read_text(encoding="utf-8")


def test_the_target_is_found_by_its_words_or_named_with_what_there_is(tmp_path, capsys):
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / "metrics.csv").write_text("epoch,step,val_loss_epoch,val_f1\n0,0,0.5,0.1\n1,9,0.4,0.2\n")
    page = tmp_path / "dashboard.html"
    for arguments, said in (
        ((), '"target":"val_loss_epoch","better":"min"'),
        (("--target", "val_loss"), '"target":"val_loss","better":"min"'),
        (("--target", "val_f1"), '"target":"val_f1","better":"max"'),
    ):
        assert main(["dashboard", str(tmp_path), *arguments]) == 0
        assert said in page.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["dashboard", str(tmp_path), "--target", "val_acc"]) == 1
    assert capsys.readouterr().err == (
        "trainingkit dashboard: `--target` must be a metric that a run has, got 'val_acc'. "
        "The runs have: val_f1, val_loss_epoch.\n"
    )
    assert main(["dashboard", str(tmp_path), "--better", "max"]) == 0
    assert "although the name val_loss_epoch says the opposite" in capsys.readouterr().err
