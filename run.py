"""``python run.py`` is ``todo-api`` in a checkout, where nothing needs to be installed but requirements.txt."""

from server.__main__ import run

if __name__ == "__main__":
    run()
