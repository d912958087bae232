"""``python run.py`` serves, ``python run.py migrate`` brings the database's schema up to date."""

import asyncio
import sys

import structlog

from server import logs
from server.app import StartError, run_migrations, serve
from server.config import Config, ConfigError


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
            run_migrations(config.database_url)
        else:
            asyncio.run(serve(config))
    except StartError as error:
        structlog.get_logger().error("start_failed", reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
