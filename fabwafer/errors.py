"""The base of all errors whose text is one sentence for the person who has to act on it.

The tree, by the module that raises:

- maps: `BadImageError`, `NotAWaferMapError`
- messages: `MessageRefusedError`
- models: `ModelRefusedError`, `StoreError` > `DamagedError`
- records: `RecordsUnavailableError`, `DatabaseUrlError`, `SchemaError`, `CursorError`, `UnknownWaferError`,
  `ThresholdRefusedError`, `RolloutChangedError`
- service: `SettingsError`
- commands: `SystemNotFoundError`
- edge: `CameraRefusedError`
- bridge: `DeviceError`, `DevicesUnavailableError`, `ModelServerError` > `AnswerError`, `NeverStoredError`,
  `ReloadRefusedError`, `WebhookError`
- handlers: `BadRequestError`, `NotLoadedError`
- training-job: `DataError` > `UnreachableError`
- local: `StackError`, `PartFailedError`

A command that ends with one prints its text on stderr and exits with 1 (`fabwafer.cli`), so commands catch only what
they have another answer to.
"""


class FabwaferError(Exception):
    """Something that a person can mend. The text says what was expected and what came."""
