"""The base of all errors whose text is one sentence for the person who has to act on it.

The tree, by the module that raises:

- maps: `BadImageError`, `NotAWaferMapError`
- messages: `MessageRefusedError`, `EncodingError`
- models: `ModelRefusedError`, `NotLoadedError`, `RolloutError`, `ServerUnavailableError`, `ClusterError`,
  `NotServingError`, `PredictorError`, `StoreError` > `DamagedError`, `StoreUnavailableError`
- records: `RecordsUnavailableError`, `DatabaseUrlError`, `SchemaError`, `CursorError`, `UnknownWaferError`,
  `ThresholdRefusedError`, `RolloutChangedError`, `RecordsNotEmptyError`, `ImageDamagedError`
- service: `SettingsError`, `ListenerError`
- imports: `ExportError`
- commands: `SystemNotFoundError`, `BusUnavailableError`, `NothingToImportError`
- edge: `CameraRefusedError`, `NothingSentError`
- bridge: `BackupError`, `CertificateError`, `DeviceError`, `DevicesUnavailableError`, `ModelServerError` >
  `AnswerError`, `NeverStoredError`, `NotHeldError`, `ReloadRefusedError`, `SmokeTestError`, `StreamsMissingError`,
  `StreamsRefusedError`, `UnknownDeadLetterError`, `WebhookError`
- handlers: `BadRequestError`
- training-job: `DataError` > `UnreachableError`
- local: `StackError`, `PartFailedError`

A command that ends with one prints its text on stderr and exits with its `exit_code` (`fabwafer.cli`), so commands
catch only what they have another answer to.
"""

from typing import ClassVar, Final

CREDENTIALS_REFUSED: Final = 3
"""Exit code of a command whose user or password was refused by the server."""


class FabwaferError(Exception):
    """Something that a person can mend. The text says what was expected and what came."""

    exit_code: ClassVar[int] = 1
    """What a command exits with that ends with this error; another than 1 where a program decides by it."""
