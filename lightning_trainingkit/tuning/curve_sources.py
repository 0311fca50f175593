"""Find the runs in a file or a folder."""

from pathlib import Path

from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.dashboards.read.read_run import read_run
from lightning_trainingkit.dashboards.read.record import Record
from lightning_trainingkit.dashboards.read.run_files import RunFiles

__all__ = ["find_records"]

_FILES = "a CSV file with a column `step`, a .wandb file, or a folder of CSVLogger, W&B or TensorBoard"


def find_records(source: Path) -> tuple[list[Record], bool]:
    """Read the run of a file or of a folder, or all runs in the folders below.

    Args:
        source: A file of one run, the folder of one run, or a folder of many.

    Returns:
        The runs, the newest last, and whether they are a list: whether ``source`` holds runs in folders below it.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ValueError: If there is no run.
    """
    if not source.exists():
        raise FileNotFoundError(f"`source` must exist, got {source}. Pass the folder of a logger, say.")
    if source.is_file():
        found = read_run(RunFiles((source,)))
        records, skipped = found.records, {str(path): why for path, why in found.unread.items()}
        own = records
    else:
        records, skipped = gather([source])
        own = [record for record in records if Path(record.source).parent.resolve() == source.resolve()]
    if not records:
        why = "; ".join(f"{Path(path).name}: {reason.rstrip('.')}" for path, reason in list(skipped.items())[:3])
        raise ValueError(f"`source` must hold a run, got {source}{f' ({why})' if why else ''}. Pass {_FILES}.")
    return (own, False) if len(own) == 1 else (records, True)
