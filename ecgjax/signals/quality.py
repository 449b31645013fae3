"""Why a recording or a volume is refused before it is conditioned."""


class QualityError(ValueError):
    """The acquisition breaks a rule of quality; `kind` is one short word, for counting."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):
        # Worker processes send errors home by pickle, which would call the class with the message alone.
        return type(self), (self.kind, str(self))
