"""The command-line application that all commands are registered with."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from fabwafer.commands.text import escaped_output

F = TypeVar("F", bound=Callable[..., Any])


class Commands(typer.Typer):
    """A Typer application whose commands may be coroutine functions, and whose output is escaped."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[F], F]:
        """Register a command; a coroutine function runs in an event loop of its own."""
        return _decorator(super().command(*args, **kwargs))

    def callback(self, *args: Any, **kwargs: Any) -> Callable[[F], F]:
        """Register what runs before each command; a coroutine function runs in an event loop of its own."""
        return _decorator(super().callback(*args, **kwargs))


def _decorator(register: Callable[[Callable[..., Any]], Any]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        register(_escaping(_synchronous(function)))
        return function

    return decorate


def _escaping(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with escaped_output():
            return function(*args, **kwargs)

    return run


def _synchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(function(*args, **kwargs))

    return run
