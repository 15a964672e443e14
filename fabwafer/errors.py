"""The base of all errors whose text is one sentence for the person who has to act on it.

The tree, by the module that raises:

- maps: `BadImageError`, `NotAWaferMapError`
- messages: `MessageRefusedError`
- models: `ModelRefusedError`, `NotLoadedError`, `RolloutError`, `ServerUnavailableError`, `StoreError` > `DamagedError`
- records: `RecordsUnavailableError`, `SchemaError`, `UnknownWaferError`, `RolloutChangedError`
- service: `SettingsError`
- commands: `SystemNotFoundError`, `BusUnavailableError`
- edge: `CameraRefusedError`
- bridge: `DeviceError`, `DevicesUnavailableError`, `ModelServerError` > `AnswerError`, `NeverStoredError`,
  `ReloadRefusedError`, `WebhookError`
- handlers: `BadRequestError`
- training-job: `DataError` > `UnreachableError`
- local: `StackError`, `PartFailedError`

A command that ends with one prints its text on stderr and exits with 1 (`fabwafer.cli`), so commands catch only what
they have another answer to.
"""


class FabwaferError(Exception):
    """Something that a person can mend. The text says what was expected and what came."""
