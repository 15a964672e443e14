"""Fixtures that every test may use."""

from hypothesis import settings

# The same examples in every run: a failure is one that everybody sees.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# First those that others import, so that pytest rewrites their assertions before anybody has.
pytest_plugins = [
    "tests.support.nats_servers",
    "tests.support.running",
    "tests.support.mosquitto",
    "tests.support.postgres",
    "tests.support.records",
    "tests.support.fabs",
    "tests.support.gateways",
    "tests.support.model_servers",
    "tests.support.helm",
    "tests.support.object_store",
    "tests.support.small_disks",
    "tests.chaos.system",
]
