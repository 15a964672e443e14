"""What an archive holds of the handler: a name for TorchServe to find.

All code comes from the installed package, so that an archive built by one release of fabwafer is served by the code of
the release that serves it.
"""

from fabwafer_handlers.torchserve import WaferHandler


class ArchivedHandler(WaferHandler):
    """The handler under the name of the archive's own module, the only kind of class that TorchServe looks for."""
