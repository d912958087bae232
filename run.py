"""``python run.py`` serves, ``python run.py migrate`` brings the database's schema up to date."""

import asyncio
import os
import sys

import structlog

from server import logs
from server.app import StartError, migrate_schema, serve
from server.config import Config, ConfigError

log = structlog.get_logger()


def open_standard_streams() -> None:
    """Open /dev/null as the standard streams that are closed: else a connection gets their number, and our lines."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def main(arguments: list[str]) -> int:
    """Run a command and return the exit code: 1 if it fails, 2 for wrong settings or usage."""
    if arguments not in ([], ["migrate"]):
        sys.stderr.write("usage: python run.py [migrate]\n")
        return 2
    try:
        config = Config.from_environment()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logs.configure(config.log_level, config.log_format)
    try:
        if arguments:
            asyncio.run(migrate_schema(config))
        else:
            asyncio.run(serve(config))
            log.info("server_stopped")
    except StartError as error:
        log.error("start_failed", reason=str(error))  # noqa: TRY400  # the message is all that an operator needs
        return 1
    finally:
        logs.flush(logs.FLUSH_SECONDS)
    return 0


if __name__ == "__main__":
    open_standard_streams()
    sys.exit(main(sys.argv[1:]))
