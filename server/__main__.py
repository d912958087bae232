"""The commands ``todo-api``, which runs the server, and ``todo-api migrate``; in a checkout, run.py does the same."""

import os
import sys
from contextlib import suppress

from server.signals import Signals


def open_standard_streams() -> None:
    """Replace closed standard streams with /dev/null, so that no connection gets descriptor 1 and receives the log."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one


def write_error(text: str) -> None:
    """Write a message to standard error; if that fails, the exit code alone reports the error."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def main(arguments: list[str]) -> int:
    """Run a command and return the exit code: 1 if it fails, 2 for wrong settings or usage."""
    if arguments not in ([], ["migrate"]):
        write_error("usage: python run.py [migrate], or todo-api [migrate]")
        return 2
    signals = Signals(lambda number: 128 + number if arguments else 0)
    # Signals are handled from here on. The imports below take half a second.
    from server.config import Config, ConfigError  # noqa: PLC0415

    try:
        config = Config.from_environment()
    except ConfigError as error:
        write_error(str(error))
        return 2
    from server import logs  # noqa: PLC0415

    logs.configure(config.log_level, config.log_format)
    signals.before_exit = lambda: logs.flush(0.4)  # seconds
    from server import app  # noqa: PLC0415

    return app.run(app.migrate_schema(config) if arguments else app.serve(config, signals))


def run() -> None:
    """Run the command that the process's arguments name, and exit."""
    open_standard_streams()
    exit_code = main(sys.argv[1:])
    os._exit(exit_code)  # sys.exit() would wait for every thread, even one that hangs in a name look-up


if __name__ == "__main__":
    run()
