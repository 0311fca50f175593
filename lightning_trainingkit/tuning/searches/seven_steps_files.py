"""The files that the seven steps end with."""

from dataclasses import replace

from lightning_trainingkit._files import write_bytes
from lightning_trainingkit._lightning import rank_zero_info
from lightning_trainingkit.dashboards.local import write_center
from lightning_trainingkit.tuning.searches.cli_config import left_out, write_config
from lightning_trainingkit.tuning.searches.search_picture import save_picture
from lightning_trainingkit.tuning.searches.search_result import LONGER
from lightning_trainingkit.tuning.searches.seven_steps import SevenSteps

__all__ = ["write_files"]


def write_files(found: SevenSteps, monitor: str, mode: str, seed: int, recorded: bool) -> SevenSteps:
    """Write ``best.yaml``, ``search.png``, ``dashboard.html`` and ``report.md``, as far as each can be written.

    Returns:
        The answer with the command, and with a note for each file that could not be written.
    """
    folder, notes, command = found.folder, list(found.notes), ""
    if found.best:
        last = found.searches[-1]
        path = folder / "best.yaml"
        try:
            command = write_config(
                path,
                last.settings.get("sections", {}),
                found.best,
                epochs=LONGER * int(last.settings["epochs"]),
                monitor=monitor,
                mode=mode,
                seed=seed,
                trainer_options=last.settings.get("trainer_options", {}),
            )
            notes += [each for each in [left_out(last.settings)] if each]
        except (ImportError, ValueError) as error:
            notes.append(f"best.yaml was not written: {error}")
        try:
            save_picture(found.searches, folder / "search.png")
        except ImportError as error:
            notes.append(f"search.png was not written: {error}")
        if recorded:
            try:
                write_center(folder / "dashboard.html", [folder], target=monitor, better=mode)
            except (ImportError, ValueError, OSError) as error:
                notes.append(f"dashboard.html was not written: {error}")
    found = replace(found, notes=tuple(notes), command=command)
    write_bytes(folder / "report.md", found.report.encode())
    rank_zero_info(f"Files: {folder / 'report.md'}")
    return found
