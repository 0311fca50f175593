"""Read the folders that Lightning's CSVLogger writes."""

import csv
from pathlib import Path
from typing import Any

from lightning_trainingkit.dashboards.read.record import Record, UnreadableError, flatten
from lightning_trainingkit.dashboards.read.rows import Rows

__all__ = ["read_csv_file"]


def read_csv_file(path: Path) -> Record:
    """Read ``NAME/version_N/metrics.csv`` and the ``hparams.yaml`` beside it, neither of which says that it ended.

    Raises:
        UnreadableError: If it is empty, or no table with a column ``step``.
    """
    rows, count = Rows(), 0
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if "step" not in (reader.fieldnames or ["step"]):
                raise UnreadableError("it has no column `step`, as Lightning's CSVLogger writes it.")
            for row in reader:  # the last one may be cut off: it has no step then
                count += 1
                rows.add(_number(row["step"]), {name: _number(value) for name, value in row.items() if name})
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableError(f"it is no table: {error}.") from error
    if not count:
        raise UnreadableError("it is empty.")
    config, note = _config(path.with_name("hparams.yaml"))
    return Record(
        id=path.parent.name,
        name=f"{path.parent.parent.name}/{path.parent.name}",
        project=path.parent.parent.name,
        state="unknown",
        started=path.stat().st_mtime,
        config=config,
        curves=rows.curves(),
        source=str(path),
        note=note,
    )


def _config(path: Path) -> tuple[dict[str, Any], str]:
    import yaml  # Lightning needs it to write the file

    class Plain(yaml.SafeLoader):  # type: ignore[misc]
        """Reads tuples as lists, and of other objects of Python their names; no code is run."""

    Plain.add_multi_constructor("tag:yaml.org,2002:python/", _plain)
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Plain)
    except FileNotFoundError:
        return {}, ""
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        return {}, f"{path.name} could not be read ({reason}): settings are missing."
    return (flatten(found), "") if isinstance(found, dict) else ({}, "")


def _plain(loader: Any, tag: str, node: Any) -> Any:
    return loader.construct_sequence(node, deep=True) if tag == "tuple" else tag


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
