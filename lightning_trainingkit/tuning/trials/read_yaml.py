"""Read a YAML file as its writer means it: ``1e-4`` is a number."""

import re
from pathlib import Path
from typing import Any

__all__ = ["read_yaml"]

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file. YAML 1.1, which PyYAML reads, takes ``1e-4`` for a text; YAML 1.2 takes it for a number.

    Raises:
        ImportError: If PyYAML is not installed.
        ValueError: If the file is no YAML.
    """
    try:
        import yaml
    except ImportError as error:
        raise ImportError("A space in YAML needs PyYAML. Run: pip install 'lightning-trainingkit[tuning]'.") from error

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Knows numbers without a point. A text in quotation marks stays a text."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
    try:
        return yaml.load(Path(path).read_text(), Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"`{path}` must be a YAML file, got {' '.join(str(error).split())}. Mend the line.") from error
