"""Find the runs in a file or a folder."""

from pathlib import Path

from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.dashboards.read.record import Record

__all__ = ["find_records"]


def find_records(source: Path) -> tuple[list[Record], bool]:
    """Read the run of a file or of a folder, or all runs in the folders below.

    Args:
        source: A file of one run, the folder of one run, or a folder of many.

    Returns:
        The runs, the newest last, and whether ``source`` holds runs in folders below it.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ValueError: If there is no run.
    """
    if not source.exists():
        raise FileNotFoundError(f"`source` must exist, got {source}. Pass the folder of a logger, say.")
    folder = source.parent if source.is_file() else source
    records, skipped = gather([folder])
    own = [record for record in records if Path(record.source).parent.resolve() == folder.resolve()]
    if source.is_file():
        own = [record for record in own if Path(record.source).name == source.name]
        records = own
    if not records:
        why = "; ".join(f"{Path(path).name}: {reason}" for path, reason in list(skipped.items())[:3])
        raise ValueError(
            f"`source` must hold a run, got {source}{f' ({why})' if why else ''}. "
            "Pass a metrics.csv, or a folder of CSVLogger, W&B or TensorBoard."
        )
    return (own, False) if len(own) == 1 else (records, True)
