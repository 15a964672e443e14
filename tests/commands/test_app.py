"""Commands may be coroutine functions, alone, in groups and before a group."""

import asyncio

import typer
from typer.testing import CliRunner

from fabwafer.commands.app import Commands

app = Commands(invoke_without_command=True)


@app.callback()
async def first(context: typer.Context, name: str = "nobody") -> None:
    """Says hello."""
    await asyncio.sleep(0)
    print("hello", name)


@app.command()
async def again(times: int) -> None:
    """Says more."""
    await asyncio.sleep(0)
    print("and again" * times)


@app.command()
def plainly() -> None:
    """Says it plainly."""
    print("plainly")


def test_coroutine_functions_and_others_run_as_commands_with_their_options() -> None:
    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout

    assert run("--name", "kim") == "hello kim\n"
    assert run("again", "2") == "hello nobody\nand againand again\n"
    assert run("plainly") == "hello nobody\nplainly\n"


def test_a_coroutine_function_can_still_be_called() -> None:
    assert asyncio.iscoroutinefunction(again)
