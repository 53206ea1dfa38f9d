"""The one error of conversion."""


class ConversionError(ValueError):
    """A network that cannot become a spiking one; the message lists every offending layer."""
