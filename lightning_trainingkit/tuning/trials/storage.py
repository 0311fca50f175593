"""Where a study is kept: in memory, in a journal file, or in a database. A database may restart."""

import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["import_optuna", "open_storage", "patient"]

T = TypeVar("T")
PATIENCE = 60.0  # seconds for a database to come back
_OPTUNA = 5  # the oldest version
_INSTALL = "Run: pip install 'lightning-trainingkit[tuning]'."
OPENING = 5.0  # seconds for a database to answer at first


def import_optuna() -> Any:
    """Return the package Optuna.

    Raises:
        ImportError: If it is not installed, or older than version 5.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"A search needs optuna. {_INSTALL}") from error
    if int(optuna.__version__.partition(".")[0]) < _OPTUNA:
        raise ImportError(f"A search needs optuna {_OPTUNA} or newer, got {optuna.__version__}. {_INSTALL}")
    return optuna


def open_storage(storage: str | Path | None) -> "BaseStorage":
    """Open a storage.

    Args:
        storage: None for memory, a file for a journal, or the URL of a database, such as
            ``postgresql://user@host/name`` or ``sqlite:///study.db``.

    Raises:
        ConnectionError: If the database does not answer.
        ImportError: If the driver of the database is not installed.
        OSError: If the folder of the journal cannot be made.
    """
    optuna = import_optuna()
    if storage is None:
        memory: BaseStorage = optuna.storages.InMemoryStorage()
        return memory
    if "://" not in str(storage):
        from lightning_trainingkit.tuning.trials.journal import open_journal

        return open_journal(Path(storage))
    return _open_database(str(storage))


def _open_database(url: str) -> "BaseStorage":
    optuna = import_optuna()
    scheme, _, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):
        url = f"postgresql+psycopg://{rest}"
    hidden = _without_password(url)
    end = time.monotonic() + OPENING
    while True:
        try:
            database = optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except ImportError as error:
            extra = "lightning-trainingkit[postgres]" if "postgres" in scheme else "the driver of the database"
            raise ImportError(f"`storage` {hidden} needs a driver. Run: pip install '{extra}'.") from error
        except Exception as error:  # the database restarts, or another worker makes the tables at this moment
            if time.monotonic() > end:
                said = str(error.__cause__ or error).strip().partition("\n")[0]
                raise ConnectionError(
                    f"`storage` must be within reach, got {hidden}: {said}. Start the database, and check the address, "
                    "the name and the password."
                ) from error
            time.sleep(0.5)
        else:
            weakref.finalize(database, database.engine.dispose)  # Optuna leaves its connections open
            opened: BaseStorage = database
            return opened


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{place}"


def patient(call: Callable[[], T], seconds: float | None = None) -> T:
    """Call the storage until it answers: a database may restart. Doing ``call`` twice must be harmless.

    Args:
        call: The call.
        seconds: For how long it is tried again, by default a minute.
    """
    end = time.monotonic() + (PATIENCE if seconds is None else seconds)
    pause = 0.1
    while True:
        try:
            return call()
        except Exception as error:
            if not _passes(error) or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def _passes(error: BaseException) -> bool:
    """Whether an error comes from a connection to the database, and may be gone later."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError, OperationalError

    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    if isinstance(chain[0], StorageInternalError):
        return any(isinstance(each, OperationalError | DBAPIError) for each in chain)
    return isinstance(chain[0], OperationalError) or (
        isinstance(chain[0], DBAPIError) and chain[0].connection_invalidated
    )
